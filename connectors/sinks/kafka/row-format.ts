/** What a table's records are made with, whatever the format. */
import type { Cell, PartialRow } from '../../../src/connector/sink.ts';
import { AvroFormat } from './avro-format.ts';
import type { TableFields } from './fields.ts';
import { JsonFormat } from './json-format.ts';
import type { RegistryClient } from './registry-client.ts';
import type { RowSettings } from './settings.ts';

export interface RowFormat {
  /** @returns null for a table without a key */
  key(cells: readonly Cell[]): Buffer | null;
  /**
   * @param cells `undefined`: left untouched, as `unchanged` says
   * @param metadata in the order of TableFields.metadata; null where it does not apply
   */
  value(cells: PartialRow, metadata: readonly Cell[]): Buffer;
}

/** The last one of each topic: a Window asks the registry only where a table's shape is another one. */
export class FormatCache {
  readonly #settings: RowSettings;
  readonly #registry: RegistryClient | null;
  readonly #open = new Map<string, { signature: string; format: RowFormat }>();

  constructor(settings: RowSettings, registry: RegistryClient | null) {
    this.#settings = settings;
    this.#registry = registry;
  }

  /** @throws TidemarkError TM304, TM305 where schemas are registered */
  async of(topic: string, fields: TableFields): Promise<RowFormat> {
    const signature = JSON.stringify([fields.shape, fields.key]);
    const found = this.#open.get(topic);
    if (found?.signature === signature) return found.format;
    const format = this.#registry
      ? await AvroFormat.register(topic, fields, this.#registry)
      : new JsonFormat(topic, fields, this.#settings);
    this.#open.set(topic, { signature, format });
    return format;
  }
}
