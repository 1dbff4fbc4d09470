/**
 * Evicted rows at every kind of destination that keeps rows: each alone has what the hash covers, brings it back, and loses it
 * by an erasure, or says that it cannot.
 */
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ErasureReport } from '../../src/retain/erase/erase.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import {
  addPolicy,
  createNotes,
  retainOnce,
  retentionOptions,
  retiredRows,
  verified,
} from '../fixtures/retention.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('retention-kinds', ['clickhouse', 'iceberg']);
});
afterAll(async () => {
  await faults?.stop();
});

/** What an erasure says of the row there. */
const kinds = {
  replica: 'gone',
  warehouse: 'gone',
  tables: 'gone',
  own: 'gone',
  lake: 'stays',
  archive: 'stays',
} as const;
type Kind = keyof typeof kinds;
const names = Object.keys(kinds) as Kind[];
/** The one whose rows `own` gets. */
const boundTo = '1';

async function addKinds(pipeline: Pipeline): Promise<void> {
  const { environment } = pipeline.stack;
  const database = pipeline.databaseName('own');
  await pipeline.control.query(`create database ${pg.escapeIdentifier(database)}`);
  const own = new URL(environment.TIDEMARK_SOURCE_URL!);
  own.pathname = `/${database}`;
  const soon = { cadence: '1s' };
  pipeline.addDestination('own', {
    'connector.class': 'postgres',
    tenant: boundTo,
    'connection.url': own.href,
    ...soon,
  });
  pipeline.addDestination('archive', {
    'connector.class': 'jsonl',
    'jsonl.url': `file://${join(pipeline.directory, 'archive')}`,
    ...soon,
  });
  pipeline.addDestination('warehouse', {
    'connector.class': 'clickhouse',
    'clickhouse.url': environment.TIDEMARK_CLICKHOUSE_URL!,
    'clickhouse.user': environment.TIDEMARK_CLICKHOUSE_USER!,
    'clickhouse.password': environment.TIDEMARK_CLICKHOUSE_PASSWORD!,
    'clickhouse.database': pipeline.databaseName('app'),
    ...soon,
  });
  pipeline.addDestination('tables', {
    'connector.class': 'iceberg',
    'iceberg.catalog.uri': environment.TIDEMARK_ICEBERG_URL!,
    'iceberg.namespace': pipeline.databaseName('app'),
    ...soon,
  });
}

/** Values that do not survive a careless way there and back, in a table whose rows have several lives. */
const hostileColumns = `alter table app.notes add column odd float8, add column exact numeric, add column span interval,
    add column clock timetz, add column day date, add column period tstzrange, add column bits varbit, add column long text,
    add column shape json, add column place point, add column cost money, add column at timestamp, add column ids uuid[];
  update app.notes set odd = case id % 3 when 0 then 'NaN'::float8 when 1 then '-0' else 5e-324 end,
    exact = case id % 3 when 0 then 'NaN'::numeric when 1 then -0.00 else 12345678901234567890.000000000100 end,
    span = '-1 year 2 days -03:04:05.000006', clock = '23:59:59.999999+05:45', day = case when id % 2 = 0 then 'infinity'::date else '0044-03-15 BC' end,
    period = '[2020-01-01 00:00:00.000001+00,infinity)', bits = B'0110', long = (select string_agg(md5(id || '/' || n), '') from generate_series(1, 500) n),
    shape = '{"b": 1.0,  "a": "\\u00e9", "b": null}', place = '(1.5,-0)', cost = 12.34, at = '294276-12-31 23:59:59.999999',
    ids = array['00000000-0000-0000-0000-000000000000'::uuid, null],
    body = body || E'\\t\\n\\\\N "é" \\U0001F600', tags = '{}', detail = '[]'`;

/** Of each note its text as Postgres prints the whole row, by key. */
async function notes({ source }: Pipeline): Promise<Map<string, string>> {
  const { rows } = await source.query<{ key: string; text: string }>(
    `select json_build_array(organization_id::text, id::text)::text as key, t::text as text from app.notes t`,
  );
  return new Map(rows.map(({ key, text }) => [JSON.stringify(JSON.parse(key)), text]));
}

