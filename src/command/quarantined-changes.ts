/** What waits in Quarantine, decoded for a person: the one place where values are shown, because somebody asked for them. */
import type { Cell } from '../connector/sink.ts';
import type { DeadLetters } from '../deliver/quarantine/dead-letters.ts';
import type { QuarantineEntry, QuarantineLedger } from '../deliver/quarantine/quarantine-ledger.ts';
import { type FetchedRecord, headerOf } from '../platform/kafka-fetch/record-set.ts';
import type { RegistryClient } from '../platform/registry.ts';
import {
  applyHeaders,
  compileEnvelopeDecoder,
  compileKeyDecoder,
  schemaIdOf,
} from '../publish/envelope-decoder.ts';
import { header } from '../publish/record-format.ts';

export interface ShownChange {
  position: string;
  op: string;
  key: Cell[];
  /** Of the new row; of a delete the old one. Without the unchanged columns. */
  values: Record<string, Cell>;
  unchanged: string[];
}

/** @throws TidemarkError TM301, TM304, TM306, TM409 */
export async function readQuarantined(
  { id }: QuarantineEntry,
  {
    ledger,
    deadLetters,
    registry,
  }: { ledger: QuarantineLedger; deadLetters: DeadLetters; registry: RegistryClient },
): Promise<ShownChange[]> {
  const changes = await ledger.changesOf([id]);
  const shown: ShownChange[] = [];
  await deadLetters.read(
    changes.map(({ offset }) => offset),
    async (records) => {
      for (const record of records)
        if (record.value) shown.push(await decode(record, record.value, registry));
    },
  );
  return shown.sort((a, b) => (a.position < b.position ? -1 : 1));
}

async function decode(record: FetchedRecord, value: Buffer, registry: RegistryClient): Promise<ShownChange> {
  const schema = await registry.schemaById(schemaIdOf(value));
  const decoder = compileEnvelopeDecoder(schema);
  const { op, before, after } = decoder.decode(value);
  const text = (name: string) => headerOf(record, name)?.toString() ?? null;
  const row = applyHeaders(
    (op === 'd' ? before : after) ?? [],
    decoder.shape,
    text(header.unchanged),
    text(header.exact),
  );
  const columns = decoder.shape.columns.map(({ name }) => name);
  return {
    position: String(text(header.position)),
    op,
    key: record.key ? compileKeyDecoder(schema)(record.key) : [],
    values: Object.fromEntries(columns.flatMap((name, i) => (row[i] === undefined ? [] : [[name, row[i]!]]))),
    unchanged: columns.filter((_, i) => row[i] === undefined),
  };
}
