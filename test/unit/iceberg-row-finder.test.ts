/**
 * Finding the rows of keys, against a model and against reading the whole table: random Windows of upserts and deletes with
 * strangers' compactions, equality deletes and rollbacks in between, and restarts that keep, lose or damage the index, whose
 * folder may be emptied at any time.
 */
import { readdir, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { quoteName, quoteText } from '../../connectors/object-log/sql-text.ts';
import { fieldIds, fileColumns } from '../../connectors/sinks/iceberg/files/file-columns.ts';
import { writePositionDeletes } from '../../connectors/sinks/iceberg/files/write-position-deletes.ts';
import { applyUpdates } from '../../connectors/sinks/iceberg/spec/apply-updates.ts';
import { snapshotById } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import { LocalTable, type LocalTableOptions } from '../iceberg/local-table.ts';
import { scanRows } from '../iceberg/scan-rows.ts';
import { TableFinder } from '../iceberg/table-finder.ts';
import { type Random, random } from './deliver-random.ts';

type Cells = (string | null)[];

interface Shape extends LocalTableOptions {
  name: string;
  /** SQL texts of a row's cells, drawn for the key number. */
  draw(r: Random, key: number): Cells;
  exactId?: number;
}

const day = (n: number) => `2026-01-${String(1 + (n % 28)).padStart(2, '0')}`;
const uuid = (n: number) => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`;

const shapes: Shape[] = [
  {
    name: 'a uuid, unpartitioned',
    fields: [
      { id: 1, name: 'id', required: true, type: 'uuid' },
      { id: 2, name: 'value', required: false, type: 'string' },
    ],
    key: ['id'],
    draw: (r, key) => [uuid(key), `v${r.integer(1000)}`],
  },
  {
    name: 'a key with its partition, in a bucket',
    bucket: true,
    fields: [
      { id: 1, name: "tenant's id", required: true, type: 'string' },
      { id: 2, name: 'n', required: true, type: 'int' },
      { id: 3, name: 'value', required: false, type: 'string' },
    ],
    key: ["tenant's id", 'n'],
    partitionBy: [
      { 'source-id': 1, 'field-id': 1000, name: 'tenant', transform: 'identity' },
      { 'source-id': 2, 'field-id': 1001, name: 'n_bucket', transform: 'bucket[2]' },
    ],
    draw: (r, key) => [`tenant/${key % 5}`, String(key), `v${r.integer(1000)}`],
  },
  {
    name: 'a key without its partition, in a bucket',
    bucket: true,
    fields: [
      { id: 1, name: 'value', required: false, type: 'string' },
      { id: 2, name: 'key', required: true, type: 'long' },
      { id: 3, name: 'at', required: false, type: 'date' },
    ],
    key: ['key'],
    partitionBy: [{ 'source-id': 3, 'field-id': 1000, name: 'at_day', transform: 'day' }],
    // The partition of a row changes with its day.
    draw: (r, key) => [`v${r.integer(1000)}`, String(key), r.next() < 0.1 ? null : day(r.integer(5))],
  },
  {
    name: 'a key beyond its type',
    fields: [
      { id: 1, name: 'at "it"', required: false, type: 'timestamptz' },
      { id: 2, name: 'ratio', required: false, type: 'double' },
      { id: 3, name: '_exact', required: false, type: 'string' },
    ],
    key: ['at "it"', 'ratio'],
    exactId: 3,
    draw: (_r, key) =>
      key % 3 === 0
        ? [null, String(key / 8), JSON.stringify({ 1: key % 2 ? 'infinity' : '-infinity' })]
        : [`${day(key)} 00:00:00.5+00`, key === 28 ? 'nan' : String(key / 8), null],
  },
];

function rowsSql(table: LocalTable, rows: readonly Cells[]): string {
  const { fields } = table.schema;
  const types: Record<string, string> = {
    int: 'INTEGER',
    long: 'BIGINT',
    uuid: 'UUID',
    string: 'VARCHAR',
    date: 'DATE',
    timestamptz: 'TIMESTAMPTZ',
    double: 'DOUBLE',
  };
  const tuples = rows.map((row, index) => {
    const cells = row.map((cell, column) => {
      const type = types[fields[column]!.type as string]!;
      return `CAST(${cell === null ? 'NULL' : quoteText(cell)} AS ${type})`;
    });
    return `(${[...cells, String(index)].join(', ')})`;
  });
  const names = [...fields.map(({ name }) => quoteName(name)), 'number'];
  return `(VALUES ${tuples.join(', ')}) AS rows(${names.join(', ')})`;
}

class Trial {
  readonly #r: Random;
  readonly #shape: Shape;
  readonly #table: LocalTable;
  readonly #context: string;
  #finder!: TableFinder;
  /** By key number: the row's cells. */
  #model = new Map<number, Cells>();
  /** The model of each snapshot. */
  readonly #past = new Map<bigint, Map<number, Cells>>();

  constructor(r: Random, shape: Shape, table: LocalTable) {
    this.#r = r;
    this.#shape = shape;
    this.#table = table;
    this.#context = `seed ${r.seed}, ${shape.name}`;
  }

  async run(steps: number): Promise<void> {
    await this.#open();
    for (let step = 0; step < steps; step += 1) {
      const turn = this.#r.next();
      if (turn < 0.6) await this.#window();
      else if (turn < 0.7) await this.#compact();
      else if (turn < 0.78) await this.#deleteByEquality();
      else if (turn < 0.84) await this.#rollBack();
      else if (turn < 0.92) await this.#restart();
      else if (turn < 0.95) await this.#emptyFolder();
      else await this.#append();
      await this.#check(`step ${step}`);
    }
    this.#finder.close();
  }

  async #open(): Promise<void> {
    this.#finder = await TableFinder.open(this.#table, {
      exact: this.#shape.exactId ?? null,
      // Hardly any, so that copies and the index itself come and go.
      ...(this.#r.next() < 0.3 ? { mostBytes: 2000 } : {}),
    });
  }

  #find(rows: readonly Cells[]): Promise<string> {
    return this.#finder.find(rowsSql(this.#table, rows), 'number');
  }

  #drawKeys(): number[] {
    const from = this.#r.integer(200);
    const span = this.#r.pick([5, 40, 200]);
    const count = 1 + this.#r.integer(30);
    return [...new Set(Array.from({ length: count }, () => from + this.#r.integer(span)))];
  }

  /** Keys whose cells in the key's columns are the same in every draw. */
  async #window(): Promise<void> {
    const keys = this.#drawKeys();
    const rows = keys.map((key) => this.#shape.draw(this.#r, key));
    const found = await this.#find(rows);
    const places = await this.#finder.rows(found);
    const known = keys
      .map((key, index) => (this.#model.has(key) ? index : null))
      .filter((each) => each !== null);
    expect(places.map(({ key }) => key).sort(), this.#context).toEqual(known.sort());
    const upserts = keys.map((_, index) => index).filter(() => this.#r.next() < 0.7);
    const table = this.#table;
    const written =
      upserts.length === 0
        ? []
        : await table.write(
            rowsSql(
              table,
              upserts.map((index) => rows[index]!),
            ),
          );
    const deletes = await writePositionDeletes(
      table.database.connection,
      found,
      this.#finder.targets(places),
      `${table.metadata.location}/data`,
      this.#r.pick(['file', 'partition']),
      table.settings(),
    );
    if (this.#r.next() < 0.6) await this.#finder.keep([...written, ...deletes]);
    await table.commit(written, deletes);
    for (const [index, key] of keys.entries()) {
      if (upserts.includes(index)) this.#model.set(key, rows[index]!);
      else this.#model.delete(key);
    }
    await this.#committed();
  }

  /** New rows of new keys, by somebody else. */
  async #append(): Promise<void> {
    const keys = this.#drawKeys().filter((key) => !this.#model.has(key));
    if (keys.length === 0) return;
    const rows = keys.map((key) => this.#shape.draw(this.#r, key));
    await this.#table.append(rowsSql(this.#table, rows));
    for (const [index, key] of keys.entries()) this.#model.set(key, rows[index]!);
    await this.#committed();
  }

  /** Some data files become one for each of their partitions, without the rows that are deleted. */
  async #compact(): Promise<void> {
    const live = await this.#table.live();
    const files = [...live.dataFiles()].filter(() => this.#r.next() < 0.5);
    if (files.length === 0) return;
    const gone = new Set(files.map(({ path }) => path));
    const names = this.#table.schema.fields.map(({ name }) => name);
    const rows = (await scanRows(this.#table, names)).filter(({ path }) => gone.has(path));
    const written =
      rows.length === 0
        ? []
        : await this.#table.write(
            rowsSql(
              this.#table,
              rows.map(({ cells }) => cells),
            ),
          );
    await this.#table.commit(written, [], { removed: [...gone], keepsRows: true });
    await this.#committed();
  }

  async #deleteByEquality(): Promise<void> {
    const [key] = this.#drawKeys();
    const row = this.#model.get(key!);
    // The columns of its key must be there for it.
    if (!row || this.#shape.exactId !== undefined) return;
    const table = this.#table;
    const { connection } = table.database;
    const [{ file, localPath }] = (await table.write(rowsSql(table, [row]))) as [
      Awaited<ReturnType<LocalTable['write']>>[0],
    ];
    const path = `${localPath}.equality`;
    const columns = fileColumns({
      ...table.schema,
      fields: table.schema.fields.filter(({ id }) => table.keyIds.includes(id)),
    });
    await connection.run(`COPY (SELECT ${columns.map(({ name }) => quoteName(name)).join(', ')} FROM ${rowsSql(table, [row])})
      TO ${quoteText(path)} (FORMAT parquet, FIELD_IDS ${fieldIds(columns)})`);
    const location = file.file_path.replace('.parquet', '-equality.parquet');
    await table.store.putFile(location, path);
    const bytes = await table.store.get(location);
    const deletes = {
      ...file,
      content: 2 as const,
      file_path: location,
      equality_ids: table.keyIds,
      file_size_in_bytes: bytes!.length,
    };
    const specId = table.metadata['default-spec-id'];
    await table.commit([], [{ file: deletes, localPath: path, specId, targets: [] }]);
    this.#model.delete(key!);
    await this.#committed();
  }

  async #rollBack(): Promise<void> {
    const table = this.#table;
    const current = table.metadata['current-snapshot-id'];
    const parent =
      current === null ? undefined : snapshotById(table.metadata, current)!['parent-snapshot-id'];
    if (parent === undefined) return;
    table.metadata = applyUpdates(
      table.metadata,
      [{ action: 'set-snapshot-ref', 'ref-name': 'main', type: 'branch', 'snapshot-id': parent }],
      Date.now(),
    );
    this.#model = new Map(this.#past.get(parent)!);
    await this.#finder.advance();
  }

  /** While it is in use. */
  async #emptyFolder(): Promise<void> {
    await rm(TableFinder.folder(this.#table), { recursive: true, force: true });
  }

  async #restart(): Promise<void> {
    this.#finder.close();
    const folder = join(TableFinder.folder(this.#table), 'keys', this.#table.metadata['table-uuid']);
    const turn = this.#r.next();
    if (turn < 0.3) await rm(folder, { recursive: true, force: true });
    else if (turn < 0.6) {
      for (const name of await readdir(folder).catch(() => [])) {
        if (name.endsWith('.keys') && this.#r.next() < 0.5)
          await truncate(join(folder, name), this.#r.integer(200));
      }
    }
    await this.#open();
  }

  async #committed(): Promise<void> {
    this.#past.set(this.#table.metadata['current-snapshot-id']!, new Map(this.#model));
    await this.#finder.advance();
    await this.#finder.trim();
  }

  /** The table has the model's rows, and the finder says of each where it is. */
  async #check(step: string): Promise<void> {
    const context = `${this.#context}, ${step}`;
    const names = this.#table.schema.fields.map(({ name }) => name);
    const rows = await scanRows(this.#table, names);
    expect(rows, context).toHaveLength(this.#model.size);
    expect(await this.#finder.countRows(), context).toBe(this.#model.size);
    if (rows.length === 0) return;
    const found = await this.#find(rows.map(({ cells }) => cells));
    const places = await this.#finder.rows(found);
    const where = places.map(({ key, path, position }) => `${key} ${path} ${position}`).sort();
    const expected = rows.map(({ path, position }, index) => `${index} ${path} ${position}`).sort();
    expect(where, context).toEqual(expected);
  }
}

it.each(shapes)('by $name', { timeout: 120_000 }, async (shape) => {
  const table = await LocalTable.create(shape);
  try {
    await new Trial(random(), shape, table).run(25);
  } finally {
    await table.remove();
  }
});
