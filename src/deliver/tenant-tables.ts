/**
 * Which tables a tenant's destination may be given: those of which every version is partitioned by the same tenant column.
 * Else rows would be where nobody looks. A new version may come at any time (a table whose replica identity loses the
 * column, say), and its first records may lie in partitions that are not read: so no Window passes records of a version
 * that was not looked at. A version is registered before it has records. One for all destinations of a process.
 */
import { TidemarkError } from '../platform/errors.ts';
import { shapeOfSchema } from '../publish/avro-schema.ts';

/** What of the registry client is needed here. */
export interface TenantSchemas {
  /** The newest version of a subject, or null. */
  latest(subject: string): Promise<{ version: number } | null>;
  /** All of them. */
  versions(subject: string): Promise<{ schema: string }[]>;
}

/** Of one topic: nothing below these ends has another version than those that were looked at. */
interface LookedAt {
  /** The newest; null: there was none, and no record either. */
  version: number | null;
  ends: readonly number[];
}

export class TenantTables {
  readonly #schemas: TenantSchemas;
  readonly #lookedAt = new Map<string, LookedAt>();
  /** Topics that somebody asks the registry about: two hundred destinations come with the same question at once. */
  readonly #asking = new Map<string, Promise<void>>();

  constructor(schemas: TenantSchemas) {
    this.#schemas = schemas;
  }

  /**
   * A table that has no version yet has no record either, and is looked at again when it has some.
   * @param ends of the topic's partitions, as they have been seen: of records below them
   * @throws TidemarkError TM413, TM304
   */
  async require(topic: string, table: string, ends: readonly number[]): Promise<void> {
    for (;;) {
      const known = this.#lookedAt.get(topic)?.ends;
      if (known && ends.every((end, partition) => end <= (known[partition] ?? 0))) return;
      const asking = this.#asking.get(topic);
      if (!asking) break;
      // What it finds out may be about less than this.
      await asking.catch(() => {});
    }
    const looking = this.#look(topic, table, ends).finally(() => this.#asking.delete(topic));
    this.#asking.set(topic, looking);
    await looking;
  }

  async #look(topic: string, table: string, ends: readonly number[]): Promise<void> {
    const before = this.#lookedAt.get(topic);
    const latest = await this.#schemas.latest(`${table}-value`);
    if (latest === null && ends.some((end) => end > 0))
      throw new TidemarkError('TM304', `the registry has no schema of ${table}, which has records`);
    if (latest && before?.version !== latest.version) await this.#requireOneColumn(table);
    this.#lookedAt.set(topic, {
      version: latest?.version ?? null,
      ends: ends.map((end, partition) => Math.max(end, before?.ends[partition] ?? 0)),
    });
  }

  async #requireOneColumn(table: string): Promise<void> {
    const columns = new Set<string | null>();
    for (const { schema } of await this.#schemas.versions(`${table}-value`)) {
      const { columns: all, tenantColumn } = shapeOfSchema(schema);
      columns.add(tenantColumn === null ? null : all[tenantColumn]!.name);
    }
    if (columns.has(null)) throw noTenant(table);
    if (columns.size <= 1) return;
    throw new TidemarkError(
      'TM413',
      `${table} had the tenant in several columns: ${[...columns].join(', ')}`,
      {
        remedy: 'Its older records are partitioned otherwise: leave the table out of a tenant’s destination.',
      },
    );
  }
}

export function noTenant(table: string): TidemarkError {
  return new TidemarkError('TM413', `${table} has no tenant column in its replica identity`, {
    remedy:
      'Leave it out of the destination’s `tables`; or put the tenant column into its primary key or replica identity index (and name it in `tenant.column`), then begin a new epoch.',
  });
}
