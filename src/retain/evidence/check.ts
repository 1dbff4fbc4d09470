/**
 * Checks a report: that it is whole and signed, and that a destination has its rows as they were let go of. Nothing is asked
 * but the file and the destination.
 */
import type { KeyObject } from 'node:crypto';
import { type TableShape, unitName } from '../../connector/shape.ts';
import type { Cell, Row, SinkKind } from '../../connector/sink.ts';
import type { Logger } from '../../platform/log.ts';
import type { DestinationConfig } from '../../platform/resolved-config.ts';
import { shapeOfSchema } from '../../publish/avro-schema.ts';
import { hashVersion, isRow } from '../canonical-row.ts';
import { OpenHolders } from '../open-holders.ts';
import type { EvidenceHead, EvidenceRow, EvidenceSum } from './format.ts';
import { readEvidence, rowsOf } from './read.ts';

export interface CheckedDestination {
  destination: string;
  /** Rows that were read back, and of these those that are as they were. */
  compared: number;
  matching: number;
  /** The others; of many, the first ones. */
  differing: { table: string; key: string; reason: string }[];
  differingRows: number;
  /** Rows that are not to be compared, by reason. */
  passedOver: Record<string, number>;
  /** What the destination holds does not reach what it acknowledged. */
  behind: string[];
}

export interface EvidenceVerdict {
  ok: boolean;
  report: Pick<EvidenceHead, 'source' | 'organization' | 'from' | 'to' | 'madeAt'> | null;
  rows: number;
  signedBy: string | null;
  /** What is wrong with the report itself. */
  problems: string[];
  /** Null: it was not asked. */
  destination: CheckedDestination | null;
}

export interface CheckOptions {
  trusted: KeyObject;
  destination: DestinationConfig | null;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  /** Rows to compare; null: all of them. */
  sample: number | null;
  /** For folders of temporary files. */
  directory: string;
  log: Logger;
}

/** Rows that are looked for in one pass over a destination's table. */
const rowsAtATime = 50_000;
const mostShown = 20;

/** @throws what the file system and the destination's sink throw */
export async function checkEvidence(file: string, options: CheckOptions): Promise<EvidenceVerdict> {
  const { destination, sample } = options;
  const chosen = destination && sample !== null ? new Sample(sample, destination.name) : null;
  const { head, sum, signedBy, problems } = await readEvidence(file, options.trusted, (row) =>
    chosen?.offer(row),
  );
  const verdict: EvidenceVerdict = {
    ok: problems.length === 0,
    report: head && {
      source: head.source,
      organization: head.organization,
      from: head.from,
      to: head.to,
      madeAt: head.madeAt,
    },
    rows: sum?.rows ?? 0,
    signedBy,
    problems,
    destination: null,
  };
  // A report that is not what it was says nothing of a destination.
  if (!verdict.ok || !destination || !head || !sum) return verdict;
  const checked = await compare(file, { head, sum }, chosen?.rows ?? null, { ...options, destination });
  const compared = checked.compared > 0 || sum.rows === 0;
  if (!compared) verdict.problems.push(`no row of it can be compared with ${destination.name}`);
  verdict.ok = compared && checked.differingRows === 0 && checked.behind.length === 0;
  return { ...verdict, destination: checked };
}

/** Why a row is not compared with what a destination has; null: it is. */
function passOver(row: EvidenceRow, destination: string): string | null {
  if (!row.deliveredTo.some((each) => each.destination === destination)) return 'not delivered there';
  if (row.recalledAt !== null) return 'recalled';
  if (row.superseded) return 'evicted again later';
  if (row.salt === null) return 'salt erased';
  if (row.hashVersion !== hashVersion) return 'a later canonical form';
  return null;
}

/** So many rows, each as likely as any other. */
class Sample {
  readonly rows: EvidenceRow[] = [];
  readonly #size: number;
  readonly #destination: string;
  #seen = 0;

  constructor(size: number, destination: string) {
    this.#size = size;
    this.#destination = destination;
  }

