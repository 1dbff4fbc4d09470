/** The live view: from a state to the lines of one frame. */
import type { Position } from '../connector/position.ts';
import type { Notice } from './notices.ts';
import { drawPicture, narrowestPicture, type Picture } from './picture.ts';
import type { Failure } from './pipeline.ts';
import {
  clock,
  cut,
  exactly,
  grouped,
  milliseconds,
  seconds,
  shortCommit,
  shortPosition,
  size,
  sparkline,
} from './text.ts';

export interface DestinationView {
  name: string;
  /** For people: `Postgres`, `Parquet files`. */
  kind: string;
  /** For people: `every commit at once`, `every 5 s`. */
  rhythm: string;
  /** Age of the oldest commit that may not be readable yet; null before the first Window. */
  lagSeconds: number | null;
  /** WAL between the mark and the source's end. */
  lagBytes: number | null;
  windows: number;
  rows: number;
  p50Ms: number | null;
  p99Ms: number | null;
  receipt: { position: Position; rows: number; commitId: string; secondsAgo: number } | null;
  marks: { unit: string; position: Position | null }[];
  error: Failure | null;
}

export interface ViewState {
  seconds: number;
  /** Whole seconds, oldest first. */
  commitsPerSecond: readonly number[];
  rowsPerSecond: number;
  transactions: number;
  source: { tables: number; lsn: string | null; retainedBytes: number | null };
  kafka: {
    lagSeconds: number | null;
    lagBytes: number | null;
    records: number;
    bytes: number;
    /** Of the rows that were there before the stream; null: they are all in Kafka. */
    snapshot: { rows: number; total: number } | null;
  };
  destinations: DestinationView[];
  /** Rows that left the source once every destination had them; null: none may. */
  letGo: { table: string; rows: number } | null;
  memoryBytes: number;
  /** Of the pipeline's log, while it is news. */
  notice: Notice | null;
  /** Something about the demo itself. */
  remark: string | null;
  tryNext: readonly string[];
}

export interface Screen {
  columns: number;
  rows: number;
  colour: boolean;
}

type Paint = (text: string) => string;

interface Paints {
  bold: Paint;
  title: Paint;
  good: Paint;
  bad: Paint;
  faint: Paint;
}

/** @returns at most `rows` lines of at most `columns` characters: what does not fit is left out from the least important */
export function renderView(state: ViewState, { columns, rows, colour }: Screen): string[] {
  const code = (number: number) => (text: string) => (colour ? `\u001b[${number}m${text}\u001b[0m` : text);
  const paints = { bold: code(1), title: code(36), good: code(32), bad: code(31), faint: code(2) };
  const picture = pictureOf(state);
  const flow =
    columns >= narrowestPicture
      ? drawPicture(picture, columns, paints.title)
      : drawList(picture, columns, paints);
  const sections = [
    { lines: header(state, columns, paints), rank: 0 },
    { lines: flow, rank: 0 },
    { lines: problems(state, columns, paints), rank: 0 },
    { lines: receipts(state, columns, paints), rank: 1 },
    { lines: letGo(state), rank: 1 },
    { lines: marks(state, columns, paints), rank: 3 },
    { lines: tryNext(state, columns, paints), rank: 2 },
  ].filter(({ lines }) => lines.length > 0);
  // Rank by rank as far as the room goes; the blank lines between sections are the first to go.
  const height = (chosen: typeof sections) => chosen.reduce((sum, { lines }) => sum + lines.length, 0);
  let shown = sections.filter(({ rank }) => rank === 0);
  for (const rank of [1, 2, 3]) {
    const more = sections.filter((section) => shown.includes(section) || section.rank === rank);
    if (height(more) <= rows) shown = more;
  }
  const airy = height(shown) + shown.length - 1 <= rows;
  const lines = shown.flatMap((section, i) => (airy && i > 0 ? ['', ...section.lines] : section.lines));
  return lines.slice(0, rows).map((line) => cut(line, columns));
}

