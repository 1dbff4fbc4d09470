/** `tidemark retain evidence | check-evidence`: a signed report of what was let go of, and its check without Tidemark's databases. */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadInstance } from '../platform/config.ts';
import { parseInteger } from '../platform/configuration/scalars.ts';
import { TidemarkError } from '../platform/errors.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { DestinationConfig } from '../platform/resolved-config.ts';
import { checkEvidence } from '../retain/evidence/check.ts';
import { signingKey, trustedKey } from '../retain/evidence/signing.ts';
import { writeEvidence } from '../retain/evidence/write.ts';
import { connectRetention } from '../retain/session.ts';
import { requireSetUp } from '../retain/setup.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { verdictText, writtenText } from './evidence-text.ts';
import { isDay } from './retain-arguments.ts';

export interface EvidenceArguments {
  /** Of evidence: whose rows, when they went, and the folder for the files. */
  organization?: string | undefined;
  from?: string | undefined;
  to?: string | undefined;
  out?: string | undefined;
  /** Of check-evidence. */
  'public-key'?: string | undefined;
  destination?: string | undefined;
  sample?: string | undefined;
  all?: boolean | undefined;
}

const defaultSample = 200;

export async function evidenceCommand(context: CommandContext, args: EvidenceArguments): Promise<number> {
  const config = await configOf(context);
  if (!config.retain)
    throw new TidemarkError('TM101', 'retain.enabled is not set', {
      remedy: 'Set retain.enabled: true in tidemark.yaml; docs/retention.md says what else there is.',
    });
  const key = signingKey(config.retain.evidenceKey);
  const range = {
    organization: args.organization ?? null,
    from: moment('--from', args.from),
    to: moment('--to', args.to),
  };
  if (range.from >= range.to) throw new TidemarkError('TM101', '--from must lie before --to');
  const directory = args.out ?? '.';
  await mkdir(directory, { recursive: true });
  const name = ['evidence', range.organization ?? 'all', day(range.from), day(range.to)].join('-');
  const registry = new RegistryClient(config.registry, context.log);
  const client = await connectRetention(config.retain.endpoint, config.source.id);
  try {
    await requireSetUp(client);
    const source = { sourceId: config.source.id, topicPrefix: config.kafka.topicPrefix, registry };
    const path = join(directory, name.replace(/[^A-Za-z0-9._-]/g, '_'));
    const written = await writeEvidence(client, range, source, { key, path });
    context.stdout(context.json ? `${JSON.stringify({ ok: true, ...written })}\n` : writtenText(written));
    return exitCode.ok;
  } finally {
    registry.close();
    await client.end().catch(() => {});
  }
}

/** @returns 0: all is as it was let go of; 1: it is not */
export async function checkEvidenceCommand(
  context: CommandContext,
  args: EvidenceArguments,
  [file, ...more]: string[],
): Promise<number> {
  if (file === undefined || more.length > 0 || args['public-key'] === undefined)
    throw new TidemarkError('TM101', 'retain check-evidence needs a report and --public-key', {
      remedy:
        'tidemark retain check-evidence evidence-….ndjson --public-key evidence.pub --destination connectors/instances/lake.json',
    });
  const sample = args.all ? null : args.sample === undefined ? defaultSample : parseInteger(args.sample);
  if (!args.all && (sample === null || sample < 1 || sample > 1_000_000))
    throw new TidemarkError('TM101', '--sample must be a whole number from 1 to 1000000');
  const trusted = trustedKey(await keyText(args['public-key']));
  const destination = args.destination === undefined ? null : await destinationOf(context, args.destination);
  const directory = await mkdtemp(join(tmpdir(), 'tidemark-evidence-'));
  try {
    const { sinkKinds, log } = context;
    const verdict = await checkEvidence(file, { trusted, destination, sinkKinds, sample, directory, log });
    context.stdout(context.json ? `${JSON.stringify(verdict, null, 2)}\n` : verdictText(verdict));
    return verdict.ok ? exitCode.ok : exitCode.no;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'EISDIR' && code !== 'EACCES') throw error;
    throw new TidemarkError('TM101', `${file} cannot be read (${code})`, {
      remedy: 'Give the file with the lines of JSON that `tidemark retain evidence` wrote.',
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A file, or the key itself. */
async function keyText(argument: string): Promise<string> {
  try {
    return await readFile(argument, 'utf8');
  } catch {
    return argument;
  }
}

/** An instance file, or the name of a destination of tidemark.yaml. */
async function destinationOf(context: CommandContext, argument: string): Promise<DestinationConfig> {
  if (argument.endsWith('.json')) return loadInstance(argument, context.sinkKinds);
  const { destinations } = await configOf(context);
  const found = destinations.find(({ name }) => name === argument);
  if (found) return found;
  throw new TidemarkError('TM101', `--destination: ${argument} is neither a file nor a destination`);
}

function moment(option: string, text: string | undefined): Date {
  const isTime = text !== undefined && /^\d{4}-\d\d-\d\d(T[\d:.]+Z)?$/.test(text) && isDay(text);
  const time = isTime ? new Date(text) : null;
  if (time && !Number.isNaN(time.getTime())) return time;
  throw new TidemarkError(
    'TM101',
    `retain evidence needs ${option}: a day (2026-01-31) or 2026-01-31T12:00:00Z, UTC`,
  );
}

function day(time: Date): string {
  const text = time.toISOString();
  return text.endsWith('T00:00:00.000Z') ? text.slice(0, 10) : text.slice(0, 19).replaceAll(':', '');
}