async function json(pipeline: Pipeline, ...args: string[]) {
  const { code, stdout, stderr } = await pipeline.command([...args, '--json']);
  expect(stdout, stderr).not.toBe('');
  return { ...JSON.parse(stdout), code };
}

/** How many rows each destination has beside those of the source, all of which it has. */
async function evictedAt(pipeline: Pipeline): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const name of names) {
    const { status, evicted } = await verified(pipeline, name);
    expect([name, status]).toEqual([name, 'equal']);
    counts[name] = evicted;
  }
  return counts;
}

test('every kind of destination keeps what the source let go of, hands it back as it was, and loses it when it is erased', () =>
  faults.run('retention-kinds', retentionOptions, async (pipeline) => {
    await addKinds(pipeline);
    await createNotes(pipeline);
    await pipeline.source.query(`insert into app.notes (organization_id, id, body, created_at)
      select 1, 2100 + n, 'body ' || n, now() - interval '90 days' from generate_series(1, 3) n`);
    await pipeline.source.query(hostileColumns);
    const before = await notes(pipeline);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    for (const name of names) await pipeline.verify(name);
    await addPolicy(pipeline);
    expect(await retainOnce(pipeline)).toMatchObject({ ok: true, tables: [{ evicted: 12 }] });
    const all = (rows: number, ofBound: number) => ({
      ...Object.fromEntries(names.map((name) => [name, rows])),
      own: ofBound,
    });
    expect(await evictedAt(pipeline)).toEqual(all(12, 9));

    // Of the tenant that all of them have, one row from each.
    const cold = [2001, 2002, 2003, 1451, 1452, 1453].map((id) => JSON.stringify([boundTo, String(id)]));
    for (const [i, name] of names.entries()) {
      const args = ['--key', cold[i]!, '--destination', name, '--reason', 'audit'];
      expect(await json(pipeline, 'recall', 'app.notes', ...args)).toMatchObject({
        code: 0,
        recalled: 1,
        from: { [name]: 1 },
        refused: {},
        altered: [],
      });
    }
    const back = await notes(pipeline);
    for (const key of cold) expect(back.get(key)).toBe(before.get(key));
    // Rows of other tenants are nothing that it could have.
    const wanted = ['--where', `tenant = '4'`, '--destination', 'own', '--reason', 'audit'];
    expect(await json(pipeline, 'recall', 'app.notes', ...wanted)).toMatchObject({
      code: 1,
      selected: 3,
      recalled: 0,
    });
    expect(await evictedAt(pipeline)).toEqual(all(6, 3));

    const why = ['--reason', 'art. 17', '--by', 'Ada'];
    const byKey = ['app.notes', '--key', '["4","5001"]', '--confirm', 'app.notes', ...why];
    const one: ErasureReport = await json(pipeline, 'erase', ...byKey);
    expect(one).toMatchObject({ code: 0, tables: [{ table: 'app.notes', hot: 0, tombstones: 1 }] });
    const report: ErasureReport = await json(
      pipeline,
      'erase',
      '--tenant',
      boundTo,
      '--confirm',
      boundTo,
      ...why,
    );
    expect(report).toMatchObject({ code: 0, tables: [{}, { table: 'app.notes', hot: 9, tombstones: 9 }] });
    for (const { destinations } of [one, report]) {
      expect(Object.fromEntries(destinations.map(({ destination, row }) => [destination, row]))).toEqual(
        kinds,
      );
      for (const { row, left } of destinations)
        expect(left.some((each) => each.startsWith('files keep every Change'))).toBe(row === 'stays');
    }
    for (const name of names) {
      const kept = (await retiredRows(pipeline, name)).map((row) => row.get('id')).sort();
      expect([name, kept]).toEqual([name, name === 'own' ? [] : ['5002', '5003']]);
    }
    expect(await evictedAt(pipeline)).toEqual(all(2, 0));
    // By their own engines as well, whatever else is beside the rows that are shown.
    const erased = `organization_id = 1 or id = 5001`;
    for (const database of ['replica', 'own'] as const) {
      const { rows } = await (await pipeline.connectTo(database)).query(
        `select count(*)::int as rows from app.notes where ${erased}`,
      );
      expect([database, rows]).toEqual([database, [{ rows: 0 }]]);
    }
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
