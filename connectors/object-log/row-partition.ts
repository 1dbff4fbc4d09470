/** Which partition a row in the form it travels in belongs to. */
import type { CellReceiver, NativeRow } from '../../src/connector/native-row.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell } from '../../src/connector/sink.ts';
import { eventDate } from './partition.ts';

export class RowPartition {
  readonly #receivers: (CellReceiver | null)[];
  readonly #tenant: TenantReceiver | null;
  readonly #date: DateReceiver | null;

  /** @param dateColumn index of the column that dates the rows, or null */
  constructor(
    { columns, tenantColumn }: Pick<TableShape, 'columns' | 'tenantColumn'>,
    dateColumn: number | null,
  ) {
    this.#tenant = tenantColumn === null ? null : new TenantReceiver();
    this.#date = dateColumn === null ? null : new DateReceiver();
    const last = Math.max(dateColumn ?? -1, tenantColumn ?? -1);
    this.#receivers = columns
      .slice(0, last + 1)
      .map((_, i) => (i === dateColumn ? this.#date : i === tenantColumn ? this.#tenant : null));
  }

  read(row: NativeRow): void {
    if (this.#tenant ?? this.#date) row.pass(this.#receivers);
  }

  /** Of the row that was read last; as Partition.tenant. */
  get tenant(): Cell | undefined {
    return this.#tenant?.value;
  }

  /** Of the row that was read last; undefined where the commit dates it. */
  get date(): string | undefined {
    return this.#date?.value;
  }
}

/** Tenants met lately, by the low bits of a hash of their bytes: rows of all of them come mixed. */
const remembered = 256;

class TenantReceiver implements CellReceiver {
  value: Cell = null;
  readonly #bytes: (Buffer | undefined)[] = new Array(remembered);
  readonly #texts: string[] = new Array(remembered).fill('');

  nothing(): void {
    this.value = null;
  }

  text(cell: string): void {
    this.value = cell;
  }

  utf8(bytes: Buffer, start: number, end: number): void {
    let hash = end - start;
    for (let i = start; i < end; i++) hash = (Math.imul(hash, 31) + bytes[i]!) | 0;
    const place = hash & (remembered - 1);
    if (!same(this.#bytes[place], bytes, start, end)) {
      this.#bytes[place] = Buffer.from(bytes.subarray(start, end));
      this.#texts[place] = bytes.toString('utf8', start, end);
    }
    this.value = this.#texts[place]!;
  }
}

function same(known: Buffer | undefined, bytes: Buffer, start: number, end: number): boolean {
  if (known?.length !== end - start) return false;
  for (let i = 0; i < known.length; i++) if (known[i] !== bytes[start + i]) return false;
  return true;
}

const dayMicros = 86_400_000_000;

class DateReceiver implements CellReceiver {
  value = '';
  #day = Number.NaN;

  /** It is a column of the key. */
  nothing(): void {
    this.value = '';
    this.#day = Number.NaN;
  }

  text(cell: string): void {
    this.value = eventDate(cell);
    this.#day = Number.NaN;
  }

  date(days: number): void {
    if (days === this.#day) return;
    this.#day = days;
    const date = new Date(days * 86_400_000);
    // Years from 1 to 9999 print as they are; others have a sign, or are no date of JavaScript's.
    const plain = days >= -719_162 && days <= 2_932_896;
    this.value = eventDate(plain ? date.toISOString() : '');
  }

  timestamp(micros: number): void {
    this.date(Math.floor(micros / dayMicros));
  }
}
