/** What `tidemark maintain` prints for a person. */
import type { UpkeepDone } from '../connector/sink.ts';

export interface MaintainAnswer {
  destination: string;
  dryRun: boolean;
  done: readonly UpkeepDone[];
}

export function maintainText({ destination, dryRun, done }: MaintainAnswer): string {
  if (done.length === 0) return `✓ ${destination}: there is nothing to keep in order yet\n`;
  const head = dryRun ? `${destination}: what there is to do\n` : '';
  return `${head}${done.map((each) => `${each.left === null ? '✓' : '!'} ${upkeepLine(each)}\n`).join('')}`;
}

/** `app.findings compact: filesBefore 120, filesAfter 2 (out of time)`. */
export function upkeepLine({ table, step, counts, left }: UpkeepDone): string {
  const parts = Object.entries(counts).map(([name, count]) => `${words(name)} ${count}`);
  return `${table} ${step}: ${parts.join(', ')}${left === null ? '' : ` (${left})`}`;
}

function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
