/** Rows passed to receivers that take every form, as the cells that these forms are. */
import type { CellReceiver } from '../../src/connector/native-row.ts';
import type { Cell } from '../../src/connector/sink.ts';
import type { EnvelopeDecoder } from '../../src/publish/envelope-decoder.ts';

/** What a receiver was given, as the cell of a column of this type. */
class Told implements CellReceiver {
  cell: Cell | undefined;

  nothing(): void {
    this.cell = null;
  }

  text(cell: string): void {
    this.cell = cell;
  }
}

class ToldAll extends Told {
  readonly #zone: string;

  constructor(type: string) {
    super();
    this.#zone = /with time zone/.test(type) ? '+00' : '';
  }

  boolean(value: boolean): void {
    this.cell = value ? 't' : 'f';
  }

  integer(value: number): void {
    this.cell = String(value);
  }

  decimal(value: number, scale: number): void {
    const digits = String(Math.abs(value)).padStart(scale + 1, '0');
    const whole = digits.slice(0, digits.length - scale);
    this.cell = `${value < 0 ? '-' : ''}${whole}${scale > 0 ? `.${digits.slice(-scale)}` : ''}`;
  }

  date(days: number): void {
    this.cell = dateText(days);
  }

  time(micros: number): void {
    this.cell = clock(micros);
  }

  timestamp(micros: number): void {
    const days = Math.floor(micros / 86_400_000_000);
    const date = dateText(days).split(' BC');
    this.cell = `${date[0]} ${clock(micros - days * 86_400_000_000)}${this.#zone}${date.length > 1 ? ' BC' : ''}`;
  }

  utf8(bytes: Buffer, start: number, end: number): void {
    this.cell = bytes.toString('utf8', start, end);
  }

  binary(bytes: Buffer, start: number, end: number): void {
    this.cell = `\\x${bytes.toString('hex', start, end)}`;
  }
}

function dateText(days: number): string {
  // JavaScript's dates end in the year 275760: the calendar repeats after 400 years.
  const eras = Math.floor(days / 146_097);
  const date = new Date((days - eras * 146_097) * 86_400_000);
  const year = date.getUTCFullYear() + eras * 400;
  const shown = String(year > 0 ? year : 1 - year).padStart(4, '0');
  return `${shown}${date.toISOString().slice(-20, -14)}${year > 0 ? '' : ' BC'}`;
}

function clock(micros: number): string {
  const two = (n: number) => String(n).padStart(2, '0');
  const seconds = Math.floor(micros / 1_000_000);
  const fraction = String(micros % 1_000_000)
    .padStart(6, '0')
    .replace(/0+$/, '');
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}${fraction && `.${fraction}`}`;
}

/** The row at `at` as the receivers of every form, of text alone, and of every other column have it. */
export function passedCells(decoder: EnvelopeDecoder, value: Buffer, at: number) {
  const { columns } = decoder.shape;
  const end = decoder.rowEnd(value, at);
  const read = (make: (type: string) => Told, some = (_: number) => true) => {
    const told = columns.map(({ base, type }, i) => (some(i) ? make(base ?? type) : null));
    if (decoder.pass(value, at, told) !== end) throw new Error('a row ends in two places');
    return told.map((each) => each?.cell);
  };
  return {
    all: read((type) => new ToldAll(type)),
    texts: read(() => new Told()),
    even: read(
      (type) => new ToldAll(type),
      (i) => i % 2 === 0,
    ),
  };
}
