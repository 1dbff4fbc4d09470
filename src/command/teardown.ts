/** `tidemark teardown`: removes what pins the source, and on request what is left of it in Kafka and the ledger. */
import pg from 'pg';
import { controlError, openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { ownedBy } from '../publish/topics.ts';
import { quoted } from '../replicate/catalogue.ts';
import { insertOnlyName } from '../replicate/publication.ts';
import { connectSource, readSlot, sourceError } from '../replicate/source.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';

export interface TeardownArguments {
  yes?: boolean | undefined;
  /** The slot only; the next run starts a new epoch. */
  slot?: boolean | undefined;
  /** Also topics, subjects and the ledger. */
  topics?: boolean | undefined;
  /** Why it may be done although evicted rows are at destinations alone. */
  reason?: string | undefined;
}

export async function teardownCommand(context: CommandContext, args: TeardownArguments): Promise<number> {
  const config = await configOf(context);
  if (!args.yes) {
    throw new TidemarkError(
      'TM101',
      'teardown removes the slot: changes from then on are not replicated any more',
      {
        remedy: `tidemark teardown ${args.slot ? '--slot ' : ''}${args.topics ? '--topics ' : ''}--yes`,
      },
    );
  }
  if (args.slot || args.topics) await requireKept(config, args.reason);
  const done: string[] = [];
  await dropSlot(config, done);
  if (args.slot) await beginNextEpoch(config, context, done);
  else await dropPublications(config, done);
  if (args.topics) {
    const isOurs = await deleteTopics(config, context, done);
    await deleteSubjects(config, context, isOurs, done);
    await deleteLedger(config, context, done);
  }
  if (done.length === 0) done.push('nothing was there');
  context.stdout(
    context.json
      ? `${JSON.stringify({ ok: true, done })}\n`
      : `${done.map((line) => `✓ ${line}`).join('\n')}\n`,
  );
  return exitCode.ok;
}

/** Both lead to destinations that are made anew. @throws TidemarkError TM509 */
async function requireKept(config: ResolvedConfig, reason: string | undefined): Promise<void> {
  if (reason) return;
  const client = await connectSource(config.source, 'tidemark/teardown');
  try {
    const archive = quoted(archiveTable);
    const { rows: found } = await client.query<{ there: boolean }>(
      `select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and c.relname = $2) as there`,
      [archiveTable.schema, archiveTable.name],
    );
    if (!found[0]!.there) return;
    const { rows } = await client.query<{ rows: number }>(
      `select count(*)::float8 as rows from ${archive} a where recalled_at is null and to_jsonb(a) ->> 'erased_at' is null`,
    );
    if (rows[0]!.rows === 0) return;
    throw new TidemarkError('TM509', `${rows[0]!.rows} rows were evicted and are at destinations alone`);
  } catch (error) {
    throw sourceError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

async function dropSlot(config: ResolvedConfig, done: string[]): Promise<void> {
  const client = await connectSource(config.source, 'tidemark/teardown');
  try {
    const slot = await readSlot(client, config.source.slot);
    if (!slot) return;
    if (slot.active) {
      throw new TidemarkError('TM207', `slot ${slot.name} is in use (backend ${slot.activePid})`, {
        remedy: 'Stop `tidemark run` first, then tear down.',
        retry: 'operator',
      });
    }
    await client.query('select pg_drop_replication_slot($1)', [slot.name]);
    done.push(`slot ${slot.name} dropped`);
  } finally {
    await client.end().catch(() => {});
  }
}

async function dropPublications(config: ResolvedConfig, done: string[]): Promise<void> {
  const client = await connectSource(config.source, 'tidemark/teardown');
  try {
    for (const name of [config.source.publication, insertOnlyName(config.source)]) {
      const { rowCount } = await client.query('select 1 from pg_publication where pubname = $1', [name]);
      if (!rowCount) continue;
      await client.query(`drop publication ${pg.escapeIdentifier(name)}`);
      done.push(`publication ${name} dropped`);
    }
  } finally {
    await client.end().catch(() => {});
  }
}

/** The reader finds the epoch announced, and starts it with a new slot. */
async function beginNextEpoch(
  config: ResolvedConfig,
  context: CommandContext,
  done: string[],
): Promise<void> {
  const pool = openControl(config.control, context.log, 1);
  try {
    const { rows } = await pool.query<{ epoch: number }>(
      `update tidemark.sources set epoch = epoch + 1, state = 'creating', published = null, publication_gap = null, changed_at = now()
        where source_id = $1 and state = 'streaming' returning epoch`,
      [config.source.id],
    );
    if (rows[0]) done.push(`epoch ${rows[0].epoch} starts with the next run; destinations must be rebuilt`);
  } catch (error) {
    throw controlError(error);
  } finally {
    await pool.end().catch(() => {});
  }
}

type IsOurs = (name: string) => boolean;

/** @returns what tells the subjects that go with them */
async function deleteTopics(
  config: ResolvedConfig,
  context: CommandContext,
  done: string[],
): Promise<IsOurs> {
  const admin = createKafka(config.kafka, context.log).admin();
  try {
    await admin.connect();
    const all = await admin.listTopics();
    const isOurs = ownedBy(config.kafka.topicPrefix, all);
    const topics = all.filter(isOurs);
    if (topics.length > 0) {
      await admin.deleteTopics({ topics });
      done.push(`${topics.length} topics deleted`);
    }
    const { groups } = await admin.listGroups();
    const ours = groups
      .map(({ groupId }) => groupId)
      .filter((group) => group.startsWith(`tidemark.${config.source.id}.`));
    if (ours.length > 0) await admin.deleteGroups(ours).catch(() => {});
    return isOurs;
  } catch (error) {
    throw kafkaError(error, 'delete topics');
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

async function deleteSubjects(
  config: ResolvedConfig,
  context: CommandContext,
  isOurs: IsOurs,
  done: string[],
): Promise<void> {
  const registry = new RegistryClient(config.registry, context.log);
  try {
    const removed = await registry.deleteSubjects(isOurs);
    if (removed > 0) done.push(`${removed} subjects deleted`);
  } finally {
    registry.close();
  }
}

async function deleteLedger(config: ResolvedConfig, context: CommandContext, done: string[]): Promise<void> {
  const pool = openControl(config.control, context.log, 1);
  try {
    const { rows } = await pool.query(`select to_regclass('tidemark.sources') is not null as present`);
    if (!rows[0].present) return;
    for (const table of [
      'retention',
      'quarantine',
      'snapshots',
      'holds',
      'deliveries',
      'units',
      'destinations',
      'sources',
    ]) {
      await pool.query(`delete from tidemark.${table} where source_id = $1`, [config.source.id]);
    }
    done.push(`ledger of ${config.source.id} deleted`);
  } catch (error) {
    throw controlError(error);
  } finally {
    await pool.end().catch(() => {});
  }
}
