/**
 * Evictions and recalls on their way from the source to destinations: what counts is the Tombstone that came before in the
 * same Transaction. Written by hand here, as the retention service writes them.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { sinkKinds } from '../../connectors/sinks/registry.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { createKafka } from '../../src/platform/kafka.ts';
import { createLogger } from '../../src/platform/log.ts';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { RegistryClient } from '../../src/platform/registry.ts';
import { compileEnvelopeDecoder, compileKeyDecoder, schemaIdOf } from '../../src/publish/envelope-decoder.ts';
import { header } from '../../src/publish/record-format.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { type DestinationName, FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { readTopics } from '../fixtures/read-topics.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('evictions');
});
afterAll(async () => {
  await faults?.stop();
});

const options = { tables: 'app.notes, app.comments', config: { 'retain.enabled': 'true' } } as const;

async function begin(pipeline: Pipeline): Promise<void> {
  await setUpRetention(await endpointFromUrl(pipeline.sourceUrl));
  await pipeline.source.query(`
    create table app.notes (organization_id int, id int, body text, extra text, size int, primary key (organization_id, id));
    create table app.comments (organization_id int, id int, note int, text text, primary key (organization_id, id),
      foreign key (organization_id, note) references app.notes on delete cascade);
    alter table app.notes alter extra set storage external;
    insert into app.notes select 1 + n % 2, n, 'body ' || n, repeat('y', 3000), n from generate_series(1, 20) n;
    insert into app.comments select 1 + n % 2, n * 10, n, 'on ' || n from generate_series(1, 20) n`);
}

const keyOf = (id: number) => JSON.stringify([String(1 + (id % 2)), String(id)]);

function tombstone(id: number, table = 'notes'): string {
  return `insert into tidemark_retention.cold_storage_archive
    (table_schema, table_name, row_key, position, delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version)
    values ('app', '${table}', '${keyOf(id)}', '', '[]', sha256('x'), 1, '{id}', sha256('y'), 1);`;
}

const evict = (id: number) => `${tombstone(id)} delete from app.notes where id = ${id};`;

const recall = (id: number) => `update tidemark_retention.cold_storage_archive
    set recalled_at = now(), recalled_by = session_user where row_key = '${keyOf(id)}' and recalled_at is null;
  insert into app.notes values (${1 + (id % 2)}, ${id}, 'back ${id}', null);`;

/** Of every destination: how many rows of each table are kept beside those of the source. */
async function kept(pipeline: Pipeline): Promise<Record<string, Record<string, number>>> {
  const seen: Record<string, Record<string, number>> = {};
  for (const destination of pipeline.destinations) {
    const { tables } = await pipeline.verify(destination as DestinationName);
    seen[destination] = Object.fromEntries(tables.map(({ table, evicted }) => [table, evicted]));
  }
  return seen;
}

function everywhere(pipeline: Pipeline, notes: number): Record<string, Record<string, number>> {
  return Object.fromEntries(
    pipeline.destinations.map((name) => [name, { 'app.comments': 0, 'app.notes': notes }]),
  );
}

/** Of the notes' topics: op and key of every record, in the order of Positions, null records as such. */
async function told(pipeline: Pipeline): Promise<{ changes: string[]; control: string[] }> {
  const config = await loadConfig(`${pipeline.directory}/tidemark.yaml`, sinkKinds, pipeline.environment);
  const log = createLogger({ level: 'error' });
  const registry = new RegistryClient(config.registry, log);
  const topic = `${pipeline.prefix}.app.notes`;
  const found: {
    topic: string;
    position: string;
    text: string;
    schemaId: number;
    value: Buffer | null;
    key: Buffer | null;
  }[] = [];
  await readTopics(createKafka(config.kafka, log), [topic, `${topic}.evictions`], (from, _, record) => {
    found.push({
      topic: from,
      position: String(record.headers![header.position]),
      text: '',
      schemaId: record.value ? schemaIdOf(record.value) : -1,
      value: record.value,
      key: record.key,
    });
  });
  found.sort((a, b) => (a.position < b.position ? -1 : 1));
  let schema = '';
  for (const record of found) {
    if (record.schemaId >= 0) schema = await registry.schemaById(record.schemaId);
    const op = record.value ? compileEnvelopeDecoder(schema).decode(record.value).op : 'null';
    record.text = record.key?.length ? `${op} ${compileKeyDecoder(schema)(record.key)[1]}` : op;
  }
  registry.close();
  const of = (name: string) => found.filter((record) => record.topic === name).map(({ text }) => text);
  return { changes: of(topic), control: of(`${topic}.evictions`) };
}

