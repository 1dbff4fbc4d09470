/** Somebody else appends to the sink's tables and rewrites them with pyiceberg, while it writes Windows into them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { propertyNames } from '../../connectors/sinks/iceberg/progress/properties.ts';
import type { TidemarkError } from '../../src/connector/failure.ts';
import type {
  AppendSink,
  AppendWindow,
  MergeSink,
  OptionValues,
  Row,
  RowState,
} from '../../src/connector/sink.ts';
import { shapeOf } from '../conformance/example-tables.ts';
import { icebergReader, rewriteWithPyiceberg, writeWithPyiceberg } from '../iceberg/readers.ts';
import { Place, position, sorted, upsert, windowOf } from '../iceberg/sink-place.ts';

const shape = shapeOf('findings', ['org text key', 'id bigint key', 'note text'], { tenantColumn: 0 });

let stack: Stack;
let folder: string;
let places = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iceberg-foreign-'));
  stack = await startStack({ directory: join(folder, 'stack'), parts: ['iceberg'] });
});

afterAll(async () => {
  await stack?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Rows as they should be there: the source's, and those of the stranger, who has keys of its own. */
class Model {
  readonly source = new Map<string, Row>();
  readonly strange: Row[] = [];
  n = 0;

  /** Five new rows, two changed ones and a deleted one. */
  next(): RowState[] {
    this.n += 1;
    const states: RowState[] = [];
    const ids = [0, 1, 2, 3, 4].map((i) => this.n * 10 + i);
    for (const id of [...ids, ids[0]! - 9, ids[0]! - 8].filter((each) => each >= 10)) {
      const key: Row = [`org ${id % 2}`, String(id)];
      const row: Row = [...key, `note ${this.n}`];
      this.source.set(key.join(), row);
      states.push(upsert(this.n, key, row));
    }
    const gone: Row = [`org ${(ids[0]! - 7) % 2}`, String(ids[0]! - 7)];
    if (this.source.delete(gone.join())) states.push({ op: 'delete', key: gone, position: position(this.n) });
    return states;
  }

  get rows(): Row[] {
    return sorted([...this.source.values(), ...this.strange]);
  }
}

class Scene {
  readonly place: Place;
  readonly model = new Model();
  /** Once, when the next Window is about to be committed. */
  meanwhile: () => Promise<void> = async () => {};

  constructor(more: OptionValues = {}) {
    places += 1;
    this.place = new Place(stack, folder, `foreign_${places}`, more);
  }

  open<Kind = MergeSink>(): Promise<Kind> {
    return this.place.open<Kind>(async (name) => {
      if (name !== 'iceberg-sink-before-commit') return;
      const now = this.meanwhile;
      this.meanwhile = async () => {};
      await now();
    });
  }

  /** Two rows with keys that the source never has. */
  async append(): Promise<void> {
    const { catalog } = this.place;
    const table = this.place.identifier(shape);
    const { columns } = await icebergReader('pyiceberg').readTable(catalog, table);
    const rows = [1, 2].map((i) => [`org ${i % 2}`, `-${this.model.strange.length + i}`, 'strange']);
    const cells = rows.map((row) => columns.map((_, i) => row[i] ?? null));
    await writeWithPyiceberg(catalog, { ...table, schema: null, rows: cells });
    this.model.strange.push(...rows);
  }

  rewrite(filter?: string): Promise<void> {
    return rewriteWithPyiceberg(this.place.catalog, this.place.identifier(shape), filter);
  }

  async expectRows(): Promise<void> {
    for (const reader of ['pyiceberg', 'duckdb'] as const)
      expect(await this.place.rows(shape, reader), `${reader} after Window ${this.model.n}`).toEqual(
        this.model.rows,
      );
  }
}

test('rows of a stranger stay, and files that it rewrote are those that Windows go on with', async () => {
  const scene = new Scene();
  const sink = await scene.open();
  const write = async (meanwhile: () => Promise<void> = async () => {}) => {
    const rows = scene.model.next();
    scene.meanwhile = meanwhile;
    await sink.mergeWindow(windowOf(scene.model.n, 1n, shape, rows));
    await scene.expectRows();
  };
  await write();
  await scene.append();
  await scene.expectRows();
  // Between Windows.
  await scene.rewrite();
  await scene.expectRows();
  await write();
  await scene.rewrite("org == 'org 0'");
  await write();
  // While one waits for its commit.
  await write(() => scene.append());
  await write(() => scene.rewrite());
  await write(() => scene.rewrite("org == 'org 1'"));
  await write(async () => {
    await scene.append();
    await scene.rewrite();
    await scene.append();
  });
  await write();
  expect(scene.place.lines.filter((line) => line.includes('made again'))).toEqual([]);
  await sink.close();
});

test('a stranger that goes on and on keeps no Window out, and no Window keeps it out', async () => {
  const scene = new Scene({ 'iceberg.compact.files': 4 });
  const sink = await scene.open();
  const write = async () => {
    const rows = scene.model.next();
    await untilTaken(() => sink.mergeWindow(windowOf(scene.model.n, 1n, shape, rows)));
  };
  await write();
  let over = false;
  let appended = 0;
  let rewritten = 0;
  const stranger = (async () => {
    while (!over || appended === 0 || rewritten === 0) {
      await scene.append().then(() => (appended += 1), overtaken);
      await scene.rewrite().then(() => (rewritten += 1), overtaken);
      await sleep(100);
    }
  })();
  // Looked at once the Windows are written.
  stranger.catch(() => {});
  try {
    for (let window = 2; window <= 6; window += 1) await write();
  } finally {
    over = true;
    await stranger;
  }
  await scene.expectRows();
  await sink.close();
});

/** As the pipeline does: whoever was overtaken too often tries again. */
async function untilTaken(work: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await work();
      return;
    } catch (error) {
      if ((error as TidemarkError).code !== 'TM401' || tries === 5) throw error;
    }
  }
}

/** Theirs to make again. */
function overtaken(error: Error): void {
  expect(error.message).toMatch(/CommitFailed|ValidationException|Requirement failed/);
}

test('Changes are kept once each, whoever rewrites their files', async () => {
  const scene = new Scene({ 'iceberg.mode': 'append' });
  const sink = await scene.open<AppendSink>();
  let changes = 0;
  const write = async (meanwhile: () => Promise<void> = async () => {}) => {
    const { sweeps: _, ...window } = windowOf(scene.model.n + 1, 1n, shape, scene.model.next());
    for await (const batch of window.tables[0]!.events()) changes += batch.length;
    scene.meanwhile = meanwhile;
    await sink.appendWindow(window satisfies AppendWindow);
    for (const reader of ['pyiceberg', 'duckdb'] as const) {
      const { columns, rows } = await icebergReader(reader).readTable(
        scene.place.catalog,
        scene.place.identifier(shape),
      );
      const identity = [columns.indexOf('_position'), columns.indexOf('id')] as const;
      expect(new Set(rows.map((row) => identity.map((i) => row[i]).join())).size, reader).toBe(changes);
      expect(rows, reader).toHaveLength(changes);
    }
  };
  await write();
  await write(() => scene.rewrite());
  await scene.rewrite("_op == 'd'");
  await write(() => scene.rewrite("org == 'org 1'"));
  const read: Row[] = [];
  for await (const rows of sink.readTable!(shape, position(scene.model.n))) read.push(...rows);
  expect(sorted(read)).toEqual(scene.model.rows);
  const properties = await scene.place.inLake(shape, async (_lake, { metadata }) => metadata.properties);
  expect(properties[propertyNames.sequence]).toBe(String(scene.model.n));
  await sink.close();
});
