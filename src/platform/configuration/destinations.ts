/** Destinations: the Kafka-Connect-shaped JSON files of deliver.instances.directory. */

import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ConnectorOptions } from '../option-field.ts';
import type { DestinationConfig } from '../resolved-config.ts';
import { parseTableName, parseTablePattern, tableNameForm } from '../table-name.ts';
import { type MapNode, readDocument } from './document.ts';
import { type Field, type FieldTable, optionAsField } from './field.ts';
import { destinationFields } from './fields.ts';
import { describeFileFailure } from './file-failure.ts';
import { nearestSpelling, type Problems, type Report } from './problems.ts';
import { rememberSecrets } from './redact.ts';
import { resolveReferences } from './references.ts';
import { readValues } from './values.ts';

/** What is needed of a ConnectorOptions to read its instance files. */
export type SinkOptions = ConnectorOptions;

export interface InstanceContext {
  sinkKinds: ReadonlyMap<string, SinkOptions>;
  env: NodeJS.ProcessEnv;
  problems: Problems;
}

interface CommonValues {
  tables: string[];
  tenant: string | null;
  cadence: number;
  'window.max.records': number;
  'quarantine.max.rows': number;
  'pause.after': number | null;
}

/** Names become consumer groups, folders and schema objects. */
const destinationName = /^[a-z0-9][a-z0-9-]{0,62}$/;

/**
 * Reads every `*.json` of the folder but `*.example.json`, in the order of their names. A missing folder holds no
 * destinations unless `mustExist`. Collects problems; the result is complete only if there are none.
 */
export async function loadDestinations(
  directory: string,
  mustExist: boolean,
  context: InstanceContext,
): Promise<DestinationConfig[]> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && !mustExist) return [];
    context.problems.in(directory)(null, `the folder cannot be read: ${describeFileFailure(error)}`);
    return [];
  }
  const files = names.filter((name) => name.endsWith('.json') && !name.endsWith('.example.json')).sort();
  const destinations: DestinationConfig[] = [];
  for (const name of files) {
    const destination = await loadDestination(join(directory, name), directory, context);
    if (!destination) continue;
    const twin = destinations.find((other) => other.name === destination.name);
    if (twin) context.problems.in(destination.file)('name', `is the name of ${twin.file} already`);
    destinations.push(destination);
  }
  return destinations;
}

/** One instance file. */
export async function loadDestination(
  file: string,
  directory: string,
  { sinkKinds, env, problems }: InstanceContext,
): Promise<DestinationConfig | null> {
  const report = problems.in(file);
  const root = await readDocument(file, 'json', report);
  if (!root) return null;
  await resolveReferences(root, { file, directory, env, problems });
  const name = readName(root, report);
  const config = configOf(root, report);
  if (!config) return null;

  const sink = readKind(config, sinkKinds, report);
  if (!sink) return null;
  const fields: FieldTable = { ...optionFields(sink), ...destinationFields };
  const { values, failed, dynamic } = readValues(config, fields, {
    directory,
    report,
    dynamicField: (key) => (tableOfCadence(key) === null ? null : destinationFields.cadence),
  });
  const common = values as unknown as CommonValues;
  const tableCadences = [...dynamic].map(
    ([key, milliseconds]) => [tableOfCadence(key)!, milliseconds as number] as const,
  );
  if (!failed.has('tables')) {
    for (const [table] of tableCadences) {
      if (!common.tables.some((pattern) => matches(pattern, table))) {
        report(`cadence.${table}`, 'is for a table that `tables` does not cover');
        failed.add(`cadence.${table}`);
      }
    }
  }
  if (name === null || failed.size > 0) return null;
  const options = Object.fromEntries(
    Object.keys(sink.options).map((key) => [key, values[key] as DestinationConfig['options'][string]]),
  );
  rememberSecrets(
    options,
    Object.keys(sink.options).filter((key) => sink.options[key]!.type === 'secret'),
  );
  return {
    name,
    file,
    kind: sink.name,
    tables: common.tables,
    tenant: common.tenant,
    cadenceMs: common.cadence,
    tableCadenceMs: Object.fromEntries(tableCadences),
    windowMaxRecords: common['window.max.records'],
    quarantineMaxRows: common['quarantine.max.rows'],
    pauseAfterMs: pauseAfter(common['pause.after'], sink),
    options,
  };
}

