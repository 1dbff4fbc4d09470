/**
 * Invariant 11: what a policy withholds is nowhere outside the source. Secrets are planted in dropped, hashed and
 * masked columns, in every kind of change, old rows and parked tables included, and in values that make errors; then
 * everything that Tidemark writes is searched for them.
 *
 * That the search can find: a kept column's secret is found in Kafka's segments, in the open Window's spill files and in
 * the replica, by the same search. Parking messages as they come (ParkedMessages.withhold giving back a plain copy) was
 * tried: it fails here, naming 49 columns and the parked topic's segment.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ColumnProtector } from '../../src/replicate/column-protection.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { filesBelow, PlantedSecrets, texts } from '../fixtures/planted-secrets.ts';
import { freePort } from '../fixtures/source-server.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('planted-secrets');
});
afterAll(async () => {
  await faults?.stop();
});

const hashKey = randomBytes(24).toString('hex');
const organization = '00000000-0000-4000-8000-000000000001';
const otherOrganization = '00000000-0000-4000-8000-000000000002';

const policies =
  'email: "mask:email", ssn: hash, phone: "mask:last4", seen: "mask:year", ip: "mask:network", nickname: drop';
const published = ['people', 'people_full', 'heap'];
const parked = ['sealed', 'sealed_full', 'toasted'];
const rules = [
  ...published.map((name) => `{pattern: app.${name}, columns: {id: hash, ${policies}}}`),
  `{pattern: app.toasted, columns: {id: hash, ${policies}}}`,
  // Rows cannot be told apart by a mask, so these tables are parked from their first row.
  ...['sealed', 'sealed_full'].map(
    (name) => `{pattern: app.${name}, columns: {id: "mask:full", ${policies}}}`,
  ),
  'app.*',
];

const tables = `
  create table app.people (
    organization_id uuid, id text, email text, ssn text, phone text, seen timestamptz, ip inet, nickname text, home text,
    note text, primary key (organization_id, id));
  comment on column app.people.home is 'Street and town. @personal';
  alter table app.people alter ssn set storage external;
  create table app.people_full (like app.people including all);
  create table app.heap (like app.people including comments);
  create table app.sealed (like app.people including all);
  create table app.sealed_full (like app.people including all);
  create table app.toasted (like app.people including all);
  create table app.plain (id int primary key, note text);
  alter table app.people_full replica identity full;
  alter table app.sealed_full replica identity full;
  alter table app.heap replica identity full;`;

interface Person {
  id: string;
  email: string;
  ssn: string;
  phone: string;
  seen: string;
  ip: string;
  nickname: string;
  home: string;
  note: string;
}

/** A person of secrets; `kept` gets the one that may leave. */
function plantPerson(table: string, withheld: PlantedSecrets, kept: PlantedSecrets): Person {
  const plant = (column: string) => withheld.plant(`${table}.${column}`);
  const second = `${10 + Math.floor(Math.random() * 50)}.${100_000 + Math.floor(Math.random() * 900_000)}`;
  const seen = `1931-05-06 07:08:${second}+00`;
  const sinceEpoch = Buffer.alloc(8);
  const microseconds = Number(second.slice(0, 2)) * 1_000_000 + Number(second.slice(3));
  const minute = (Date.UTC(1931, 4, 6, 7, 8) - Date.UTC(2000, 0, 1)) * 1000;
  sinceEpoch.writeBigInt64BE(BigInt(minute + microseconds));
  withheld.add({ where: `${table}.seen`, text: `07:08:${second}`, binary: sinceEpoch });
  // Without zeros, so that Postgres prints every digit.
  const host = Buffer.from(randomBytes(8).map((byte) => byte | 0x11));
  const tail = host.toString('hex').match(/.{4}/g)!.join(':');
  withheld.add({ where: `${table}.ip`, text: tail, binary: host });
  return {
    id: plant('id'),
    email: `${plant('email')}@example.com`,
    ssn: plant('ssn'),
    phone: plant('phone'),
    seen,
    ip: `2001:db8:77:1:${tail}`,
    nickname: plant('nickname'),
    home: plant('home'),
    note: kept.plant(`${table}.note`),
  };
}