function header(state: ViewState, columns: number, { bold, faint }: Paints): string[] {
  const left = `Tidemark demo  ${clock(state.seconds)}`;
  const facts = `${grouped(state.transactions)} transactions  ${size(state.memoryBytes)} memory`;
  const right = 'Ctrl+C ends it';
  const room = columns - left.length - facts.length - right.length - 4;
  if (room < 0) return [` ${bold(left)}  ${faint(right)}`];
  return [` ${bold(left)}  ${facts}${' '.repeat(room)} ${faint(right)}`];
}

function pictureOf(state: ViewState): Picture {
  const { source, kafka, commitsPerSecond, rowsPerSecond } = state;
  const rate = commitsPerSecond.at(-1) ?? 0;
  return {
    source: {
      title: 'Postgres',
      lines: [
        `${sparkline(commitsPerSecond.slice(-18))}`,
        `${grouped(rate)} commits/s`,
        `${grouped(rowsPerSecond)} rows/s`,
        `${source.tables} tables`,
        `WAL at ${source.lsn ?? '…'}`,
        `slot: ${source.retainedBytes === null ? '…' : `${size(source.retainedBytes)} WAL`}`,
      ],
    },
    kafka: {
      title: 'Kafka',
      lines: [
        behind(kafka.lagSeconds),
        `${kafka.lagBytes === null ? '…' : size(kafka.lagBytes)} of WAL`,
        kafka.snapshot ? snapshotBar(kafka.snapshot) : '',
        `${grouped(kafka.records)} records`,
        `${size(kafka.bytes)} of Avro`,
      ],
    },
    destinations: state.destinations.map(({ name, kind, rhythm, lagSeconds, lagBytes, error }) => ({
      title: `${name}: ${kind}`,
      lines: [
        error ? `✗ ${error.code}` : behind(lagSeconds),
        `${lagBytes === null ? '…' : size(lagBytes)} of WAL`,
        rhythm,
      ],
    })),
  };
}

function snapshotBar({ rows, total }: { rows: number; total: number }): string {
  const fraction = total === 0 ? 0 : Math.min(0.99, rows / total);
  const filled = Math.floor(fraction * 6);
  return `rows ${'█'.repeat(filled)}${'░'.repeat(6 - filled)} ${Math.floor(fraction * 100)} %`;
}

function behind(lag: number | null): string {
  return lag === null ? 'starting' : `${seconds(lag)} behind`;
}

/** The same flow for narrow terminals: top to bottom. */
function drawList({ source, kafka, destinations }: Picture, columns: number, { title }: Paints): string[] {
  const about = (lines: string[]) => lines.filter((line) => line !== '');
  const width = Math.max(...destinations.map((box) => box.title.length), 8);
  return [
    ` ${title(source.title)}  ${about(source.lines).slice(0, 3).join('  ')}`,
    ' │ WAL',
    ` ${title(kafka.title)}  ${about(kafka.lines).slice(0, 2).join(', ')}`,
    ...destinations.map((box, i) => {
      const corner = i === destinations.length - 1 ? '└' : '├';
      return ` ${corner}▶ ${title(exactly(box.title, width))}  ${box.lines.slice(0, 2).join(', ')}`;
    }),
  ].map((line) => cut(line, columns));
}

function problems({ destinations, notice, remark }: ViewState, columns: number, paints: Paints): string[] {
  const { bad, bold } = paints;
  const lines: string[] = [];
  for (const { name, error } of destinations) {
    if (!error) continue;
    lines.push(bad(cut(` ${name}: ${error.code}: ${error.message}`, columns)), ` → ${error.remedy}`);
  }
  if (lines.length === 0 && notice) {
    lines.push(bad(cut(` ${notice.code ? `${notice.code}: ` : ''}${notice.message}`, columns)));
    if (notice.remedy) lines.push(` → ${notice.remedy}`);
  }
  if (remark) lines.push(bold(cut(` ${remark}`, columns)));
  return lines;
}

