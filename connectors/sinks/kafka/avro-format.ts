/** Records in Avro, in the registry's wire format: a zero byte, the schema's id, the value. */
import avro from 'avsc';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { Cell, PartialRow } from '../../../src/connector/sink.ts';
import { type AvroRecord, keySchema, valueSchema } from './avro-schema.ts';
import type { TableFields } from './fields.ts';
import {
  bytesOf,
  daysOf,
  decimalBytes,
  type Form,
  isTrue,
  millisOf,
  placeholder,
  unscaled,
} from './forms.ts';
import type { RegistryClient } from './registry-client.ts';
import type { RowFormat } from './row-format.ts';

const prefixBytes = 5;
const firstBytes = 16 << 10;
const keptBytes = 1 << 20;

/** All 64 bits, which JavaScript's numbers do not have. */
const longs = avro.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return bytes;
  },
  fromJSON: BigInt,
  toJSON: Number,
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (a: bigint, b: bigint) => (a === b ? 0 : a < b ? -1 : 1),
});

type AvroBranch = Readonly<Record<string, AvroValue>> | null;
type AvroValue = boolean | number | bigint | string | Buffer | null;

export class AvroFormat implements RowFormat {
  readonly #forms: Form[];
  readonly #names: string[];
  readonly #value: WireWriter;
  readonly #key: { forms: Form[]; names: string[]; writer: WireWriter } | null;

  private constructor(
    forms: Form[],
    names: string[],
    value: WireWriter,
    key: { forms: Form[]; names: string[]; writer: WireWriter } | null,
  ) {
    this.#forms = forms;
    this.#names = names;
    this.#value = value;
    this.#key = key;
  }

  /** Subjects are named by topic. @throws TidemarkError TM304, TM305 */
  static async register(topic: string, fields: TableFields, registry: RegistryClient): Promise<AvroFormat> {
    const value = valueSchema(topic, fields);
    const forms = [...fields.columns, ...fields.metadata].map(({ form }) => form);
    const valueWriter = await writerOf(`${topic}-value`, value, registry);
    if (fields.key === null) return new AvroFormat(forms, value.names, valueWriter, null);
    const key = keySchema(topic, fields.key);
    return new AvroFormat(forms, value.names, valueWriter, {
      forms: fields.key.map(({ kind }) => ({ kind }) as Form),
      names: key.names,
      writer: await writerOf(`${topic}-key`, key, registry),
    });
  }

  key(cells: readonly Cell[]): Buffer | null {
    if (this.#key === null) return null;
    const { forms, names, writer } = this.#key;
    const record: Record<string, AvroValue> = {};
    for (let i = 0; i < names.length; i += 1) record[names[i]!] = avroValue(forms[i]!, cells[i]!);
    return writer.write(record);
  }

  value(cells: PartialRow, metadata: readonly Cell[]): Buffer {
    const record: Record<string, AvroBranch> = {};
    const columns = this.#names.length - metadata.length;
    for (let i = 0; i < columns; i += 1) {
      const cell = cells[i];
      const form = this.#forms[i]!;
      record[this.#names[i]!] = branch(form, cell === undefined ? unknown(form) : avroValue(form, cell));
    }
    for (let i = 0; i < metadata.length; i += 1) {
      const form = this.#forms[columns + i]!;
      record[this.#names[columns + i]!] = branch(form, avroValue(form, metadata[i]!));
    }
    return this.#value.write(record);
  }
}

async function writerOf(
  subject: string,
  { schema }: AvroRecord,
  registry: RegistryClient,
): Promise<WireWriter> {
  return new WireWriter(await registry.register(subject, JSON.stringify(schema)), schema);
}

class WireWriter {
  readonly #type: avro.Type;
  readonly #id: number;
  /** A record is written here and copied out. */
  #room = Buffer.alloc(firstBytes);

  constructor(id: number, schema: object) {
    this.#id = id;
    this.#type = avro.Type.forSchema(schema as avro.Schema, {
      registry: { long: longs },
      wrapUnions: 'always',
    });
  }

  write(record: object): Buffer {
    let end = this.#encode(record);
    if (end < 0) {
      // A negative end says how many bytes were missing.
      this.#room = Buffer.alloc(this.#room.length - end);
      end = this.#encode(record);
    }
    const framed = this.#framed(end);
    if (this.#room.length > keptBytes) this.#room = Buffer.alloc(firstBytes);
    return framed;
  }

  #encode(record: object): number {
    try {
      return this.#type.encode(record, this.#room, prefixBytes);
    } catch {
      // Its own error quotes the value.
      throw new TidemarkError('TM901', `a value does not fit its Avro type in ${this.#type.name}`);
    }
  }

  #framed(end: number): Buffer {
    const bytes = Buffer.from(this.#room.subarray(0, end));
    bytes[0] = 0;
    bytes.writeInt32BE(this.#id, 1);
    return bytes;
  }
}

/** Of the union with null. avsc finds the branch of a plain value by itself, but not of 64 bits. */
function branch({ kind }: Form, value: AvroValue): AvroBranch {
  if (value === null) return null;
  switch (kind) {
    case 'boolean':
      return { boolean: value };
    case 'int16':
    case 'int32':
    case 'date':
      return { int: value };
    case 'int64':
    case 'timestamp':
      return { long: value };
    case 'float32':
      return { float: value };
    case 'float64':
      return { double: value };
    case 'string':
      return { string: value };
    default:
      return { bytes: value };
  }
}

/** What a form cannot hold is null, and the header has it. */
function avroValue(form: Form, cell: Cell): AvroValue {
  if (cell === null) return null;
  switch (form.kind) {
    case 'boolean':
      return isTrue(cell);
    case 'int16':
    case 'int32':
    case 'float32':
    case 'float64':
      return Number(cell);
    case 'int64':
      return BigInt(cell);
    case 'string':
      return cell;
    case 'bytes':
      return bytesOf(cell);
    case 'decimal': {
      const value = unscaled(cell);
      return value === null ? null : decimalBytes(value);
    }
    case 'date':
      return daysOf(cell);
    case 'timestamp': {
      const instant = millisOf(cell);
      return instant?.millis ?? null;
    }
  }
}

/** The placeholder where the type has one; else null, and the header tells. */
function unknown({ kind }: Form): AvroValue {
  if (kind === 'string') return placeholder;
  return kind === 'bytes' ? Buffer.from(placeholder) : null;
}
