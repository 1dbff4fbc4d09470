/**
 * What the conformance suite needs to know of a kind of sink, and of the real server it writes to. One file per kind
 * beside this one; the behaviours are in suite.ts and the same for all.
 */

import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, OptionValues, Row, RowEvent, SinkKind } from '../../src/connector/sink.ts';
import type { ErrorCode } from '../../src/platform/errors.ts';

export interface Subject {
  kind: SinkKind;
  /** Where one kind has several subjects: which this is. */
  name?: string;
  /** What opening one gives. */
  mode: 'merge' | 'append' | 'send';
  /** Starts the server, once per file. */
  start(folder: string): Promise<SubjectServer>;
  /**
   * Behaviours that this kind cannot have, with the code that it refuses them with: the suite asserts the refusal. What
   * is not here must work.
   */
  refuses: Partial<Record<Behaviour, ErrorCode>>;
  /**
   * Circumstances that this server cannot be brought into, with the words by which the kind's README says that they are not
   * proven: the suite looks for them there.
   */
  unproven?: Partial<Record<Circumstance, string>>;
  /** Where it is not in the kind's own folder. */
  readme?: string;
  /** Failpoints that the sink passes on the way through a Window, in order; each is a place to crash in. */
  failpoints: readonly string[];
  /**
   * A row that the destination cannot take, for `RefusedRows`; null where it takes whatever Postgres can hold. Its key is
   * of an integer or text type, and with NULL in every other column it would be taken.
   */
  refusedRow: { shape: TableShape; values: Row } | null;
  /** Rows of the largest Window; 200,000 where not given. Fewer where every row costs a request. */
  manyRows?: number;
  /**
   * Another subject of the kind differs in where objects are kept alone: that one has the cases whose work is over before
   * anything is stored (rows, TOAST, shapes, values).
   */
  storageOnly?: boolean;
  /** Random schedules; 12 where not given, other ones each time. Fewer where another subject of the kind has them. */
  schedules?: number;
}

/** Behaviours that a destination's nature may rule out. */
export type Behaviour = 'key-definition-change' | 'read-back' | 'keyless' | 'many-columns' | 'large-row';

export type Circumstance = 'refused credentials' | 'throttling' | 'no room';

export interface SubjectServer {
  /** A place that no other case has seen. */
  place(): Promise<Place>;
  stop(): Promise<void>;
  /** The server does not answer for as long as the work takes. */
  whileDown(work: () => Promise<void>): Promise<void>;
}

export interface Place {
  /** Of the instance file. */
  options: OptionValues;
  /** The same place with credentials that the server refuses; absent where that is unproven. */
  refusedOptions?: OptionValues;
  /**
   * What a stranger with the destination's usual client sees: never through the sink. Cells as Postgres prints them; a
   * cell that the destination can only hold in another spelling is brought to Postgres' own.
   */
  rows(shape: TableShape): Promise<Row[]>;
  /** Of sinks that keep or pass on every Change, in the order in which a reader would see them. */
  events?(shape: TableShape): Promise<SeenEvent[]>;
  /** The server asks to be left alone, for as long as the work takes; absent where that is unproven. */
  whileThrottled?(work: () => Promise<void>): Promise<void>;
  /** There is no room left, for as long as the work takes; absent where that is unproven. */
  whileFull?(work: () => Promise<void>): Promise<void>;
}

export interface SeenEvent {
  op: RowEvent['op'];
  position: string;
  key: Cell[];
  /** Of those columns that the event carries, by their name then; not of a TOASTed one that the change left untouched. */
  values: Readonly<Record<string, Cell>>;
  /** Of kinds that send: what it names itself by, the same each time it is sent. */
  identity?: string;
}