/** 0 says never, whatever the kind of sink does by itself. */
function pauseAfter(chosen: number | null, { pauseAfterMs }: SinkOptions): number | null {
  return (chosen ?? pauseAfterMs) || null;
}

/** `schema.table` of `cadence.<schema>.<table>`, or null. */
function tableOfCadence(key: string): string | null {
  const table = key.startsWith('cadence.') ? key.slice('cadence.'.length) : '';
  return tableNameForm.test(table) ? table : null;
}

function matches(pattern: string, table: string): boolean {
  const [wide, one] = [parseTablePattern(pattern), parseTableName(table)];
  return wide?.schema === one?.schema && (wide?.name === null || wide?.name === one?.name);
}

function readName(root: MapNode, report: Report): string | null {
  const entry = root.entries.find(({ key }) => key === 'name');
  const node = entry?.node;
  if (node?.kind === 'scalar' && node.broken) return null;
  if (node?.kind === 'scalar' && node.text !== null && destinationName.test(node.text)) return node.text;
  const text = 'must be 1 to 63 of a-z, 0-9 and -, and not begin with -';
  report('name', entry ? text : `is missing: it ${text}`, entry?.line ?? null);
  return null;
}

/** The flat keys, with or without Connect's `config` around them; null after reporting that there are none. */
function configOf(root: MapNode, report: Report): MapNode | null {
  const wrapper = root.entries.find(({ key }) => key === 'config');
  const others = root.entries.filter(({ key }) => key !== 'config' && key !== 'name');
  if (!wrapper) return requireFlat({ ...root, entries: others }, report);
  if (wrapper.node.kind !== 'map') {
    report('config', 'must be an object', wrapper.line);
    return null;
  }
  for (const { key, line } of others) {
    report(key, 'stands beside "config"; allowed there: name. Move it into "config"', line);
  }
  // Connect repeats the name within config; that is fine as long as it is the same.
  const inner = wrapper.node.entries.find(({ key }) => key === 'name');
  const outer = root.entries.find(({ key }) => key === 'name');
  if (inner && outer && !sameText(inner.node, outer.node)) {
    report('config.name', 'differs from name', inner.line);
  }
  return requireFlat(
    { ...wrapper.node, entries: wrapper.node.entries.filter((entry) => entry !== inner) },
    report,
  );
}

function sameText(a: MapNode['entries'][number]['node'], b: MapNode['entries'][number]['node']): boolean {
  return a.kind === 'scalar' && b.kind === 'scalar' && a.text === b.text;
}

/** Connect's configuration has dotted keys and no objects; one that was nested would not deploy there. */
function requireFlat(config: MapNode, report: Report): MapNode | null {
  const nested = config.entries.filter(({ node }) => node.kind === 'map');
  for (const { key, line } of nested) report(key, 'must not be an object; write dotted keys', line);
  return nested.length > 0 ? null : config;
}

function readKind(
  config: MapNode,
  sinkKinds: ReadonlyMap<string, SinkOptions>,
  report: Report,
): SinkOptions | null {
  const entry = config.entries.find(({ key }) => key === 'connector.class');
  const node = entry?.node;
  if (node?.kind === 'scalar' && node.broken) return null;
  const kind = node?.kind === 'scalar' && node.text !== null ? sinkKinds.get(node.text) : undefined;
  if (kind) return kind;
  const allowed = `one of ${[...sinkKinds.keys()].join(', ')}`;
  const nearest =
    node?.kind === 'scalar' && node.text !== null ? nearestSpelling(node.text, sinkKinds.keys()) : null;
  const hint = nearest === null ? '' : `; did you mean ${nearest}?`;
  report(
    'connector.class',
    entry ? `must be ${allowed}${hint}` : `is missing: ${allowed}`,
    entry?.line ?? null,
  );
  return null;
}

function optionFields(sink: SinkOptions): Record<string, Field> {
  return Object.fromEntries(
    Object.entries(sink.options).map(([key, option]) => [key, optionAsField(option)]),
  );
}
