/**
 * What of a Window is withheld when some of its rows are in Quarantine. A destination that keeps one row per key can
 * take a row again once it came whole, so a full Change supersedes what waits; and where a row's key changed without
 * carrying all of its columns, the rows under both keys wait together, since one supplies the other's values. A
 * destination that keeps every Change gets them in order: whatever comes later waits.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Position } from '../../connector/position.ts';
import { blob, changeColumnsOf, streamRows } from '../spilled-columns.ts';
import type { SpilledRows } from '../spilled-rows.ts';
import type { Range, StoredChange, WithheldKey } from '../stored-change.ts';
import { storeError } from '../window-store.ts';

/** A key of the Unit that is withheld, or to be. */
export interface HeldKey {
  topic: number;
  key: Buffer;
  /** It takes part in a key change that borrows values. */
  bound: boolean;
  /** The first refused Position in this Window; null: it was withheld before. */
  refusedAt: Position | null;
}

export interface WithheldChanges {
  /** All keys that are withheld after this Window, those found by their key changes among them. */
  keys: HeldKey[];
  /** What is left out of the Window. */
  withheld: WithheldKey[];
  /** Keys withheld before that the Window brings whole. */
  superseded: HeldKey[];
}

/** The key of the Change at a Position; null: there is none, or it has no key. */
export async function keyAt(
  store: SpilledRows,
  range: Range,
  { topic, position }: { topic: number; position: Position },
): Promise<Buffer | null> {
  const rows = store.allRowsSql(range);
  if (!rows) return null;
  return withConnection(store, async (connection) => {
    const found = await connection.run(
      `select key from ${rows} where topic = ${topic} and position = '${position}' limit 1`,
    );
    const [row] = await found.getRows();
    return row ? blob(row[0]!) : null;
  });
}

/** @param merges whether the destination keeps one row per key */
export async function withheldChanges(
  store: SpilledRows,
  range: Range,
  held: readonly HeldKey[],
  merges: boolean,
): Promise<WithheldChanges> {
  const rows = store.allRowsSql(range);
  if (!rows) return { keys: [...held], withheld: [], superseded: [] };
  if (!merges) {
    const withheld = held.map(({ topic, key, refusedAt }) => ({ topic, key, from: refusedAt, until: null }));
    return { keys: [...held], withheld, superseded: [] };
  }
  return withConnection(store, async (connection) => {
    const truncatedAt = await truncates(connection, rows);
    // What waited then is gone; whether the key is withheld after that, what is refused after it and its key changes say.
    const gone = held.filter(({ topic, refusedAt }) => refusedAt === null && truncatedAt.has(topic));
    await fillHeld(
      connection,
      held.filter(({ topic, refusedAt }) => refusedAt !== null || !truncatedAt.has(topic)),
    );
    await followKeyChanges(connection, rows);
    const result: WithheldChanges = { keys: [], withheld: [], superseded: [] };
    const found = await connection.run(`
      select h.topic, h.key, h.bound, h.refused_at,
        max(r.position) filter (where not r.truncate and not r.partial and not r.eviction)
      from held h left join ${rows} r on r.topic = h.topic and r.key = h.key
      group by h.topic, h.key, h.bound, h.refused_at`);
    const still = new Set<string>();
    for (const [topic, key, bound, refusedAt, fullAt] of await found.getRows()) {
      const one = {
        topic: topic as number,
        key: blob(key!)!,
        bound: bound as boolean,
        refusedAt: refusedAt as Position | null,
      };
      const whole = one.refusedAt || one.bound ? null : (fullAt as Position | null);
      result.withheld.push({ topic: one.topic, key: one.key, from: null, until: whole });
      (whole ? result.superseded : result.keys).push(one);
      still.add(nameOf(one));
    }
    for (const one of gone.filter((each) => !still.has(nameOf(each)))) {
      const { topic, key } = one;
      result.withheld.push({ topic, key, from: null, until: truncatedAt.get(topic)! });
      result.superseded.push(one);
    }
    return result;
  });
}

function nameOf({ topic, key }: Pick<HeldKey, 'topic' | 'key'>): string {
  return `${topic}/${key.toString('base64')}`;
}

/** The Changes that wait from now on, in order. */
export async function* waitingChanges(
  store: SpilledRows,
  range: Range,
  withheld: readonly WithheldKey[],
): AsyncIterable<StoredChange[]> {
  const rows = store.allRowsSql(range);
  const waiting = withheld.filter(({ until }) => until === null);
  if (!rows || waiting.length === 0) return;
  const connection = await store.connect();
  try {
    await fillHeld(
      connection,
      waiting.map(({ topic, key, from }) => ({ topic, key, bound: false, refusedAt: from })),
    );
    yield* streamRows(
      connection,
      `select ${changeColumnsOf('r')} from ${rows} r join held h on h.topic = r.topic and h.key = r.key
        and r.position >= coalesce(h.refused_at, '') order by r.position`,
      (values, row) => store.storedChange(values, row),
    );
  } finally {
    connection.closeSync();
  }
}

async function fillHeld(connection: DuckDBConnection, held: readonly HeldKey[]): Promise<void> {
  await connection.run('create temp table held (topic integer, key blob, bound boolean, refused_at varchar)');
  const appender = await connection.createAppender('held', null, 'temp');
  for (const { topic, key, bound, refusedAt } of held) {
    appender.appendInteger(topic);
    appender.appendBlob(key);
    appender.appendBoolean(bound);
    if (refusedAt === null) appender.appendNull();
    else appender.appendVarchar(refusedAt);
    appender.endRow();
  }
  appender.closeSync();
}

/** Of each topic that has one, its last truncate. They are in a table of their own from then on. */
async function truncates(connection: DuckDBConnection, rows: string): Promise<Map<number, Position>> {
  await connection.run(`
    create temp table truncates as select topic, max(position) as truncated_at from ${rows} where truncate group by topic`);
  const found = await connection.run('select topic, truncated_at from truncates');
  return new Map((await found.getRows()).map(([topic, at]) => [topic as number, at as Position]));
}

/** Adds the other side of every key change that borrows values, until there is none left. */
async function followKeyChanges(connection: DuckDBConnection, rows: string): Promise<void> {
  await connection.run(`
    create temp table edges as
      select distinct r.topic, r.old_key, r.key from ${rows} r left join truncates t on t.topic = r.topic
      where r.old_key is not null and r.partial and r.position > coalesce(t.truncated_at, '')`);
  for (;;) {
    await connection.run(`
      update held set bound = true where not bound and exists (
        select 1 from edges e where e.topic = held.topic and (e.key = held.key or e.old_key = held.key))`);
    const added = await connection.run(`
      insert into held
        select distinct topic, key, true, null::varchar from (
          select e.topic, e.old_key as key from edges e join held h on h.topic = e.topic and h.key = e.key
          union all
          select e.topic, e.key from edges e join held h on h.topic = e.topic and h.key = e.old_key) o
        where not exists (select 1 from held h where h.topic = o.topic and h.key = o.key)
      returning 1`);
    if ((await added.getRows()).length === 0) return;
  }
}

async function withConnection<T>(
  store: SpilledRows,
  work: (connection: DuckDBConnection) => Promise<T>,
): Promise<T> {
  const connection = await store.connect();
  try {
    return await work(connection);
  } catch (error) {
    throw storeError(error);
  } finally {
    connection.closeSync();
  }
}