function receipts({ destinations }: ViewState, columns: number, { faint }: Paints): string[] {
  const wide = columns >= narrowestPicture;
  const name = Math.max(...destinations.map((destination) => destination.name.length));
  const cells = (values: string[]) => values.map((value, i) => value.padStart([7, 8, 6, 6][i]!)).join(' ');
  const heads = wide ? ['Windows', 'rows', 'p50', 'p99'] : ['Windows', 'rows'];
  const head = ` ${''.padEnd(name)} ${cells(heads)}  last Receipt`;
  return [
    faint(head),
    ...destinations.map(({ receipt, ...destination }) => {
      const { windows, rows, p50Ms, p99Ms } = destination;
      const counts = [grouped(windows), grouped(rows), milliseconds(p50Ms), milliseconds(p99Ms)];
      const last = receipt
        ? `${grouped(receipt.rows)} rows to ${shortPosition(receipt.position)}, ${shortCommit(receipt.commitId)}, ${Math.floor(receipt.secondsAgo)} s ago`
        : '–';
      return ` ${destination.name.padEnd(name)} ${cells(counts.slice(0, heads.length))}  ${last}`;
    }),
    ...(wide
      ? [faint(' p50 and p99: from commit to readable, over the transactions of the last minute')]
      : []),
  ];
}

function letGo({ letGo: gone }: ViewState): string[] {
  if (!gone) return [];
  return [` Cold storage: ${grouped(gone.rows)} rows of ${gone.table} left Postgres on proof of delivery`];
}

function marks({ destinations }: ViewState, columns: number, { faint }: Paints): string[] {
  const lines: string[] = [];
  for (const { name, marks: units } of destinations) {
    const cells = units.map(
      ({ unit, position }) =>
        `${unit === '*' ? 'all tables' : unit.slice(unit.indexOf('.') + 1)} ${position ? shortPosition(position) : '…'}`,
    );
    const width = Math.max(0, ...cells.map((cell) => cell.length)) + 2;
    const label = Math.max(...destinations.map((destination) => destination.name.length)) + 3;
    const perLine = Math.max(1, Math.floor((columns - label) / width));
    for (let i = 0; i < cells.length; i += perLine) {
      const row = cells.slice(i, i + perLine).map((cell) => cell.padEnd(width));
      lines.push(` ${(i === 0 ? name : '').padEnd(label - 1)}${row.join('').trimEnd()}`);
    }
  }
  return lines.length > 0 ? [faint(' High-water marks: everything up to here is delivered'), ...lines] : [];
}

/** Commands are to be copied whole: those that do not fit are left out, the list of all is printed at the start. */
function tryNext({ tryNext: commands }: ViewState, columns: number, { faint, good }: Paints): string[] {
  const fitting = commands.filter((command) => command.length + 2 <= columns);
  return fitting.length > 0
    ? [faint(' Try next, in another terminal'), ...fitting.map((command) => `  ${good(command)}`)]
    : [];
}

/** One line, for an output that is no terminal. */
export function renderLine(state: ViewState): string {
  const parts = state.destinations.map(({ name, lagSeconds, lagBytes, windows, error }) =>
    error
      ? `${name} ${error.code}`
      : `${name} ${behind(lagSeconds)}${lagBytes === null ? '' : ` (${size(lagBytes)})`}, ${grouped(windows)} Windows`,
  );
  const { kafka, commitsPerSecond, rowsPerSecond } = state;
  const source = `${commitsPerSecond.at(-1) ?? 0} commits/s, ${rowsPerSecond} rows/s`;
  const snapshot = kafka.snapshot ? `, ${snapshotBar(kafka.snapshot)}` : '';
  const inKafka = `Kafka ${behind(kafka.lagSeconds)}${kafka.lagBytes === null ? '' : ` (${size(kafka.lagBytes)})`}${snapshot}`;
  return [clock(state.seconds), source, inKafka, ...parts, size(state.memoryBytes)].join(' | ');
}
