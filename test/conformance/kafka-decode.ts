/** The mirror's Avro records back to Postgres' text, by what their schemas say: avsc and the registry, nothing of the sink. */
import avro from 'avsc';
import { postgresFloat } from '../../connectors/sinks/parquet/postgres-float.ts';
import type { Cell } from '../../src/connector/sink.ts';

export interface ShapeColumn {
  name: string;
  type: string;
  number?: number;
  missing?: string;
}

export interface Decoded {
  /** Null for keys. */
  columns: ShapeColumn[] | null;
  oid: number | undefined;
  /** By Avro field. */
  fields: string[];
  cells: Cell[];
}

interface FieldSchema {
  name: string;
  type: unknown;
}

interface RecordSchema {
  fields: FieldSchema[];
  tidemark?: { oid?: number; columns: ShapeColumn[] };
}

const longs = avro.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: () => Buffer.alloc(8),
  fromJSON: BigInt,
  toJSON: String,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: () => 0,
});

export class Decoder {
  readonly #registry: string;
  readonly #schemas = new Map<number, Promise<{ type: avro.Type; schema: RecordSchema }>>();

  constructor(registry: string) {
    this.#registry = registry;
  }

  async decode(bytes: Buffer): Promise<Decoded> {
    if (bytes[0] !== 0) throw new Error('not in the wire format of the registry');
    const id = bytes.readInt32BE(1);
    let found = this.#schemas.get(id);
    if (!found) {
      found = this.#fetch(id);
      this.#schemas.set(id, found);
    }
    const { type, schema } = await found;
    const record = type.fromBuffer(bytes.subarray(5)) as Record<string, unknown>;
    return {
      columns: schema.tidemark?.columns ?? null,
      oid: schema.tidemark?.oid,
      fields: schema.fields.map(({ name }) => name),
      cells: schema.fields.map((field, i) =>
        textOf(unwrapped(record[field.name]), field.type, schema.tidemark?.columns[i]?.type),
      ),
    };
  }

  async #fetch(id: number): Promise<{ type: avro.Type; schema: RecordSchema }> {
    const response = await fetch(`${this.#registry}/schemas/ids/${id}`);
    if (!response.ok) throw new Error(`the registry answers ${response.status} for schema ${id}`);
    const schema = JSON.parse(((await response.json()) as { schema: string }).schema) as RecordSchema;
    const type = avro.Type.forSchema(schema as unknown as avro.Schema, {
      registry: { long: longs },
      wrapUnions: 'always',
    });
    return { type, schema };
  }
}

/** `{ string: 'x' }` of a union. */
function unwrapped(value: unknown): unknown {
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return value;
  return Object.values(value)[0];
}

function textOf(value: unknown, schema: unknown, postgres = ''): Cell {
  if (value === null || value === undefined) return null;
  const own = Array.isArray(schema) ? schema[1] : schema;
  const { type, logicalType, scale } =
    typeof own === 'string' ? { type: own, logicalType: '', scale: 0 } : (own as Record<string, never>);
  if (logicalType === 'decimal') return decimalText(value as Buffer, Number(scale));
  if (logicalType === 'date') return dateText(value as number);
  if (logicalType === 'timestamp-millis') {
    const millis = Number(value);
    const days = Math.floor(millis / 86_400_000);
    const [date, bc = ''] = dateText(days).split(/(?= BC)/);
    const time = new Date(millis - days * 86_400_000)
      .toISOString()
      .slice(11, 23)
      .replace(/\.?0+$/, '');
    return `${date} ${time}${postgres.includes('with time zone') ? '+00' : ''}${bc}`;
  }
  if (type === 'boolean') return value ? 't' : 'f';
  if (type === 'bytes') return `\\x${(value as Buffer).toString('hex')}`;
  if (type === 'float') return postgresFloat(value as number, 'real');
  if (type === 'double') return postgresFloat(value as number, 'double');
  return String(value);
}

function decimalText(bytes: Buffer, scale: number): string {
  const value = BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`));
  const digits = (value < 0n ? -value : value).toString().padStart(scale + 1, '0');
  const text = scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
  return value < 0n ? `-${text}` : text;
}

/** The algorithm is its own: JavaScript's dates end where Postgres' go on. */
function dateText(days: number): string {
  let rest = days + 719_468;
  const era = Math.floor(rest / 146_097);
  rest -= era * 146_097;
  const yearOfEra = Math.floor(
    (rest - Math.floor(rest / 1460) + Math.floor(rest / 36_524) - Math.floor(rest / 146_096)) / 365,
  );
  const dayOfYear = rest - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shifted = Math.floor((5 * dayOfYear + 2) / 153);
  const day = dayOfYear - Math.floor((153 * shifted + 2) / 5) + 1;
  const month = shifted < 10 ? shifted + 3 : shifted - 9;
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  const two = (n: number) => String(n).padStart(2, '0');
  const text = `${String(year > 0 ? year : 1 - year).padStart(4, '0')}-${two(month)}-${two(day)}`;
  return year > 0 ? text : `${text} BC`;
}
