/**
 * What stands in a destination's way at the moment: a hold of verify, a pause, rows in Quarantine. Looked at for all destinations of a
 * process at once, twice a second; the ledger has the last word when a Window is decided.
 */
import { EventEmitter } from 'node:events';
import type { Pool } from 'pg';
import type { Position } from '../connector/position.ts';
import { controlError } from '../platform/control.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { HoldState } from './cut-window.ts';
import type { Pause } from './pauses.ts';
import { Wake } from './wake.ts';

export interface Gate {
  hold: HoldState | null;
  pause: Pause | null;
  /** Entries of Quarantine, and how many of them somebody wants replayed. */
  quarantined: number;
  replaying: number;
  /** Units that somebody wants elsewhere. */
  moving: number;
  /** When somebody last wanted it to go on, milliseconds since 1970. */
  resumedAt: number;
}

const open: Gate = { hold: null, pause: null, quarantined: 0, replaying: 0, moving: 0, resumedAt: 0 };
const pollMs = 500;

interface GateRow {
  destination: string;
  held: boolean;
  target: string | null;
  paused_at: Date | null;
  paused_by: string | null;
  pause_reason: string | null;
  quarantined: number;
  replaying: number;
  moving: number;
  resumed_at: Date | null;
}

export class Gates {
  readonly #pool: Pool;
  readonly #sourceId: string;
  readonly #log: Logger;
  readonly #events = new EventEmitter().setMaxListeners(0);
  readonly #stopping = new Wake();
  #gates = new Map<string, Gate>();
  #stopped = false;
  #running: Promise<void> | null = null;

  constructor(pool: Pool, sourceId: string, log: Logger) {
    this.#pool = pool;
    this.#sourceId = sourceId;
    this.#log = log;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stopping.ring();
    await this.#running;
  }

  /** As last seen. */
  of(destination: string): Gate {
    return this.#gates.get(destination) ?? open;
  }

  onChange(destination: string, listener: (now: Gate, before: Gate) => void): void {
    this.#events.on(destination, listener);
  }

  /** @throws TidemarkError TM409 */
  async refresh(): Promise<void> {
    const { rows } = await this.#pool
      .query<GateRow>(
        `select d.destination, h.holder is not null as held, h.target, d.paused_at, d.paused_by, d.pause_reason, d.resumed_at,
                coalesce(q.quarantined, 0) as quarantined, coalesce(q.replaying, 0) as replaying,
                (select count(*)::int from tidemark.moves m where m.source_id = d.source_id
                    and m.destination = d.destination and m.done_at is null) as moving
         from tidemark.destinations d
         left join tidemark.holds h
           on h.source_id = d.source_id and h.destination = d.destination and h.expires_at > now()
         left join (select destination, count(*)::int as quarantined,
                           count(*) filter (where state = 'replaying')::int as replaying
                      from tidemark.quarantine where source_id = $1 and state in ('held', 'replaying', 'dropped')
                     group by destination) q on q.destination = d.destination
         where d.source_id = $1`,
        [this.#sourceId],
      )
      .catch((error) => {
        throw controlError(error);
      });
    const before = this.#gates;
    this.#gates = new Map(rows.map((row) => [row.destination, gateOf(row)]));
    for (const destination of new Set([...before.keys(), ...this.#gates.keys()])) {
      const [now, earlier] = [this.of(destination), before.get(destination) ?? open];
      if (!sameGate(now, earlier)) this.#events.emit(destination, now, earlier);
    }
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      await this.refresh().catch((error) =>
        this.#log.debug('holds and pauses cannot be read', errorFields(error)),
      );
      await this.#stopping.wait(pollMs);
    }
  }
}

function gateOf(row: GateRow): Gate {
  const { paused_at: at } = row;
  return {
    hold: row.held ? { target: row.target as Position | null } : null,
    pause: at && { at, by: row.paused_by ?? '', reason: row.pause_reason ?? '' },
    quarantined: row.quarantined,
    replaying: row.replaying,
    moving: row.moving,
    resumedAt: row.resumed_at?.getTime() ?? 0,
  };
}

function sameGate(a: Gate, b: Gate): boolean {
  return (
    (a.hold === null) === (b.hold === null) &&
    a.hold?.target === b.hold?.target &&
    a.pause?.at.getTime() === b.pause?.at.getTime() &&
    a.quarantined === b.quarantined &&
    a.replaying === b.replaying &&
    a.moving === b.moving &&
    a.resumedAt === b.resumedAt
  );
}