/** Inserted, updated in every way, deleted; one row stays. */
async function liveThrough(
  { source }: Pipeline,
  table: string,
  withheld: PlantedSecrets,
  kept: PlantedSecrets,
): Promise<Person> {
  const name = `app.${table}`;
  const insert = async (person: Person) => {
    const columns = Object.keys(person);
    const values = columns.map((_, i) => `$${i + 2}`);
    await source.query(
      `insert into ${name} (organization_id, ${columns.join(', ')}) values ($1, ${values.join(', ')})`,
      [organization, ...Object.values(person)],
    );
  };
  const gone = plantPerson(table, withheld, kept);
  await insert(gone);
  const change = async (assignment: string, value: string) =>
    source.query(`update ${name} set ${assignment} where email = $2`, [value, gone.email]);
  await change('note = $1', kept.plant(`${table}.note, updated`));
  await change('ssn = $1', withheld.plant(`${table}.ssn, updated`));
  await change('nickname = $1', withheld.plant(`${table}.nickname, updated`));
  await change('id = $1', withheld.plant(`${table}.id, updated`));
  await change('organization_id = $1', otherOrganization);
  await source.query(`delete from ${name} where email = $1`, [gone.email]);
  const stays = plantPerson(table, withheld, kept);
  await insert(stays);
  return stays;
}

