/**
 * What a Window costs follows its changes: of a table ten times larger, with a random uuid as its key and partitions by day
 * that are not in it, the same changes of its last day cost at most half as much again. Figures are printed.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { writePositionDeletes } from '../../connectors/sinks/iceberg/files/write-position-deletes.ts';
import type { DirectoryStore } from '../iceberg/directory-store.ts';
import { LocalTable } from '../iceberg/local-table.ts';
import { TableFinder } from '../iceberg/table-finder.ts';

const rowsOfDay = 10_000;
const changes = 2000;
const windows = 15;
const most = 1.5;

interface Cost {
  cpuMs: number;
  requests: number;
  bytesRead: number;
}

class Subject {
  readonly days: number;
  readonly #table: LocalTable;
  readonly #finder: TableFinder;
  #window = 0;

  private constructor(days: number, table: LocalTable, finder: TableFinder) {
    this.days = days;
    this.#table = table;
    this.#finder = finder;
  }

  static async create(days: number): Promise<Subject> {
    const table = await LocalTable.create({
      bucket: true,
      fields: [
        { id: 1, name: 'id', required: true, type: 'uuid' },
        { id: 2, name: 'day', required: false, type: 'date' },
        { id: 3, name: 'payload', required: false, type: 'string' },
      ],
      key: ['id'],
      partitionBy: [{ 'source-id': 2, 'field-id': 1000, name: 'day', transform: 'day' }],
    });
    for (let day = 0; day < days; day += 10) {
      const first = day * rowsOfDay;
      await table.append(rows(`range // ${rowsOfDay}`, `range(${first}, ${first + 10 * rowsOfDay})`));
    }
    return new Subject(days, table, await TableFinder.open(table));
  }

  async remove(): Promise<void> {
    this.#finder.close();
    await this.#table.remove();
  }

  /** Half of the changes are rows of the last day, half are new. */
  async window(): Promise<Cost> {
    const table = this.#table;
    const { connection } = table.database;
    const store = table.store as DirectoryStore;
    const first = this.days * rowsOfDay + (this.#window - 1) * (changes / 2);
    this.#window += 1;
    const [requests, bytesRead, cpu] = [store.requests, store.bytesRead, process.cpuUsage()];
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE changes AS SELECT * FROM ${rows(String(this.days - 1), `range(${first}, ${first + changes})`)}`,
    );
    const found = await this.#finder.find('changes', 'rowid');
    const places = await this.#finder.rows(found);
    expect(places.length).toBe(changes / 2);
    const written = await table.write('changes');
    const location = `${table.metadata.location}/data`;
    const deletes = await writePositionDeletes(
      connection,
      found,
      this.#finder.targets(places),
      location,
      'partition',
      table.settings(),
    );
    await this.#finder.keep([...written, ...deletes]);
    const prepared = await table.prepare(written, deletes);
    await table.apply(await table.rebase(prepared, this.#finder.live));
    await this.#finder.advance();
    const { user, system } = process.cpuUsage(cpu);
    return {
      cpuMs: (user + system) / 1000,
      requests: store.requests - requests,
      bytesRead: store.bytesRead - bytesRead,
    };
  }
}

function rows(day: string, range: string): string {
  return `(SELECT md5(range::VARCHAR)::UUID AS id, DATE '2026-01-01' + CAST(${day} AS INTEGER) AS day,
    'payload ' || md5(range::VARCHAR) AS payload FROM ${range})`;
}

describe('a Window of date-local changes', () => {
  const subjects: Subject[] = [];
  afterAll(async () => {
    for (const subject of subjects) await subject.remove();
  });

  it('costs no more than half as much again in a table ten times larger', async () => {
    for (const days of [10, 100]) subjects.push(await Subject.create(days));
    const costs = subjects.map((): Cost[] => []);
    // The first brings the table into the index.
    for (const subject of subjects) await subject.window();
    for (let window = 0; window < windows; window += 1) {
      for (const [index, subject] of subjects.entries()) costs[index]!.push(await subject.window());
    }
    const median = (own: Cost[], of: keyof Cost) =>
      own.map((cost) => cost[of]).sort((a, b) => a - b)[windows >> 1]!;
    const [small, large] = costs.map((own) => ({
      cpuMs: Math.round(median(own, 'cpuMs')),
      requests: median(own, 'requests'),
      bytesRead: median(own, 'bytesRead'),
    }));
    for (const [index, figures] of [small!, large!].entries())
      console.log(`${subjects[index]!.days * rowsOfDay} rows, ${changes} changes a Window:`, figures);
    expect(large!.requests).toBeLessThanOrEqual(small!.requests * most);
    expect(large!.bytesRead).toBeLessThanOrEqual(small!.bytesRead * most);
    expect(large!.cpuMs).toBeLessThanOrEqual(small!.cpuMs * most);
  });
});
