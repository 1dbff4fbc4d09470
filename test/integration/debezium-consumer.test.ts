/**
 * Our topics are Debezium's to whoever reads them: Debezium's own JDBC sink, in Kafka Connect, copies the sample
 * application's tables from them into a second database, equal to the source.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { KafkaConnect } from '../fixtures/kafka-connect.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('debezium-consumer');
});
afterAll(async () => {
  await faults?.stop();
});

/** Dropped by default, and so not in the topics. */
const personal = new Set([
  'events.actor_email',
  'events.actor_ip',
  'events.actor_login',
  'findings.assignee_email',
  'findings.source_ip',
  'integration_connections.display_name',
  'integration_connections.installed_by_email',
  'organizations.contact_phone',
  'organizations.security_contact_email',
  'workflow_deliveries.recipient',
]);

interface Column {
  name: string;
  type: string;
}

test("Debezium's JDBC sink copies the sample tables from our topics, equal to the source", () =>
  // A consumer without a notion of Position has order within a partition only, and a truncate is in every one.
  faults.run(
    'debezium',
    { destinations: [], config: { 'kafka.topic.partitions': '1' } },
    async (pipeline) => {
      await withWholeOldRows(pipeline);
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await pipeline.begun();
      const copy = await copyDatabase(pipeline);
      const connect = await KafkaConnect.start({
        directory: join(pipeline.directory, 'connect'),
        brokers: pipeline.brokers,
        registryUrl: pipeline.stack.environment.TIDEMARK_REGISTRY_URL!,
        connectors: { keyed: sinkConfig(pipeline, copy.url) },
      });
      try {
        await connect.running();
        await pipeline.workload.once({ seed: 'debezium', transactions: 400 });
        await pipeline.published();
        const tables = await keyedTables(pipeline);
        expect(tables.size).toBeGreaterThan(5);
        const deadline = performance.now() + 90_000;
        for (;;) {
          await connect.check();
          const differences = await compare(pipeline, copy.client, tables);
          if (differences.length === 0) break;
          if (performance.now() > deadline)
            throw new Error(`the copy differs: ${differences.join('; ')}\n${await connect.tail()}`);
          await sleep(500);
        }
      } finally {
        await connect.stop();
        await copy.client.end();
      }
      await reader.stop();
    },
  ));

/**
 * The JDBC sink writes Debezium's placeholder for an unchanged TOASTed value as if it were the value, whoever sent it.
 * Under REPLICA IDENTITY FULL the old row has the value, and the record the whole row.
 */
async function withWholeOldRows(pipeline: Pipeline): Promise<void> {
  // Also for the partitions that the application makes later: a partition does not inherit its replica identity.
  await pipeline.source.query(`
    create function public.whole_old_rows() returns event_trigger language plpgsql as $$ declare t regclass; begin
      for t in select oid from pg_class where relnamespace = 'app'::regnamespace and relkind in ('r', 'p')
          and relreplident <> 'f' loop
        execute format('alter table %s replica identity full', t);
      end loop; end $$;
    create event trigger whole_old_rows on ddl_command_end when tag in ('CREATE TABLE')
      execute function public.whole_old_rows();
    create table app.any_table (); drop table app.any_table`);
}

async function copyDatabase(pipeline: Pipeline): Promise<{ url: URL; client: pg.Client }> {
  const url = new URL(pipeline.stack.environment.TIDEMARK_SOURCE_URL!);
  const name = pipeline.databaseName('copy');
  const server = new pg.Client(url.href);
  await server.connect();
  await server.query(`create database ${pg.escapeIdentifier(name)}`);
  await server.end();
  url.pathname = `/${name}`;
  const client = new pg.Client(url.href);
  client.on('error', () => {});
  await client.connect();
  return { url, client };
}

function sinkConfig(pipeline: Pipeline, url: URL): Record<string, string> {
  return {
    'connector.class': 'io.debezium.connector.jdbc.JdbcSinkConnector',
    'tasks.max': '1',
    'topics.regex': `${pipeline.prefix}\\.app\\.(?!audit_log).*`,
    'connection.url': `jdbc:postgresql://${url.hostname}:${url.port}${url.pathname}`,
    'connection.username': url.username,
    'connection.password': decodeURIComponent(url.password),
    'insert.mode': 'upsert',
    'delete.enabled': 'true',
    'truncate.enabled': 'true',
    'primary.key.mode': 'record_key',
    'schema.evolution': 'basic',
    'collection.name.format': '$' + '{source.table}',
    'use.time.zone': 'UTC',
    // Our batches are Kafka transactions.
    'consumer.override.isolation.level': 'read_committed',
    'consumer.override.auto.offset.reset': 'earliest',
    'consumer.override.metadata.max.age.ms': '2000',
  };
}

/** The sample's tables that have a key, with all their columns. */
async function keyedTables(pipeline: Pipeline): Promise<Map<string, Column[]>> {
  const { rows } = await pipeline.source.query<{ table: string; columns: Column[] }>(
    `select c.relname as table, (select json_agg(json_build_object('name', attname, 'type', format_type(atttypid, atttypmod)) order by attnum)
         from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) as columns
       from pg_class c join pg_index i on i.indrelid = c.oid and i.indisprimary
      where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1`,
  );
  return new Map(rows.map(({ table, columns }) => [table, columns]));
}

/** What of a value survives in Debezium's form and its JDBC sink, as text. */
function comparable(name: string, type: string): string {
  // Enums are text in the copy.
  if (type.startsWith('app.')) return `${name}::text`;
  // MicroDuration: a month is 365.25 / 12 days.
  if (type === 'interval') {
    const months = `(extract(year from ${name}) * 12 + extract(month from ${name}))`;
    return `round((${months} * 365.25 / 12 + extract(day from ${name})) * 86400 + extract(epoch from ${name}
      - make_interval(days => extract(day from ${name})::int, months => ${months}::int)), 6)::text`;
  }
  // A number without a scale of its own is a double in the copy.
  if (type === 'numeric') return `${name}::float8::text`;
  return `${name}::${type}::text`;
}

/** Column by column, by count and a sum of hashes of the text under the source's own type. */
async function compare(
  pipeline: Pipeline,
  copy: pg.Client,
  tables: ReadonlyMap<string, Column[]>,
): Promise<string[]> {
  const differences: string[] = [];
  const quote = pg.escapeIdentifier;
  for (const [table, columns] of tables) {
    const { rows: copied } = await copy.query<{ name: string }>(
      `select attname as name from pg_attribute where attrelid = to_regclass($1) and attnum > 0`,
      [`public.${quote(table)}`],
    );
    for (const { name, type } of columns) {
      if (personal.has(`${table}.${name}`)) continue;
      if (!copied.some((column) => column.name === name)) {
        differences.push(`${table}.${name} is missing`);
        continue;
      }
      const sums = async (client: pg.Client, from: string, text: string) => {
        const { rows } = await client.query<{ sums: string }>(
          `select count(*) || ' rows, ' || coalesce(sum(('x' || left(md5(coalesce(${text}, '∅')), 15))::bit(60)::bigint), 0) as sums from ${from}`,
        );
        return rows[0]!.sums;
      };
      const ours = await sums(pipeline.source, `app.${quote(table)}`, comparable(quote(name), type));
      const theirs = await sums(copy, `public.${quote(table)}`, comparable(quote(name), type));
      if (ours !== theirs) differences.push(`${table}.${name} (${type}): source ${ours}, copy ${theirs}`);
    }
  }
  return differences;
}
