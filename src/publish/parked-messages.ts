/**
 * Raw messages of a parked table without what must not leave Postgres. In place of a withheld value stands kind `p`
 * (valueKind.withheld), a length and a label, followed, where the policy lets a text out, by a zero byte and that text.
 * A message without withheld values is the same byte for byte, and Relation and Truncate carry no values at all.
 */
import { isProtecting } from '../platform/column-policy.ts';
import type { ColumnPolicy, SourceConfig } from '../platform/resolved-config.ts';
import { tenantColumnOf } from '../replicate/catalogue.ts';
import { noteWithoutValues } from '../replicate/column-origins.ts';
import { ColumnProtector, protectionLabel, protectionOf } from '../replicate/column-protection.ts';
import { type Relation, Tuple, valueKind } from '../replicate/pgoutput.ts';
import type { BinaryText } from './types/codec.ts';

/** Label of a value that does not leave Postgres in any form. */
export const droppedLabel = 'drop';

/** @returns the text to let out, or null to let nothing out */
type Withhold = (text: string | null, tenant: string | null) => string | null;

export interface ParkedColumn {
  type: string;
  policy: ColumnPolicy;
  /** Postgres' own text of a binary value; null where its form is not known. */
  text: BinaryText | null;
}

export class ParkedMessages {
  /** Per column of the relation; null where the value is kept. */
  readonly #withheld: ({ label: string; text: Withhold } | null)[];
  /** Index of the column that salts hashes. */
  readonly #tenant: number | null;
  /** Texts of binary values, per column. */
  readonly #texts: (BinaryText | null)[];
  readonly #tuple = new Tuple();

  /** @param columns of the relation, in order */
  constructor(source: SourceConfig, relation: Relation, columns: readonly ParkedColumn[]) {
    const protector = new ColumnProtector(source.hashKey);
    const unsalted = () => this.#tenant !== null && this.#texts[this.#tenant] === null;
    this.#texts = columns.map(({ text }) => text);
    this.#withheld = columns.map(({ policy, type }) => {
      if (policy === 'keep') return null;
      if (!isProtecting(policy)) return { label: droppedLabel, text: () => null };
      return {
        label: protectionLabel(protectionOf(policy, type, source.hashKey)),
        text(text, tenant) {
          // Where nobody knows the value's text, or its salt, the bytes must not go out.
          if (text === null || (policy === 'hash' && unsalted())) return null;
          return protector.protect(policy, text, tenant);
        },
      };
    });
    const name = tenantColumnOf(source, relation);
    const index = relation.columns.findIndex((column) => column.name === name && column.identity);
    this.#tenant = index >= 0 && columns[index]!.policy === 'keep' ? index : null;
  }

  /** Columns with values to withhold. */
  get any(): boolean {
    return this.#withheld.some((column) => column !== null);
  }

  /** A copy of an Insert, Update or Delete; anything else has no values. */
  withhold(raw: Buffer): Buffer {
    const type = raw[0];
    if (!this.any || (type !== 0x49 && type !== 0x55 && type !== 0x44)) return Buffer.from(raw);
    const parts = [raw.subarray(0, 5)];
    let tenant: string | null = null;
    // Each tuple follows a byte that says which it is.
    for (let at = 5; at < raw.length; ) {
      parts.push(raw.subarray(at, at + 1));
      at = this.#tuple.read(raw, at + 1);
      tenant = this.#tenantOf(this.#tuple, tenant);
      this.#tupleParts(this.#tuple, tenant, parts);
    }
    return Buffer.concat(parts);
  }

  #tupleParts(tuple: Tuple, tenant: string | null, parts: Buffer[]): void {
    const { bytes, count, kinds, starts, ends } = tuple;
    const head = Buffer.alloc(2);
    head.writeUInt16BE(count);
    parts.push(head);
    for (let i = 0; i < count; i++) {
      const kind = kinds[i]!;
      const start = starts[i]!;
      const end = ends[i]!;
      const withheld = this.#withheld[i];
      if (kind === valueKind.null || kind === valueKind.unchanged) parts.push(Buffer.of(kind));
      // The kind and the length before a value are part of it.
      else if (!withheld) parts.push(bytes.subarray(start - 5, end));
      else {
        const text = withheld.text(this.#textOf(tuple, i), tenant);
        parts.push(withheldValue(text === null ? droppedLabel : `${withheld.label}\0${text}`));
      }
    }
  }

  /** @param before tenant of the old row, which an unchanged TOAST value repeats */
  #tenantOf(tuple: Tuple, before: string | null): string | null {
    const at = this.#tenant;
    if (at === null || tuple.kinds[at] === valueKind.null) return null;
    return this.#textOf(tuple, at) ?? before;
  }

  #textOf({ bytes, kinds, starts, ends }: Tuple, at: number): string | null {
    const kind = kinds[at];
    if (kind === valueKind.text) return bytes.toString('utf8', starts[at]!, ends[at]!);
    return kind === valueKind.binary ? (this.#texts[at]?.(bytes, starts[at]!, ends[at]!) ?? null) : null;
  }
}

/** A shape note (pgoutput M) as it is parked. */
export function parkedNote(raw: Buffer, content: Buffer): Buffer {
  const bare = noteWithoutValues(content);
  const head = Buffer.from(raw.subarray(0, raw.length - content.length));
  head.writeUInt32BE(bare.length, head.length - 4);
  return Buffer.concat([head, bare]);
}

function withheldValue(content: string): Buffer {
  const length = Buffer.byteLength(content);
  const value = Buffer.alloc(5 + length);
  value[0] = valueKind.withheld;
  value.writeInt32BE(length, 1);
  value.write(content, 5, 'utf8');
  return value;
}

/** What a withheld value lets out; null: nothing. */
export function readWithheld(
  bytes: Buffer,
  start: number,
  end: number,
): { label: string; text: string | null } {
  const zero = bytes.subarray(start, end).indexOf(0);
  if (zero < 0) return { label: bytes.toString('utf8', start, end), text: null };
  return {
    label: bytes.toString('utf8', start, start + zero),
    text: bytes.toString('utf8', start + zero + 1, end),
  };
}
