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

/** @throws TidemarkError TM304, TM305 where schemas are registered */
export async function openFormat(
  topic: string,
  fields: TableFields,
  settings: RowSettings,
  registry: RegistryClient | null,
): Promise<RowFormat> {
  return registry ? AvroFormat.register(topic, fields, registry) : new JsonFormat(topic, fields, settings);
}
