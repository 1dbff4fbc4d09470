/** Columns of a table's files, whichever schema they were written with. */
import type { DuckDBConnection } from '@duckdb/node-api';
import {
  type FieldMapping,
  nameMappingProperty,
  namesOfField,
  parseNameMapping,
} from '../spec/name-mapping.ts';
import type { BoundPartitionField } from '../spec/partition-spec.ts';
import { fieldById, type NestedField } from '../spec/schema.ts';
import { currentSchema, type TableMetadata } from '../spec/table-metadata.ts';
import type { LiveFile } from './live-file.ts';
import type { LocalCopies, ReadableStore } from './local-copies.ts';
import { type FieldColumn, selectFromFile } from './read-columns.ts';
import { boundSpec } from './table-reader.ts';

export class TableColumns {
  readonly connection: DuckDBConnection;
  readonly #store: ReadableStore;
  readonly #copies: LocalCopies;
  readonly #metadata: TableMetadata;
  readonly #mapping: readonly FieldMapping[];

  constructor(
    connection: DuckDBConnection,
    { store, metadata }: { store: ReadableStore; metadata: TableMetadata },
    copies: LocalCopies,
  ) {
    this.connection = connection;
    this.#store = store;
    this.#copies = copies;
    this.#metadata = metadata;
    const mapping = metadata.properties[nameMappingProperty];
    this.#mapping = mapping === undefined ? [] : parseNameMapping(mapping);
  }

  /** Also of a column that was dropped. */
  field(id: number): NestedField | undefined {
    const newestFirst = [...this.#metadata.schemas].reverse();
    for (const schema of [currentSchema(this.#metadata), ...newestFirst]) {
      const field = fieldById(schema, id);
      if (field) return field;
    }
    return undefined;
  }

  partitionFields({ specId }: LiveFile): BoundPartitionField[] {
    return boundSpec(this.#metadata, specId);
  }

  /** A path of this machine with the file. */
  whole(file: LiveFile): Promise<string> {
    return this.#copies.whole(this.#store, file);
  }

  /** SQL of a live file's columns and positions (read-columns.ts). */
  async select(file: LiveFile, wanted: readonly FieldColumn[]): Promise<string> {
    const ids = new Set(wanted.map(({ id }) => id));
    const names = new Set([...ids].flatMap((id) => namesOfField(this.#mapping, id)));
    const localPath = await this.#copies.columns(this.#store, this.connection, file, { ids, names });
    const { partition } = file;
    const fields = this.partitionFields(file);
    return selectFromFile(this.connection, { localPath, partition, fields }, wanted, this.#mapping);
  }
}