/** Every row of every table of a schema, as text. */
async function dump(client: pg.Client, schema: string): Promise<string> {
  const { rows } = await client.query<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = $1`,
    [schema],
  );
  let text = '';
  for (const { name } of rows) {
    const all = await client.query<{ row: string }>(`select t::text as row from ${name} t`);
    text += `${name}\n${all.rows.map(({ row }) => row).join('\n')}\n`;
  }
  return text;
}

test('a planted secret is found nowhere but where the policy keeps it', async () => {
  const metricsPort = await freePort();
  await faults.run(
    'secrets',
    {
      config: {
        'source.tables': `[${rules.join(', ')}]`,
        'privacy.hash.key': hashKey,
        'kafka.row.max.bytes': '1MiB',
        'observe.metrics.port': String(metricsPort),
        // What a Window needs goes to disk at once.
        'deliver.memory.bytes': '0',
      },
      lake: { cadence: 'continuous' },
    },
    async (pipeline) => {
      const withheld = new PlantedSecrets();
      const kept = new PlantedSecrets();
      await pipeline.source.query(tables);
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      const stays: Record<string, Person> = {};
      for (const name of [...published, 'sealed', 'sealed_full']) {
        stays[name] = await liveThrough(pipeline, name, withheld, kept);
      }
      await parkMidway(pipeline, withheld, kept);
      await pipeline.published();
      const metrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
      expect(metrics).toContain('tidemark_reader_changes_total');

      // One process at a time can have the metrics' port.
      await reader.stop();
      // The lake's Windows stay open: what they hold is on disk meanwhile.
      const delivery = pipeline.deliver('parquet:before-upload=sleep:600000');
      await pipeline.delivering(['replica']);
      const spill = join(pipeline.directory, 'spill');
      await until(
        'the open Window has rows on disk',
        60_000,
        () => kept.foundIn(filesBelow(spill)).length > 0,
      );

      const deliveryMetrics = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
      expect(deliveryMetrics).toContain('tidemark_delivery_rows_total');
      const { replica, stack, control } = await connections(pipeline);
      const everywhere = async () => [
        ...filesBelow(join(stack.directory, 'data', 'kafka')),
        ...filesBelow(join(stack.directory, 'data', 'registry')),
        ...filesBelow(join(stack.directory, 'logs')),
        ...filesBelow(pipeline.directory),
        ...texts({
          control: await dump(control, 'tidemark'),
          replica: (await dump(replica, 'app')) + (await dump(replica, 'tidemark')),
          metrics,
          deliveryMetrics,
          status: JSON.stringify(await pipeline.status()),
          check: (await pipeline.command(['check'])).stdout,
        }),
      ];
      expect(withheld.foundIn(await everywhere())).toEqual([]);
      // The same search finds what may be found, so it would have found the rest.
      const shown = kept.foundIn(await everywhere());
      for (const place of [
        /people\.note: .*kafka.*\.log/,
        /people_full\.note: .*spill/,
        /heap\.note: replica/,
      ]) {
        expect(shown.filter((line) => place.test(line))).not.toEqual([]);
      }
      expect(shown.filter((line) => /sealed\.note: .*parked.*\.log/.test(line))).not.toEqual([]);

      await arrivesProtected(replica, stays);
      const { withheld: listed } = await pipeline.status();
      expect(listed).toEqual(
        expect.arrayContaining([
          { table: 'app.people', column: 'nickname', policy: 'drop', where: 'publication' },
          { table: 'app.people', column: 'home', policy: 'drop', where: 'publication' },
          { table: 'app.people', column: 'id', policy: 'hash', where: 'reader' },
          { table: 'app.people_full', column: 'nickname', policy: 'drop', where: 'reader' },
          { table: 'app.people_full', column: 'ip', policy: 'mask:network', where: 'reader' },
        ]),
      );

      await delivery.kill();
      const yaml = join(pipeline.directory, 'tidemark.yaml');
      writeFileSync(yaml, readFileSync(yaml, 'utf8').replace(/^observe.*\n/m, ''));
      await showNothingInErrors(pipeline, replica, withheld, everywhere);
    },
  );
});

test('hashed and masked columns of every type, keys among them, are equal at the source and at the destination', () =>
  faults.run(
    'protected',
    {
      config: {
        'source.tables': `[${[
          '{pattern: app.organizations, columns: {security_contact_email: "mask:email", contact_phone: "mask:last4", contract_start: "mask:year", annual_spend: hash, plan: hash, settings: hash}}',
          '{pattern: app.findings, columns: {id: hash, severity: hash, exposure: hash, confidence: hash, source_ip: "mask:network", oauth_scopes: hash, event_ids: hash, evidence: hash, detail: hash, fingerprint: hash, sla: hash, due_on: "mask:year", first_seen_at: hash, last_seen_at: "mask:year"}}',
          '{pattern: app.events, columns: {id: hash, actor_login: hash, actor_email: "mask:email", actor_ip: hash, is_bot: hash, payload: hash, payload_bytes: hash, latency_ms: hash}}',
          '{pattern: app.rule_runs, columns: {id: hash, error: "mask:full", duration: hash, compliance_score: hash}}',
          'app.*',
        ].join(', ')}]`,
        'privacy.hash.key': hashKey,
      },
    },
    async (pipeline) => {
      // Findings change their tenant and leave evidence in TOAST: a whole old row supplies it.
      await pipeline.source.query('alter table app.findings replica identity full');
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start({ seed: 'protected', ...pipeline.usualLoad });
      await pipeline.workload.committed(150);
      await reader.kill();
      const again = pipeline.replicate();
      await pipeline.workload.committed(150);
      await pipeline.workload.stop();
      // Not `conclude`: its count of Changes takes a whole old row for an update that moved nothing.
      for (const name of pipeline.destinations) {
        const { tables: compared } = await pipeline.verify(name);
        const rows = (table: string) => compared.find((each) => each.table === table)?.sourceRows;
        for (const table of ['app.findings', 'app.events', 'app.organizations', 'app.rule_runs'])
          expect(rows(table)).toBeGreaterThan(3);
      }
      expect((await pipeline.status()).progress?.parked).toEqual([]);
      for (const each of [again, delivery]) await each.stop();
    },
  ));

/** A table that is parked after it was published: a hash under a new tenant cannot be known of untouched TOAST. */
async function parkMidway(
  { source }: Pipeline,
  withheld: PlantedSecrets,
  kept: PlantedSecrets,
): Promise<void> {
  const person = plantPerson('toasted', withheld, kept);
  const ssn = person.ssn + randomBytes(4000).toString('hex');
  await source.query(
    `insert into app.toasted (organization_id, id, email, ssn, nickname, home) values ($1, $2, $3, $4, $5, $6)`,
    [organization, person.id, person.email, ssn, person.nickname, person.home],
  );
  await source.query('update app.toasted set organization_id = $1', [otherOrganization]);
  await liveThrough({ source } as Pipeline, 'toasted', withheld, kept);
}

async function connections(pipeline: Pipeline) {
  const url = new URL(pipeline.stack.environment.TIDEMARK_SOURCE_URL!);
  url.pathname = `/${pipeline.databaseName('replica')}`;
  const replica = new pg.Client({ connectionString: url.href });
  replica.on('error', () => {});
  await replica.connect();
  return { replica, stack: pipeline.stack, control: pipeline.control };
}

/** What is left of a person is what the policy says, not merely nothing. */
async function arrivesProtected(replica: pg.Client, stays: Record<string, Person>): Promise<void> {
  const protector = new ColumnProtector(hashKey);
  for (const name of published) {
    const person = stays[name]!;
    const { rows } = await replica.query(`select * from app.${name}`);
    expect(rows).toEqual([
      {
        organization_id: organization,
        id: protector.protect('hash', person.id, organization),
        email: 's***@example.com',
        ssn: protector.protect('hash', person.ssn, organization),
        phone: `***${person.phone.slice(-4)}`,
        seen: '1931',
        ip: '2001:db8:77::/48',
        note: person.note,
      },
    ]);
  }
}

/** A destination that refuses a row, and a row that is too big, for which kept values are secrets as well. */
async function showNothingInErrors(
  pipeline: Pipeline,
  replica: pg.Client,
  withheld: PlantedSecrets,
  everywhere: () => Promise<{ place: string; bytes: Buffer }[]>,
): Promise<void> {
  const refused = new PlantedSecrets();
  const tooBig = new PlantedSecrets();
  const reader = pipeline.replicate();
  await pipeline.streaming(reader);
  await pipeline.source.query(`insert into app.plain values (1, 'first')`);
  const delivery = pipeline.deliver();
  const parkedTables = parked.map((name) => `app.${name}`);
  for (const name of pipeline.destinations) await pipeline.verify(name, { parked: parkedTables });
  await reader.stop();
  await delivery.kill();

  await replica.query(`alter table app.plain add constraint short check (length(note) < 10)`);
  const again = pipeline.replicate();
  await pipeline.streaming(again);
  await pipeline.source.query('insert into app.plain values (2, $1)', [refused.plant('refused row')]);
  await pipeline.published();
  await pipeline.source.query('insert into app.plain values (3, $1)', [
    tooBig.plant('row too big') + 'x'.repeat(2 << 20),
  ]);
  expect(await again.exitsWithin(60_000)).toBe(3);
  expect(again.output()).toContain('TM308');
  const refusing = pipeline.deliver('', 'replica');
  await refusing.logged('that the destination refuses', ({ message }) => /are in Quarantine/.test(message));
  await until('status says so', 30_000, async () =>
    (await pipeline.status()).destinations.some(({ quarantined }) => quarantined === 1),
  );

  const list = await pipeline.command(['quarantine', 'list']);
  expect(list.stdout).toContain('app.plain');
  const places = [...(await everywhere()), ...texts({ 'quarantine list': list.stdout + list.stderr })];
  expect(withheld.foundIn(places)).toEqual([]);
  expect(tooBig.foundIn(places)).toEqual([]);
  // A kept value is in Kafka, of which the quarantine topic is a part, and in the open Window, and there alone.
  const elsewhere = refused.foundIn(places).filter((line) => !/\/data\/kafka\/|\/spill\//.test(line));
  expect(elsewhere).toEqual([]);
  expect(refused.foundIn(places)).not.toEqual([]);
}