  offer(row: EvidenceRow): void {
    if (passOver(row, this.#destination) !== null) return;
    const place = Math.floor(Math.random() * ++this.#seen);
    if (this.rows.length < this.#size) this.rows.push(row);
    else if (place < this.#size) this.rows[place] = row;
  }
}

type CompareOptions = CheckOptions & { destination: DestinationConfig };

async function compare(
  file: string,
  report: { head: EvidenceHead; sum: EvidenceSum },
  sample: readonly EvidenceRow[] | null,
  { destination, sinkKinds, directory, log }: CompareOptions,
): Promise<CheckedDestination> {
  const holders = new OpenHolders({
    destinations: [destination],
    sinkKinds,
    sourceId: report.head.source,
    spillDirectory: directory,
    log,
  });
  const comparison = new Comparison(report.head, destination, sinkKinds, holders);
  try {
    for await (const row of rowsOf(file)) await comparison.offer(row, sample === null);
    for (const row of sample ?? []) await comparison.add(row);
    await comparison.flush();
    return comparison.result;
  } finally {
    await holders.close();
  }
}

class Comparison {
  readonly result: CheckedDestination;
  readonly #head: EvidenceHead;
  readonly #kind: SinkKind;
  readonly #holders: OpenHolders;
  /** By table, rows to look for. */
  #wanted = new Map<string, EvidenceRow[]>();
  #count = 0;
  readonly #behind = new Set<string>();
  readonly #held = new Map<string, string | null>();

  constructor(
    head: EvidenceHead,
    destination: DestinationConfig,
    sinkKinds: ReadonlyMap<string, SinkKind>,
    holders: OpenHolders,
  ) {
    this.#head = head;
    this.#kind = sinkKinds.get(destination.kind)!;
    this.#holders = holders;
    this.result = {
      destination: destination.name,
      compared: 0,
      matching: 0,
      differing: [],
      differingRows: 0,
      passedOver: {},
      behind: [],
    };
  }

  /** Its receipt is compared always, its content where that is wanted. */
  async offer(row: EvidenceRow, content: boolean): Promise<void> {
    const { destination, passedOver } = this.result;
    const reason = passOver(row, destination);
    if (reason !== null) passedOver[reason] = (passedOver[reason] ?? 0) + 1;
    for (const { unit, receipt, ...holder } of row.deliveredTo) {
      if (holder.destination !== destination || !receipt) continue;
      const held = await this.#heldOf(unit);
      if ((held ?? '') >= receipt.position || this.#behind.has(unit)) continue;
      this.#behind.add(unit);
      this.result.behind.push(
        `${destination} holds ${unit} up to ${held ?? 'nothing'}; ${receipt.position} was acknowledged (commit ${receipt.commitId})`,
      );
    }
    if (content && reason === null) await this.add(row);
  }

  async add(row: EvidenceRow): Promise<void> {
    const table = `${row.schema}.${row.name}`;
    const rows = this.#wanted.get(table) ?? [];
    rows.push(row);
    this.#wanted.set(table, rows);
    if (++this.#count >= rowsAtATime) await this.flush();
  }

  async flush(): Promise<void> {
    for (const [table, rows] of this.#wanted) await this.#compareTable(table, rows);
    this.#wanted = new Map();
    this.#count = 0;
  }

  async #heldOf(unit: string): Promise<string | null> {
    if (!this.#held.has(unit)) {
      const sink = await this.#holders.sink(this.result.destination);
      this.#held.set(unit, (await sink.held(unit))?.position ?? null);
    }
    return this.#held.get(unit)!;
  }

  async #compareTable(table: string, rows: readonly EvidenceRow[]): Promise<void> {
    const left = new Map(rows.map((row) => [row.key, row]));
    const known = this.#head.tables.find(({ schema, name }) => `${schema}.${name}` === table);
    const unit = this.#kind.unit === 'destination' ? '*' : unitName(rows[0]!);
    const held = await this.#heldOf(unit);
    if (known && known.schemaText === null) {
      this.#differ(rows, 'the report does not say what columns the table had');
      return;
    }
    if (known?.schemaText && held !== null) {
      const shape = shapeOfSchema(known.schemaText);
      const sink = await this.#holders.sink(this.result.destination);
      if (!sink.readTable) {
        this.#differ(rows, 'the destination cannot be read back');
        return;
      }
      const places = keyPlaces(shape);
      const takeOf = (retired: boolean) => (some: Row[]) => {
        for (const cells of some) {
          const key = JSON.stringify(places.map((place) => cells[place] ?? null));
          const row = left.get(key);
          if (!row) continue;
          left.delete(key);
          this.#judge(row, shape, cells, retired);
        }
      };
      const take = takeOf(false);
      for await (const some of sink.readTable(
        shape,
        held as Parameters<typeof sink.readTable>[1],
        takeOf(true),
      ))
        take(some);
    }
    this.#differ([...left.values()], 'the destination does not have it');
  }

  #judge(row: EvidenceRow, shape: TableShape, cells: Row, retired: boolean): void {
    const content = new Map<string, Cell>(shape.columns.map(({ name }, i) => [name, cells[i]!]));
    const known = {
      version: row.hashVersion,
      columns: row.hashedColumns,
      hash: Buffer.from(row.hash, 'hex'),
      salt: Buffer.from(row.salt!, 'hex'),
    };
    if (known.hash.length === 32 && isRow(content, known)) {
      this.result.compared++;
      this.result.matching++;
      return;
    }
    const gone = row.hashedColumns.find((name) => !content.has(name));
    this.#differ(
      [row],
      gone !== undefined
        ? `the destination's table has no column ${gone} any more`
        : retired
          ? 'the destination has it otherwise'
          : 'the destination has it otherwise, as a row that the source has or had again',
    );
  }

  #differ(rows: readonly EvidenceRow[], reason: string): void {
    this.result.compared += rows.length;
    this.result.differingRows += rows.length;
    for (const { schema, name, key } of rows)
      if (this.result.differing.length < mostShown)
        this.result.differing.push({ table: `${schema}.${name}`, key, reason });
  }
}

/** In the order of the table's columns, as a Tombstone's key has them. */
function keyPlaces({ columns }: TableShape): number[] {
  return columns.flatMap(({ key }, i) => (key ? [i] : []));
}
