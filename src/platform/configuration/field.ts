/** What a configuration key is: the type behind the tables in fields.ts and behind a sink's own options. */
import type { OptionField } from '../option-field.ts';
import type { TableRule } from '../resolved-config.ts';

/**
 * `string`, `integer`, `boolean`, `duration`, `bytes`, `list` and `secret` are those of OptionField. Besides them:
 * `path`, made absolute against the folder of the file it stands in; `cadence`, a duration or `continuous` (0);
 * `tables`, the rules of source.tables.
 */
export type FieldType = OptionField['type'] | 'path' | 'cadence' | 'tables';

export interface Field {
  type: FieldType;
  /** What the number or text counts or names, for the reference page: `duration`, `bytes`, `TCP port`, `name`. */
  unit: string;
  description: string;
  /** As somebody would write it (`2s`, `64MiB`). Absent: the key is required. `null`: optional without a default. */
  default?: string | number | boolean | readonly string[] | null;
  /** Says where the value comes from if the key is absent and the default is worked out from other keys. */
  defaultText?: string;
  oneOf?: readonly string[];
  /** Smallest and largest value, in the resolved unit: milliseconds, bytes or the count itself. */
  min?: number;
  max?: number;
  /** Form of the text (of each item of a list), and how to say it. */
  form?: { pattern: RegExp; says: string };
}

export type FieldTable = Readonly<Record<string, Field>>;

interface ResolvedTypes {
  string: string;
  secret: string;
  path: string;
  integer: number;
  boolean: boolean;
  duration: number;
  bytes: number;
  cadence: number;
  list: string[];
  tables: TableRule[];
}

type ResolvedValue<F extends Field> =
  | (F extends { oneOf: readonly (infer Choice)[] } ? Choice : ResolvedTypes[F['type']])
  | (F extends { default: null } ? null : never);

/** Values by key; durations in milliseconds, bytes in bytes, absent optional keys as null. */
export type Values<T extends FieldTable> = { [K in keyof T]: ResolvedValue<T[K]> };

/** The same table with `<prefix>.` before each key. */
export function underPrefix<P extends string, T extends FieldTable>(
  prefix: P,
  table: T,
): { [K in keyof T & string as `${P}.${K}`]: T[K] } {
  const entries = Object.entries(table).map(([key, field]) => [`${prefix}.${key}`, field]);
  return Object.fromEntries(entries) as { [K in keyof T & string as `${P}.${K}`]: T[K] };
}

/** The part of `values` under `<prefix>.`, with the prefix taken off. */
export function withoutPrefix<P extends string, V extends Record<string, unknown>>(
  prefix: P,
  values: V,
): { [K in keyof V & `${P}.${string}` as K extends `${P}.${infer Rest}` ? Rest : never]: V[K] } {
  const entries = Object.entries(values)
    .filter(([key]) => key.startsWith(`${prefix}.`))
    .map(([key, value]) => [key.slice(prefix.length + 1), value]);
  return Object.fromEntries(entries);
}

const optionUnits: Record<OptionField['type'], string> = {
  string: 'text',
  secret: 'secret',
  integer: 'count',
  boolean: 'true or false',
  duration: 'duration',
  bytes: 'bytes',
  list: 'list',
};

/** A sink's own option as a Field. Its number defaults are already milliseconds or bytes. */
export function optionAsField(option: OptionField): Field {
  return { ...option, unit: optionUnits[option.type] };
}
