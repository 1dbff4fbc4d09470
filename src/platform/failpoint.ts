/**
 * Named places where a fault test stops the process. Inactive unless TIDEMARK_FAILPOINTS is set, for example
 * `after-produce=kill@3,mid-merge=sleep:500`: kill -9 at the third pass, or wait 500 ms at every pass.
 */
import { setTimeout as sleep } from 'node:timers/promises';

interface Armed {
  action: 'kill' | 'sleep' | 'throw';
  milliseconds: number;
  /** 1-based pass at which it fires; 0 fires at every pass. */
  at: number;
  passes: number;
}

const armed = new Map<string, Armed>();
for (const entry of (process.env.TIDEMARK_FAILPOINTS ?? '').split(',').filter(Boolean)) {
  const match = /^([a-z:-]+)=(kill|throw|sleep)(?::(\d+))?(?:@(\d+))?$/.exec(entry);
  if (!match) throw new Error(`TIDEMARK_FAILPOINTS: cannot read ${JSON.stringify(entry)}`);
  armed.set(match[1]!, {
    action: match[2] as Armed['action'],
    milliseconds: Number(match[3] ?? 0),
    at: Number(match[4] ?? (match[2] === 'sleep' ? 0 : 1)),
    passes: 0,
  });
}

export const failpointsArmed = armed.size > 0;

export async function failpoint(name: string): Promise<void> {
  if (!failpointsArmed) return;
  const point = armed.get(name);
  if (!point) return;
  point.passes++;
  if (point.at !== 0 && point.passes !== point.at) return;
  if (point.action === 'kill') process.kill(process.pid, 'SIGKILL');
  if (point.action === 'throw') throw new Error(`failpoint ${name}`);
  await sleep(point.milliseconds);
}
