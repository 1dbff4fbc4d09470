/**
 * A destination bound to one tenant: which partitions can hold its rows, and which records are its own. Nothing behind
 * this, the window store and the sink included, ever sees another tenant's row.
 */

import type { TableShape } from '../connector/shape.ts';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { partitionOf } from '../platform/partition.ts';
import { shapeOfSchema } from '../publish/avro-schema.ts';
import { compileEnvelopeDecoder, compileKeyDecoder } from '../publish/envelope-decoder.ts';
import type { IncomingChange } from './stored-change.ts';

/** What of the registry client is needed here. */
export interface TenantSchemas {
  schemaById(id: number): Promise<string>;
  /** All versions of a subject. */
  versions(subject: string): Promise<{ schema: string }[]>;
}

type TenantOf = (change: IncomingChange) => string | null;

export class TenantFilter {
  readonly #tenant: string;
  readonly #schemas: TenantSchemas;
  readonly #checked = new Set<string>();
  readonly #tenantOf = new Map<number, TenantOf>();

  constructor(tenant: string, schemas: TenantSchemas) {
    this.#tenant = tenant;
    this.#schemas = schemas;
  }

  /** The one partition that the tenant's rows are in. */
  partition(partitions: number): number {
    return partitionOf(Buffer.from(this.#tenant, 'utf8'), partitions);
  }

  /**
   * That every version of a table is partitioned by the same tenant column: else rows would be where nobody looks. A
   * table that has no version yet has no record either, and is looked at again when it has some.
   * @param hasRecords then it must have a version
   * @throws TidemarkError TM413, TM304
   */
  async requireTenant(topic: string, table: string, hasRecords: boolean): Promise<void> {
    if (this.#checked.has(topic)) return;
    const versions = await this.#schemas.versions(`${table}-value`);
    if (versions.length === 0) {
      if (hasRecords)
        throw new TidemarkError('TM304', `the registry has no schema of ${table}, which has records`);
      return;
    }
    const columns = new Set<string | null>();
    for (const { schema } of versions) {
      const { columns: all, tenantColumn } = shapeOfSchema(schema);
      columns.add(tenantColumn === null ? null : all[tenantColumn]!.name);
    }
    if (columns.has(null)) throw noTenant(table);
    if (columns.size > 1) {
      throw new TidemarkError(
        'TM413',
        `${table} had the tenant in several columns: ${[...columns].join(', ')}`,
        {
          remedy:
            'Its older records are partitioned otherwise: leave the table out of a tenant’s destination.',
        },
      );
    }
    this.#checked.add(topic);
  }

  /** The tenant's own Changes, and truncates, which are everybody's. @throws TidemarkError TM413, TM304 */
  async own(changes: readonly IncomingChange[]): Promise<IncomingChange[]> {
    for (const { schemaId } of changes) if (!this.#tenantOf.has(schemaId)) await this.#compile(schemaId);
    return changes.filter(
      (change) => change.truncate || this.#tenantOf.get(change.schemaId)!(change) === this.#tenant,
    );
  }

  async #compile(schemaId: number): Promise<void> {
    const schema = await this.#schemas.schemaById(schemaId);
    this.#tenantOf.set(schemaId, tenantReader(schema));
  }
}

/** From the key where the tenant is part of it, else from the row: the new one, or of a delete the old. */
function tenantReader(schema: string): TenantOf {
  const shape: TableShape = shapeOfSchema(schema);
  const { tenantColumn } = shape;
  if (tenantColumn === null) throw noTenant(tableName(shape));
  const place = shape.keyColumns.indexOf(tenantColumn);
  if (place >= 0) {
    const keyOf = compileKeyDecoder(schema);
    return ({ key }) => (key ? keyOf(key, 0)[place]! : null);
  }
  const decoder = compileEnvelopeDecoder(schema);
  return ({ value }) => {
    const { before, after } = decoder.decode(value);
    return (after ?? before)![tenantColumn] ?? null;
  };
}

function noTenant(table: string): TidemarkError {
  return new TidemarkError('TM413', `${table} has no tenant column in its replica identity`, {
    remedy:
      'Leave it out of the destination’s `tables`; or put the tenant column into its primary key or replica identity index (and name it in `tenant.column`), then begin a new epoch.',
  });
}
