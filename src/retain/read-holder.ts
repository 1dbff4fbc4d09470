/** Rows by key, as a destination hands them back: what a Tombstone or a policy's read-back is compared with. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Position } from '../connector/position.ts';
import type { TableId, TableShape } from '../connector/shape.ts';
import type { Cell, Row } from '../connector/sink.ts';
import { controlError } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import { shapeOfSchema } from '../publish/avro-schema.ts';
import type { RetentionOptions } from './retention.ts';

export type HolderOptions = Omit<RetentionOptions, 'kafka' | 'registry'> & {
  registry: {
    schemaById(id: number): Promise<string>;
    versions(subject: string): Promise<{ schema: string }[]>;
  };
};

export interface HeldTable extends TableId {
  topic: string;
  /** The key's columns in the order of the record key. */
  key: readonly string[];
}

let serial = 0;

/** A destination that merges meanwhile may be beyond the Position that was asked for: then it is asked for its newer one. */
const attempts = 10;
const attemptPauseMs = 200;

/**
 * One pass over the destination's table.
 * @param wanted keys as cold_storage_archive.row_key; what was let go of is among the rows
 * @param take is given each row that was found, by column
 * @throws TidemarkError TM508 where the destination cannot be read back; what its sink throws
 */
export async function readHeldRows(
  options: HolderOptions,
  holder: { destination: string; unit: string },
  table: HeldTable,
  wanted: ReadonlySet<string>,
  take: (key: string, row: Map<string, Cell>) => void,
): Promise<void> {
  for await (const { shape, rows } of heldRows(options, holder, table)) {
    const places = table.key.map((name) => shape.columns.findIndex((column) => column.name === name));
    for (const row of rows) {
      const text = JSON.stringify(places.map((place) => row[place] ?? null));
      if (wanted.has(text)) take(text, new Map(shape.columns.map(({ name }, i) => [name, row[i]!])));
    }
  }
}

/**
 * The destination's rows of a table, those that the source let go of among them, in batches, in the shape that it has them in.
 * @param widen may add columns that the table had before: a destination that does not have them any more fails, or hands over NULL
 * @throws TidemarkError TM508 where it cannot be read back; what its sink throws
 */
export async function* heldRows(
  options: HolderOptions,
  { destination, unit }: { destination: string; unit: string },
  table: TableId & { topic: string },
  widen: (shape: TableShape) => TableShape = (shape) => shape,
): AsyncGenerator<{ shape: TableShape; rows: Row[] }> {
  const { config, sinkKinds, registry, pool, log } = options;
  const instance = config.destinations.find(({ name }) => name === destination);
  const kind = instance && sinkKinds.get(instance.kind);
  if (!kind) throw new TidemarkError('TM508', `${destination} is not among the destinations any more`);
  const scratchDirectory = join(
    config.deliver.spillDirectory,
    destination,
    `retain-${process.pid}-${serial++}`,
  );
  await mkdir(scratchDirectory, { recursive: true });
  const named = log.child({ destination });
  const context = {
    sourceId: config.source.id,
    destination,
    scratchDirectory,
    log: (level: 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>) =>
      named[level](message, fields),
    failpoint,
  };
  const sink = await kind.open(context, instance.options);
  try {
    if (sink.mode === 'send' || !sink.readTable)
      throw new TidemarkError('TM508', `${destination} cannot be read back`);
    for (let attempt = 1; ; attempt++) {
      const { position, schemaId } = await heldState(pool, [
        config.source.id,
        destination,
        unit,
        table.topic,
      ]);
      if (position === null) throw new TidemarkError('TM508', `${destination} holds nothing yet`);
      const schema =
        schemaId === null
          ? (await registry.versions(`${table.topic}-value`)).at(-1)?.schema
          : await registry.schemaById(schemaId);
      if (schema === undefined) throw new TidemarkError('TM508', `${table.topic} has no schema`);
      const shape = widen(shapeOfSchema(schema));
      let begun = false;
      try {
        for await (const rows of sink.readTable(shape, position)) {
          begun = true;
          yield { shape, rows };
        }
        return;
      } catch (error) {
        const moved = error instanceof TidemarkError && error.code === 'TM408';
        if (!moved || begun || attempt === attempts) throw error;
        await sleep(attemptPauseMs);
      }
    }
  } finally {
    await sink.close();
    await rm(scratchDirectory, { recursive: true, force: true });
  }
}

/** What it holds, and the schema that it was given last. */
async function heldState(
  pool: RetentionOptions['pool'],
  values: string[],
): Promise<{ position: Position | null; schemaId: number | null }> {
  try {
    const { rows } = await pool.query<{ position: Position | null; schemaId: number | null }>(
      `select merged_position as position, (schema_ids ->> $4)::int as "schemaId" from tidemark.units
        where source_id = $1 and destination = $2 and unit = $3`,
      values,
    );
    return rows[0] ?? { position: null, schemaId: null };
  } catch (error) {
    throw controlError(error);
  }
}
