/** The Changes of one shape of a Window, and what must be known of them before the first is written. */
import { TidemarkError } from '../../src/connector/failure.ts';
import { formatPosition, type Position, parsePosition } from '../../src/connector/position.ts';
import { sameText } from '../../src/connector/recast.ts';
import { type TableShape, tableName } from '../../src/connector/shape.ts';
import { madeAnew, pairColumns } from '../../src/connector/shape-versions.ts';
import type { AppendTable, RowEvent } from '../../src/connector/sink.ts';

export class PartEvents {
  /** Position just before the first Change; undefined where there is none. */
  readonly since: Position | undefined;
  readonly #first: RowEvent[];
  readonly #rest: AsyncIterator<RowEvent[]>;

  private constructor(since: Position | undefined, first: RowEvent[], rest: AsyncIterator<RowEvent[]>) {
    this.since = since;
    this.#first = first;
    this.#rest = rest;
  }

  /** @param before the shape of what came before, or null */
  static async begin(table: AppendTable, before: TableShape | null): Promise<PartEvents> {
    const rest = table.events()[Symbol.asyncIterator]();
    const { done, value } = await rest.next();
    if (done || value.length === 0) return new PartEvents(undefined, [], rest);
    const since = positionBefore(value[0]!.position);
    const first = [...value];
    // None of the rows before is the new table's: for whoever reads the Changes that is a truncate.
    if (before && madeAnew(before, table.shape)) first.unshift(cleared(since, value[0]!.commitTimeUs));
    return new PartEvents(since, first, rest);
  }

  async *batches(): AsyncIterable<RowEvent[]> {
    try {
      yield this.#first;
      for (let next = await this.#rest.next(); !next.done; next = await this.#rest.next()) yield next.value;
    } finally {
      await this.#rest.return?.();
    }
  }
}

function cleared(position: Position, commitTimeUs: bigint): RowEvent {
  return { op: 't', position, commitTimeUs, key: [], values: [], previousKey: null, before: null };
}

function positionBefore(position: Position): Position {
  const parts = parsePosition(position);
  return formatPosition({ ...parts, ordinal: parts.ordinal - 1 });
}

/**
 * The latest state is found by key over the whole history, so the key must be the same all along.
 * @throws TidemarkError TM405
 */
export function refuseNewKey(before: TableShape, after: TableShape, urlKey: string): void {
  if (madeAnew(before, after)) return;
  const former = new Map(pairColumns(before, after).kept.map(([old, column]) => [column.name, old]));
  const oldKey = before.keyColumns.map((i) => before.columns[i]!.name).sort();
  const newKey = after.keyColumns.map((i) => after.columns[i]!);
  const kept = newKey.map(({ name }) => former.get(name)?.name ?? '').sort();
  const sameValues = newKey.every((column) => {
    const old = former.get(column.name);
    return old !== undefined && sameText(old, column);
  });
  if (oldKey.join('\0') === kept.join('\0') && (oldKey.length === 0 || sameValues)) return;
  throw new TidemarkError(
    'TM405',
    `the key of ${tableName(after)} changed, and its change files are found by it`,
    {
      remedy: `Give the table to a new destination (another ${urlKey}): change files of one table have one key all along.`,
    },
  );
}
