/**
 * Tags of consistent cuts. What a tag is stands in the progress table: before the first table is tagged, and once the last
 * one is. So a tag that a crash left half made says so, and is made anew or dropped by its name.
 */

import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { Position } from '../../../../src/connector/position.ts';
import type { SinkContext, Tag } from '../../../../src/connector/sink.ts';
import { type LoadedTable, type TableCommit, type TableIdentifier, tableText } from '../catalog/catalog.ts';
import { isObject } from '../catalog/exact-json.ts';
import { CommitConflict } from '../catalog/failures.ts';
import { settleCommit } from '../catalog/settle-commit.ts';
import type { Lake, OpenTable } from '../lake.ts';
import { propertyNames } from '../progress/properties.ts';
import type { TableRequirement, TableUpdate } from '../spec/updates.ts';
import { findTables } from '../upkeep/own-tables.ts';
import { snapshotAt } from './consistent-cut.ts';

const prefix = 'tidemark.tag.';
const tries = 10;
/** Whatever the table says of the age of its tags. */
const forEver = Number.MAX_SAFE_INTEGER;

export interface TagPlace {
  lake: Lake;
  context: SinkContext;
  namespace: string;
  progress: OpenTable;
}

export function readTags({ metadata }: OpenTable): Tag[] {
  return Object.entries(metadata.properties)
    .filter(([key]) => key.startsWith(prefix))
    .map(([, text]) => JSON.parse(text) as Tag)
    .sort((one, other) => (one.at < other.at ? -1 : 1));
}

/** @throws TidemarkError TM101 where the name is taken, TM408 */
export async function tagTables(place: TagPlace, name: string): Promise<Tag> {
  const { lake, context, namespace, progress } = place;
  const known = readTags(progress).find((each) => each.name === name);
  if (known?.complete) {
    throw new TidemarkError('TM101', `there is a tag ${name} already, of ${known.at}`, {
      remedy: `Take another name, or \`tidemark tag ${context.destination} ${name} --drop\` it first.`,
    });
  }
  if (known) await dropTag(place, name);
  const { properties } = progress.metadata;
  const position = properties[propertyNames.position] as Position | undefined;
  if (position === undefined) {
    throw new TidemarkError('TM408', `${context.destination} holds no Window yet`, {
      remedy: 'Wait for its first one: `tidemark status`.',
    });
  }
  const cut = { position, sequence: Number(properties[propertyNames.sequence]) };
  const { own } = await findTables(lake, namespace, context);
  const tables = own.filter(({ metadata }) => metadata['table-uuid'] !== progress.metadata['table-uuid']);
  const chosen = tables.map((table) => ({ table, snapshot: snapshotAt(table, cut) }));
  const tag: Tag = {
    name,
    position,
    commitTimeUs: properties[propertyNames.commitTime] ?? '0',
    at: new Date().toISOString(),
    complete: false,
    tables: chosen.map(({ table, snapshot }) => ({
      table: tableText(table.identifier),
      snapshot: snapshot === null ? null : String(snapshot),
    })),
  };
  await writeRecord(place, tag);
  await context.failpoint('iceberg-tag-recorded');
  for (const { table, snapshot } of chosen) {
    if (snapshot !== null) await setTag(place, table, name, snapshot);
    await context.failpoint('iceberg-tag-set');
  }
  const complete = { ...tag, complete: true };
  await writeRecord(place, complete);
  return complete;
}

/** @returns what it was; null where there is none of the name */
export async function dropTag(place: TagPlace, name: string): Promise<Tag | null> {
  const { lake, context, namespace, progress } = place;
  const known = readTags(progress).find((each) => each.name === name);
  if (!known) return null;
  const { own } = await findTables(lake, namespace, context);
  for (const table of own) {
    const snapshot = known.tables.find((each) => each.table === tableText(table.identifier))?.snapshot;
    const tagged = table.metadata.refs[name];
    // Another one of the name is somebody else's.
    if (tagged?.type !== 'tag' || String(tagged['snapshot-id']) !== snapshot) continue;
    await commitUntil(
      lake,
      table.identifier,
      (now) =>
        now.refs[name] && {
          requirements: [
            { type: 'assert-ref-snapshot-id', ref: name, 'snapshot-id': now.refs[name]['snapshot-id'] },
          ],
          updates: [{ action: 'remove-snapshot-ref', 'ref-name': name }],
        },
      ({ refs }) => !isObject(refs) || refs[name] === undefined,
    );
  }
  const key = `${prefix}${name}`;
  await commitUntil(
    lake,
    progress.identifier,
    () => ({ requirements: [], updates: [{ action: 'remove-properties', removals: [key] }] }),
    ({ properties }) => !isObject(properties) || properties[key] === undefined,
  );
  return known;
}

async function setTag(
  { lake }: TagPlace,
  { identifier }: OpenTable,
  name: string,
  snapshot: bigint,
): Promise<void> {
  await commitUntil(
    lake,
    identifier,
    (now) => {
      const there = now.refs[name];
      if (there?.['snapshot-id'] === snapshot) return undefined;
      if (there) {
        throw new TidemarkError('TM101', `${tableText(identifier)} has a tag or branch ${name} already`, {
          remedy: 'Take another name.',
        });
      }
      if (!now.snapshots.some((each) => each['snapshot-id'] === snapshot)) {
        throw new TidemarkError('TM408', `${tableText(identifier)}: the snapshot has expired meanwhile`, {
          remedy: 'Try again; and let snapshots stay for some minutes at least.',
        });
      }
      return {
        requirements: [{ type: 'assert-ref-snapshot-id', ref: name, 'snapshot-id': null }],
        updates: [
          {
            action: 'set-snapshot-ref',
            'ref-name': name,
            type: 'tag',
            'snapshot-id': snapshot,
            'max-ref-age-ms': forEver,
          },
        ],
      };
    },
    ({ refs }) => {
      const there = isObject(refs) ? refs[name] : null;
      return isObject(there) && String(there['snapshot-id']) === String(snapshot);
    },
  );
}

function writeRecord({ lake, progress }: TagPlace, tag: Tag): Promise<void> {
  const key = `${prefix}${tag.name}`;
  const text = JSON.stringify(tag);
  return commitUntil(
    lake,
    progress.identifier,
    () => ({ requirements: [], updates: [{ action: 'set-properties', updates: { [key]: text } }] }),
    ({ properties }) => isObject(properties) && properties[key] === text,
  );
}

/** @param change of the table as it is; undefined: nothing is to be done */
async function commitUntil(
  lake: Lake,
  identifier: TableIdentifier,
  change: (
    now: OpenTable['metadata'],
  ) => { requirements: TableRequirement[]; updates: TableUpdate[] } | undefined,
  landed: (metadata: LoadedTable['metadata']) => boolean,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const table = await lake.load(identifier);
    const made = table && change(table.metadata);
    if (!made) return;
    const uuid: TableRequirement = { type: 'assert-table-uuid', uuid: table.metadata['table-uuid'] };
    const commit = { identifier, requirements: [uuid, ...made.requirements], updates: made.updates };
    try {
      await settleCommit(lake.catalog, [commit as unknown as TableCommit], {
        landed: ({ metadata }) => landed(metadata),
      });
      return;
    } catch (error) {
      if (!(error instanceof CommitConflict) || attempt === tries) throw error;
    }
  }
}
