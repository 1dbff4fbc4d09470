/**
 * What one worker knows of the database: keys it may change later. Workers share no keys (except connections and
 * organizations, of which a transaction changes at most one), so they neither block each other nor deadlock.
 */
import type { Client } from 'pg';
import { type Prng, skewed, type Weighted } from './prng.ts';
import type { Connection } from './rows.ts';

export interface FindingKey {
  organization: string;
  id: string;
  status: string;
}
export interface EventKey {
  organization: string;
  id: string;
  /** As the database prints it. */
  occurredAt: string;
}
export interface DeliveryKey {
  organization: string;
  id: string;
  attempts: number;
}

/** A bounded set of keys; when full, a new one replaces an old one. */
export class Pool<T> {
  readonly #items: T[] = [];
  readonly #capacity: number;
  #next = 0;

  constructor(capacity = 20_000) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#items.length;
  }

  add(item: T): void {
    if (this.#items.length < this.#capacity) {
      this.#items.push(item);
    } else {
      this.#next = (this.#next + 1) % this.#capacity;
      this.#items[this.#next] = item;
    }
  }

  pick(prng: Prng): T | undefined {
    return this.#items.length === 0 ? undefined : prng.pick(this.#items);
  }

  /** One of the first tenth: mostly the oldest. */
  pickOld(prng: Prng): T | undefined {
    return this.#items[prng.integer(0, Math.floor(this.#items.length / 10))];
  }

  /** Up to `count` different items. */
  pickSome(prng: Prng, count: number): T[] {
    const picked = new Set<T>();
    for (let i = 0; i < count && this.#items.length > 0; i++) picked.add(prng.pick(this.#items));
    return [...picked];
  }

  remove(item: T): void {
    const index = this.#items.indexOf(item);
    if (index === -1) return;
    const last = this.#items.pop()!;
    if (index < this.#items.length) this.#items[index] = last;
  }

  clear(): void {
    this.#items.length = 0;
  }
}

export class WorkerState {
  readonly organizations: readonly string[];
  readonly connections: readonly Connection[];
  readonly findings = new Pool<FindingKey>();
  readonly events = new Pool<EventKey>();
  readonly deliveries = new Pool<DeliveryKey>();
  /** Connections on trial, which nothing but sync runs refers to. */
  readonly trials = new Pool<Connection>(50);
  readonly #byOrganization: Weighted;
  readonly #byConnection: Weighted;

  constructor(organizations: readonly string[], connections: readonly Connection[]) {
    this.organizations = organizations;
    this.connections = connections;
    this.#byOrganization = skewed(organizations.length);
    this.#byConnection = skewed(connections.length);
  }

  /** Skewed: the first organization is by far the busiest. */
  organization(prng: Prng): string {
    return this.organizations[this.#byOrganization.draw(prng)]!;
  }

  connection(prng: Prng): Connection {
    return this.connections[this.#byConnection.draw(prng)]!;
  }
}

/** Rows that already exist are dealt out to the workers round robin, this many per table at most. */
const existingRows = 20_000;

/** Reads what the database holds; returns one state per worker. Deterministic for equal content. */
export async function readStates(
  client: Client,
  workers: number,
  organizations: number,
): Promise<WorkerState[]> {
  const tenants = await client.query<{ id: string }>(
    'SELECT id FROM app.organizations ORDER BY created_at, id LIMIT $1',
    [organizations],
  );
  const ids = tenants.rows.map((row) => row.id);
  const connections = await client.query<Connection>(
    `SELECT organization_id AS organization, id, provider::text FROM app.integration_connections
     WHERE organization_id = ANY ($1) ORDER BY array_position($1, organization_id), created_at, id`,
    [ids],
  );
  const states = Array.from({ length: workers }, () => new WorkerState(ids, connections.rows));
  const deal = async <T extends object>(sql: string, add: (state: WorkerState, row: T) => void) => {
    const result = await client.query<T>(`${sql} LIMIT ${existingRows}`, [ids]);
    result.rows.forEach((row, index) => {
      add(states[index % workers]!, row);
    });
  };
  await deal<FindingKey>(
    `SELECT organization_id AS organization, id, status::text FROM app.findings
     WHERE organization_id = ANY ($1) ORDER BY created_at, id`,
    (state, row) => state.findings.add(row),
  );
  await deal<EventKey>(
    `SELECT organization_id AS organization, id, occurred_at::text AS "occurredAt" FROM app.events
     WHERE organization_id = ANY ($1) ORDER BY occurred_at, id`,
    (state, row) => state.events.add(row),
  );
  await deal<DeliveryKey>(
    `SELECT organization_id AS organization, id, attempts::int FROM app.workflow_deliveries
     WHERE organization_id = ANY ($1) AND status IN ('pending', 'failed') ORDER BY created_at, id`,
    (state, row) => state.deliveries.add(row),
  );
  return states;
}
