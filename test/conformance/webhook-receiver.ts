/**
 * An endpoint as the sink's README asks for one: it verifies with Standard Webhooks' own library, answers only when the
 * events are in its file, and knows by their ids what it has already. `stateOf` is what somebody makes of the file.
 */
import { appendFileSync, readFileSync } from 'node:fs';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, Row } from '../../src/connector/sink.ts';
import { type Delivery, type Json, type Reply, TestEndpoint } from '../fixtures/webhook-endpoint.ts';

/** A row with this note is more than the endpoint takes. */
export const unwelcome = 'not to be taken by this endpoint';

export class Receiver {
  readonly endpoint: TestEndpoint;
  readonly #folder: string;
  /** What it answers instead of taking events. */
  #instead: Reply | null = null;

  private constructor(endpoint: TestEndpoint, folder: string) {
    this.endpoint = endpoint;
    this.#folder = folder;
    endpoint.keep = false;
    endpoint.reply = (delivery) => this.#take(delivery);
  }

  static async start(secret: string, folder: string): Promise<Receiver> {
    return new Receiver(await TestEndpoint.start(secret), folder);
  }

  async whileAnswering(reply: Reply, work: () => Promise<void>): Promise<void> {
    this.#instead = reply;
    try {
      await work();
    } finally {
      this.#instead = null;
    }
  }

  /** Every event in the order of its arrival, repeats too. */
  received(path: string): Json[] {
    let text: string;
    try {
      text = readFileSync(this.#file(path), 'utf8');
    } catch {
      return [];
    }
    return text
      .trimEnd()
      .split('\n')
      .flatMap((line) => JSON.parse(line));
  }

  #take({ verified, events, body, path }: Delivery): Reply {
    if (!verified) return 401;
    if (this.#instead !== null) return this.#instead;
    if (events.some(({ row }) => row.note === unwelcome)) return 422;
    appendFileSync(this.#file(path), `${body}\n`);
    return 204;
  }

  #file(path: string): string {
    return `${this.#folder}/${path.replace('/', '')}.jsonl`;
  }
}

interface Kept {
  values: Record<string, Cell>;
  position: string;
  retired: boolean;
}

/** The rows of a table, from its events alone. */
export function stateOf(received: readonly Json[], { columns, keyColumns }: TableShape): Row[] {
  const once = [...new Map(received.map((event) => [event.id, event])).values()];
  const rank = (event: Json) => `${event.position}/${event.op === 'd' ? 0 : event.op === 's' ? 2 : 1}`;
  once.sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
  const rows = new Map<string, Kept>();
  /** Of keys that a row moved away from, for what the move left untouched. */
  const left = new Map<string, Kept>();
  const bag: Row[] = [];
  const rowOf = (values: Record<string, Cell>): Row => columns.map(({ name }) => values[name] ?? null);
  const remove = (row: Row) => {
    const text = JSON.stringify(row);
    bag.splice(
      bag.findIndex((each) => JSON.stringify(each) === text),
      1,
    );
  };
  for (const { op, key, row, previous_key, before, position, since } of once) {
    const name = JSON.stringify(Object.values(key));
    if (op === 't') {
      for (const [each, { retired }] of rows) if (!retired) rows.delete(each);
      bag.length = 0;
    } else if (op === 's') {
      for (const [each, kept] of rows) if (!kept.retired && kept.position <= since) rows.delete(each);
    } else if (keyColumns.length === 0) {
      if (op === 'd') remove(rowOf(row));
      if (op === 'u') remove(rowOf(before));
      if (op !== 'd') bag.push(rowOf(row));
    } else if (op === 'e') {
      const kept = rows.get(name);
      if (kept) rows.set(name, { ...kept, position, retired: true });
    } else if (op === 'd') {
      const kept = rows.get(name);
      if (kept) left.set(name, kept);
      rows.delete(name);
    } else {
      const from = previous_key ? left.get(JSON.stringify(Object.values(previous_key))) : rows.get(name);
      rows.set(name, { values: { ...from?.values, ...row }, position, retired: false });
    }
  }
  return keyColumns.length === 0 ? bag : [...rows.values()].map(({ values }) => rowOf(values));
}