test('a delete is an eviction where its Tombstone came before it in its Transaction; whatever else is deleted is deleted', () =>
  faults.run('evictions', options, async (pipeline) => {
    const { source } = pipeline;
    await begin(pipeline);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 0));

    // One row without a comment (6 has none either, later); one whose comment goes with it by a cascade; a delete beside them.
    await source.query(`begin; delete from app.comments where note in (1, 6); commit`);
    await source.query(`begin; ${evict(1)} ${evict(3)} delete from app.notes where id = 2; commit`);
    // A Tombstone of an earlier Transaction, one that comes after, one of another table. (One of another row stops the reader:
    // retention-attacks.)
    await source.query(tombstone(4));
    await source.query('delete from app.notes where id = 4');
    await source.query(`begin; delete from app.notes where id = 5; ${tombstone(5)} commit`);
    await source.query(`begin; ${tombstone(6, 'comments')} delete from app.notes where id = 6; commit`);
    // One that was undone.
    await source.query(`begin; ${evict(8)} rollback`);
    // A row that came and changed in the Transaction that lets it go.
    await source.query(
      `begin; insert into app.notes values (1, 30, 'short', null); update app.notes set body = 'last' where id = 30; ${evict(30)} commit`,
    );
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 3));
    const { changes, control } = await told(pipeline);
    expect(control).toEqual(['e 1', 'e 3', 'e 30']);
    expect(changes.filter((text) => /^(d|null)/.test(text)).sort()).toEqual(
      [2, 4, 5, 6].flatMap((id) => [`d ${id}`, `null ${id}`]).sort(),
    );

    // A truncate leaves them, also in the Transaction that lets a row go.
    await source.query(
      `begin; ${evict(9)} truncate app.notes cascade; insert into app.notes values (1, 40, 'new', null); commit`,
    );
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 4));

    // Back again: an ordinary row from then on.
    await source.query(`begin; ${recall(1)} commit`);
    await pipeline.published();
    expect((await told(pipeline)).changes.at(-1)).toBe('r 1');
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 3));
    await source.query(
      `begin; ${recall(3)} update app.notes set body = 'changed' where id = 3; ${evict(3)} commit`,
    );
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 3));
    const { rows } = await pipeline.replica.query(
      'select id, body from app.notes where _tidemark_retired order by id',
    );
    expect(rows).toEqual([
      { id: 3, body: 'changed' },
      { id: 9, body: 'body 9' },
      { id: 30, body: 'last' },
    ]);

    // A snapshot of the whole table sweeps what the source does not have, and leaves them.
    expect((await pipeline.command(['snapshot', 'start', 'app.notes'])).code).toBe(0);
    expect((await pipeline.command(['snapshot', 'status', 'app.notes', '--watch'])).code).toBe(0);
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 3));
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('evictions of a parked table are evictions once it is resumed', () =>
  faults.run('evictions-parked', options, async (pipeline) => {
    const { source } = pipeline;
    await begin(pipeline);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await source.query('delete from app.comments');
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 0));
    await source.query(`begin; alter table app.notes alter size type text; ${evict(1)} ${evict(2)}
      delete from app.notes where id = 3; commit`);
    await source.query(`begin; ${tombstone(4)} ${evict(5)} delete from app.notes where id = 4; commit`);
    await source.query('delete from app.notes where id = 6');
    await pipeline.published();
    const { code, stdout, stderr } = await pipeline.command(['resume', 'app.notes', '--as', 'evolve']);
    expect(code, stdout + stderr).toBe(0);
    expect((await told(pipeline)).control).toEqual(['e 1', 'e 2', 'e 5', 'e 4']);
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 4));
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('a reader and a delivery that die in the midst of an eviction tell it once, and the row stays', () =>
  faults.run('evictions-kills', options, async (pipeline) => {
    const { source } = pipeline;
    await begin(pipeline);
    let reader = pipeline.replicate();
    let delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await source.query('delete from app.comments');
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 0));
    const points = ['after-produce', 'after-kafka-commit'];
    for (const [i, point] of points.entries()) {
      await reader.stop();
      reader = pipeline.replicate(`${point}=kill`);
      await source.query(`begin; ${evict(2 * i + 1)} delete from app.notes where id = ${2 * i + 2}; commit`);
      expect(await reader.exitsWithin(60_000), reader.output().slice(-2000)).toBe('SIGKILL');
      reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await pipeline.published();
    }
    await delivery.stop();
    for (const point of ['after-merge', 'after-ledger']) {
      delivery = pipeline.deliver(`${point}=kill`);
      await source.query(`begin; ${evict(point === 'after-merge' ? 7 : 9)} commit`);
      expect(await delivery.exitsWithin(60_000), delivery.output().slice(-2000)).toBe('SIGKILL');
    }
    delivery = pipeline.deliver();
    expect(await kept(pipeline)).toEqual(everywhere(pipeline, 4));
    expect((await told(pipeline)).control).toEqual(['e 1', 'e 3', 'e 7', 'e 9']);
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
