/** Connections to the source that chunks are read over: one for each table that is read at the same time. */
import type pg from 'pg';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import type { CopyClient } from '../../replicate/snapshot/copy-client.ts';
import { scanSession } from '../../replicate/snapshot/read-chunk.ts';
import { connectToCopy } from '../../replicate/source.ts';

export class ScanConnections {
  readonly #source: SourceConfig;
  readonly #stopped: AbortSignal;
  readonly #clients: (CopyClient | null)[];

  constructor(source: SourceConfig, count: number, stopped: AbortSignal) {
    this.#source = source;
    this.#stopped = stopped;
    this.#clients = new Array(count).fill(null);
  }

  /** Opened when there is none. */
  async at(place: number): Promise<CopyClient> {
    const known = this.#clients[place];
    if (known) return known;
    const client = await connectToCopy(this.#source, 'tidemark/snapshot');
    await client.query(scanSession);
    if (this.#stopped.aborted) closeNow(client);
    this.#clients[place] = client;
    return client;
  }

  drop(place: number): void {
    const client = this.#clients[place];
    this.#clients[place] = null;
    if (client) closeNow(client);
  }

  dropAll(): void {
    for (let place = 0; place < this.#clients.length; place++) this.drop(place);
  }
}

/** Not politely: it may be waiting for a lock, or be in the middle of a COPY. */
function closeNow(client: pg.Client): void {
  client.connection?.stream?.destroy();
}

export async function isStandby(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query('select pg_is_in_recovery() as standby');
  return rows[0].standby;
}
