/**
 * Records in JSON, with Connect's schema around them (`JsonConverter`, schemas.enable) or without. Texts are put
 * together by hand: numbers keep all their digits, which JavaScript's own would not.
 */
import type { Cell, PartialRow } from '../../../src/connector/sink.ts';
import type { Field, TableFields } from './fields.ts';
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
import type { RowFormat } from './row-format.ts';
import type { RowSettings } from './settings.ts';

interface NamedForm {
  /** `"name":` */
  label: string;
  form: Form;
}

export class JsonFormat implements RowFormat {
  readonly #key: { fields: NamedForm[]; around: Around } | null;
  readonly #columns: NamedForm[];
  readonly #metadata: NamedForm[];
  readonly #around: Around;
  readonly #bare: boolean;
  readonly #omit: boolean;

  constructor(topic: string, { columns, metadata, key }: TableFields, settings: RowSettings) {
    const { schemas } = settings;
    this.#bare = !schemas;
    this.#omit = settings.unchanged === 'omit';
    this.#columns = columns.map(named);
    this.#metadata = metadata.map(named);
    this.#around = around(schemas, `${topic}.Value`, [...columns, ...metadata], true);
    const keyFields = key?.map(({ name, kind }) => ({ name, form: { kind } as Form })) ?? null;
    this.#key = keyFields && {
      fields: keyFields.map(named),
      around: around(schemas, `${topic}.Key`, keyFields, false),
    };
  }

  key(cells: readonly Cell[]): Buffer | null {
    if (this.#key === null) return null;
    const { fields, around } = this.#key;
    let text = around.before;
    for (let i = 0; i < fields.length; i += 1) {
      text += `${i === 0 ? '' : ','}${fields[i]!.label}${fragment(fields[i]!.form, cells[i]!, this.#bare)}`;
    }
    return Buffer.from(text + around.after);
  }

  value(cells: PartialRow, metadata: readonly Cell[]): Buffer {
    let text = '';
    for (let i = 0; i < this.#columns.length; i += 1) {
      const { label, form } = this.#columns[i]!;
      const cell = cells[i];
      if (cell === undefined) {
        if (!this.#omit) text += `,${label}${unknown(form)}`;
      } else text += `,${label}${fragment(form, cell, this.#bare)}`;
    }
    for (let i = 0; i < this.#metadata.length; i += 1) {
      const { label, form } = this.#metadata[i]!;
      text += `,${label}${fragment(form, metadata[i]!, this.#bare)}`;
    }
    return Buffer.from(this.#around.before + text.slice(1) + this.#around.after);
  }
}

function named({ name, form }: Field): NamedForm {
  return { label: `${JSON.stringify(name)}:`, form };
}

/** What a form cannot hold is null; in JSON without schemas there are no types, and it is the text. */
function fragment(form: Form, cell: Cell, bare: boolean): string {
  if (cell === null) return 'null';
  switch (form.kind) {
    case 'boolean':
      return isTrue(cell) ? 'true' : 'false';
    case 'int16':
    case 'int32':
    case 'int64':
      return cell;
    case 'float32':
    case 'float64':
      if (!/[ny]$/i.test(cell)) return cell;
      return bare ? `"${cell}"` : 'null';
    case 'string':
      return JSON.stringify(cell);
    case 'bytes':
      return `"${bytesOf(cell).toString('base64')}"`;
    case 'decimal': {
      const value = unscaled(cell);
      return value === null ? 'null' : `"${decimalBytes(value).toString('base64')}"`;
    }
    case 'date':
      return String(daysOf(cell));
    case 'timestamp':
      return String(millisOf(cell)?.millis ?? null);
  }
}

/** The placeholder where the type has one; else null, and the header tells. */
function unknown({ kind }: Form): string {
  if (kind === 'string') return `"${placeholder}"`;
  return kind === 'bytes' ? `"${Buffer.from(placeholder).toString('base64')}"` : 'null';
}

interface Around {
  before: string;
  after: string;
}

function around(schemas: boolean, name: string, fields: readonly Field[], optional: boolean): Around {
  if (!schemas) return { before: '{', after: '}' };
  const schema = {
    type: 'struct',
    fields: fields.map((field) => ({ ...connectSchema(field.form), optional, field: field.name })),
    optional: false,
    name,
  };
  return { before: `{"schema":${JSON.stringify(schema)},"payload":{`, after: '}}' };
}

function connectSchema(form: Form): Record<string, unknown> {
  const logical = (type: string, name: string, more: Record<string, unknown> = {}) => ({
    type,
    name: `org.apache.kafka.connect.data.${name}`,
    version: 1,
    ...more,
  });
  switch (form.kind) {
    case 'float32':
      return { type: 'float' };
    case 'float64':
      return { type: 'double' };
    case 'date':
      return logical('int32', 'Date');
    case 'timestamp':
      return logical('int64', 'Timestamp');
    case 'decimal':
      return logical('bytes', 'Decimal', {
        parameters: { scale: String(form.scale), 'connect.decimal.precision': String(form.precision) },
      });
    default:
      return { type: form.kind };
  }
}
