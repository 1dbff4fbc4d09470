/**
 * A destination bound to one tenant: which partitions can hold its rows, and which records are its own. Nothing behind
 * this, the window store and the sink included, ever sees another tenant's row.
 */

import type { TableShape } from '../connector/shape.ts';
import { tableName } from '../connector/shape.ts';
import { partitionOf } from '../platform/partition.ts';
import { shapeOfSchema } from '../publish/avro-schema.ts';
import { compileEnvelopeDecoder, compileKeyDecoder } from '../publish/envelope-decoder.ts';
import type { SchemaSource } from './row-schemas.ts';
import type { IncomingChange } from './stored-change.ts';
import { noTenant } from './tenant-tables.ts';

interface TenantReader {
  of(change: IncomingChange): string | null;
  /** Null where a key does not say whose it is. */
  ofKey: ((key: Buffer) => string | null) | null;
}

export class TenantFilter {
  readonly #tenant: string;
  readonly #schemas: SchemaSource;
  readonly #readers = new Map<number, TenantReader>();

  constructor(tenant: string, schemas: SchemaSource) {
    this.#tenant = tenant;
    this.#schemas = schemas;
  }

  /** The one partition that the tenant's rows are in. */
  partition(partitions: number): number {
    return partitionOf(Buffer.from(this.#tenant, 'utf8'), partitions);
  }

  /** The tenant's own Changes, and truncates, which are everybody's. @throws TidemarkError TM413, TM304 */
  async own(changes: readonly IncomingChange[]): Promise<IncomingChange[]> {
    for (const { schemaId } of changes) if (!this.#readers.has(schemaId)) await this.#compile(schemaId);
    const own: IncomingChange[] = [];
    for (const change of changes) {
      const { of, ofKey } = this.#readers.get(change.schemaId)!;
      if (!change.truncate && of(change) !== this.#tenant) continue;
      // Whose it was before, and which row of theirs, is not this tenant's to know.
      const isForeign = change.oldKey && ofKey && ofKey(change.oldKey) !== this.#tenant;
      own.push(isForeign ? { ...change, oldKey: null, oldKeyEnd: null } : change);
    }
    return own;
  }

  async #compile(schemaId: number): Promise<void> {
    const schema = await this.#schemas.schemaById(schemaId);
    this.#readers.set(schemaId, tenantReader(schema));
  }
}

/** From the key where the tenant is part of it, else from the row: the new one, or of a delete the old. */
function tenantReader(schema: string): TenantReader {
  const shape: TableShape = shapeOfSchema(schema);
  const { tenantColumn } = shape;
  if (tenantColumn === null) throw noTenant(tableName(shape));
  const place = shape.keyColumns.indexOf(tenantColumn);
  if (place >= 0) {
    const keyOf = compileKeyDecoder(schema);
    const ofKey = (key: Buffer) => keyOf(key, 0)[place]!;
    return { of: ({ key }) => key && ofKey(key), ofKey };
  }
  const decoder = compileEnvelopeDecoder(schema);
  return {
    of({ value }) {
      const { before, after } = decoder.decode(value);
      return (after ?? before)![tenantColumn] ?? null;
    },
    ofKey: null,
  };
}
