/** `tidemark check`: everything that could keep the pipeline from working, each with the line that mends it. */
import type { CheckFinding } from '../connector/sink.ts';
import { matchTopics } from '../deliver/unit-topics.ts';
import { controlError, openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';
import { tableName } from '../platform/table-name.ts';
import { topicNames } from '../publish/record-format.ts';
import { compareTopics } from '../publish/topics.ts';
import { checkValueForm } from '../publish/value-form.ts';
import { tenantColumnOf, trackedTables } from '../replicate/catalogue.ts';
import { connectSource } from '../replicate/source.ts';
import { checkSource } from '../replicate/source-check.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { sinkContext } from './sink-context.ts';

interface Section {
  part: string;
  findings: CheckFinding[];
}

export async function checkCommand(context: CommandContext): Promise<number> {
  const config = await configOf(context);
  const sections: Section[] = [
    {
      part: 'source',
      findings: await findingsOf(async () => [
        ...(await checkSource(config.source)),
        ...(await checkValueForm(config.source)),
      ]),
    },
    { part: 'kafka', findings: await findingsOf(() => checkKafka(config, context)) },
    { part: 'registry', findings: await findingsOf(() => checkRegistry(config, context)) },
    { part: 'control', findings: await findingsOf(() => checkControl(config, context)) },
  ];
  for (const destination of config.destinations) {
    const kind = context.sinkKinds.get(destination.kind)!;
    const findings = await findingsOf(() =>
      kind.check(sinkContext(config, destination, context.log), destination.options),
    );
    if (destination.tenant !== null)
      findings.push(...(await findingsOf(() => checkTenant(config, destination))));
    sections.push({ part: `destination ${destination.name}`, findings });
  }
  const failed = sections.some(({ findings }) => findings.some(({ level }) => level === 'error'));
  if (context.json) context.stdout(`${JSON.stringify({ ok: !failed, sections }, null, 2)}\n`);
  else context.stdout(render(sections, failed));
  return failed ? exitCode.no : exitCode.ok;
}

/** A tenant's destination takes only tables that say whose a row is. */
async function checkTenant(config: ResolvedConfig, { tables }: DestinationConfig): Promise<CheckFinding[]> {
  const client = await connectSource(config.source, 'tidemark/check');
  try {
    const { topicPrefix } = config.kafka;
    const names = topicNames(topicPrefix);
    const chosen = (await trackedTables(client, config.source)).filter(
      (table) => matchTopics(topicPrefix, tables, [names.table(table)]).length > 0,
    );
    return chosen
      .filter((table) => {
        const tenant = tenantColumnOf(config.source, table);
        return !table.columns.some(({ name, identity }) => name === tenant && identity);
      })
      .map((table) => ({
        level: 'error',
        what: `${tableName(table)} has no tenant column in its replica identity, and the destination is a tenant's`,
        remedy: `Leave it out of \`tables\`, or: alter table ${tableName(table)} replica identity full;`,
      }));
  } finally {
    await client.end().catch(() => {});
  }
}

/** An exception is a finding too: check always answers for every part. */
async function findingsOf(check: () => Promise<CheckFinding[]>): Promise<CheckFinding[]> {
  try {
    return await check();
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return [{ level: 'error', what: `${error.code}: ${error.message}`, remedy: error.remedy }];
  }
}

async function checkKafka(config: ResolvedConfig, context: CommandContext): Promise<CheckFinding[]> {
  const admin = createKafka(config.kafka, context.log, { retry: { retries: 1 } }).admin();
  try {
    await admin.connect();
    const { brokers } = await admin.describeCluster();
    const findings: CheckFinding[] = [
      { level: 'ok', what: `Kafka answers: ${brokers.length} broker(s)`, remedy: null },
    ];
    if (brokers.length < config.kafka.replicationFactor) {
      findings.push({
        level: 'error',
        what: `kafka.topic.replication.factor is ${config.kafka.replicationFactor}, the cluster has ${brokers.length} broker(s)`,
        remedy: `Set kafka.topic.replication.factor: ${brokers.length} and kafka.topic.min.insync.replicas: ${Math.max(1, brokers.length - 1)}.`,
      });
    }
    const client = await connectSource(config.source, 'tidemark/check').catch(() => null);
    if (!client) return findings;
    try {
      return [
        ...findings,
        ...(await compareTopics(admin, config.kafka, await trackedTables(client, config.source))),
      ];
    } finally {
      await client.end();
    }
  } catch (error) {
    throw error instanceof TidemarkError ? error : kafkaError(error, 'check Kafka');
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

async function checkRegistry(config: ResolvedConfig, context: CommandContext): Promise<CheckFinding[]> {
  const registry = new RegistryClient(config.registry, context.log);
  try {
    await registry.ping();
    return [{ level: 'ok', what: 'the Schema Registry answers', remedy: null }];
  } finally {
    registry.close();
  }
}

async function checkControl(config: ResolvedConfig, context: CommandContext): Promise<CheckFinding[]> {
  const pool = openControl(config.control, context.log, 1);
  try {
    const { rows } = await pool.query(
      `select has_database_privilege(current_database(), 'CREATE') as creates, to_regnamespace('tidemark') is not null as present,
              coalesce(has_schema_privilege(to_regnamespace('tidemark'), 'CREATE'), false) as owns,
              current_database() as database, current_user as role`,
    );
    const { creates, present, owns, database, role } = rows[0];
    if (present && owns)
      return [{ level: 'ok', what: 'the control database answers, schema tidemark is there', remedy: null }];
    if (!present && creates)
      return [
        { level: 'ok', what: 'the control database answers; run creates schema tidemark', remedy: null },
      ];
    return [
      {
        level: 'error',
        what: present
          ? `role ${role} may not use schema tidemark`
          : `role ${role} may not create schema tidemark in ${database}`,
        remedy: present
          ? `alter schema tidemark owner to "${role}";`
          : `create schema tidemark authorization "${role}";`,
      },
    ];
  } catch (error) {
    throw controlError(error);
  } finally {
    await pool.end().catch(() => {});
  }
}

const signs = { ok: '✓', warn: '!', error: '✗' } as const;

function render(sections: Section[], failed: boolean): string {
  const lines: string[] = [];
  for (const { part, findings } of sections) {
    lines.push(part);
    for (const { level, what, remedy } of findings) {
      lines.push(`  ${signs[level]} ${what}`);
      if (remedy) lines.push(`      → ${remedy}`);
    }
  }
  lines.push('', failed ? 'Not ready: mend the lines marked ✗, then check again.' : 'Ready: `tidemark run`');
  return `${lines.join('\n')}\n`;
}
