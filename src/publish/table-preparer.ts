/** Prepares tables one after the other: they share the catalogue's connection, and a subject is registered once. */

import type { TableId } from '../connector/shape.ts';
import type { Relation } from '../replicate/pgoutput.ts';
import { askSource } from '../replicate/source.ts';
import type { ParkedMessages } from './parked-messages.ts';
import type { PreparedTable } from './publisher.ts';
import {
  type PreparationContext,
  prepareParking,
  prepareRegistered,
  prepareTable,
  type StreamNotes,
} from './table-preparation.ts';

export class TablePreparer {
  readonly #context: Omit<PreparationContext, 'knownTopics' | 'binary'>;
  /** The form of the stream's values; it is decided before anything is streamed. */
  readonly #form: { textValues: boolean };
  #preparing: Promise<unknown> = Promise.resolve();

  constructor(context: Omit<PreparationContext, 'knownTopics' | 'binary'>, form: { textValues: boolean }) {
    this.#context = context;
    this.#form = form;
  }

  /** As the stream describes it. */
  prepare(knownTopics: ReadonlySet<string>, relation: Relation, notes: StreamNotes): Promise<PreparedTable> {
    const binary = !this.#form.textValues;
    return this.alone(() => prepareTable({ ...this.#context, knownTopics, binary }, relation, notes));
  }

  prepareParking(relation: Relation): Promise<ParkedMessages> {
    return this.alone(() => prepareParking(this.#context, relation));
  }

  /**
   * For rows that are read beside the stream, as the catalogue has the table; what is not binary comes as text.
   * The stream must not get on meanwhile.
   */
  prepareScan(knownTopics: ReadonlySet<string>, relation: Relation): Promise<PreparedTable> {
    return this.alone(() => this.#prepareScan(knownTopics, relation));
  }

  /**
   * As prepareScan, beside the stream.
   * @param current whether the catalogue still has it so: asked while the stream's own tables are not prepared
   * @returns null where not
   */
  prepareScanWhile(
    current: () => Promise<boolean>,
    knownTopics: ReadonlySet<string>,
    relation: Relation,
  ): Promise<PreparedTable | null> {
    return this.alone(async () => ((await current()) ? this.#prepareScan(knownTopics, relation) : null));
  }

  async #prepareScan(knownTopics: ReadonlySet<string>, relation: Relation): Promise<PreparedTable> {
    const { rows } = await askSource(
      this.#context.client,
      `select (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::text as xid`,
      [],
    );
    const notes = {
      shape: null,
      renamedFrom: null,
      xid: Number(rows[0]!.xid),
      streamed: false,
      policy: null,
    };
    return prepareTable({ ...this.#context, knownTopics, binary: false }, relation, notes);
  }

  /** As it was registered last, whatever it is by now; null where it never was. */
  prepareRegistered(knownTopics: ReadonlySet<string>, table: TableId): Promise<PreparedTable | null> {
    return this.alone(() => prepareRegistered({ ...this.#context, knownTopics }, table));
  }

  /** Nothing is prepared meanwhile. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#preparing.then(work);
    this.#preparing = done.catch(() => {});
    return done;
  }
}
