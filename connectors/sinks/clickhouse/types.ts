/** How a column's values are held: the type, and Postgres' own text to it and back. */
import type { ColumnShape } from '../../../src/connector/shape.ts';
import { parseArray, printArray } from './arrays.ts';
import { type FloatKind, parseFloatField, printFloat } from './floats.ts';
import { escapeField, type Field, items, quoteItem, unescapeField } from './tab-separated.ts';

export interface Storage {
  /** ClickHouse's type of a value that is there. */
  type: string;
  /** In the table, where the column may be NULL. */
  nullableType: string;
  /** Field of a NULL. */
  empty: Field;
  /** Field of a value that stands for nothing, where there can be no NULL. */
  zero: Field;
  /** Some values do not come back from it as they were: those have Postgres' text beside it. */
  lossy: boolean;
  /** Null where the type cannot hold the value, or another text of it would come back. */
  write(text: string): Field | null;
  /** Postgres' own text of a field that is not NULL. */
  read(field: Field): string;
  /** What to select so that `read` understands it. */
  select(column: string): string;
}

const textIn = (field: Field): string => unescapeField(field)!;
const asIs = (text: string): string => text;

function plain(type: string, zero: Field, more: Partial<Storage> = {}): Storage {
  return {
    type,
    nullableType: `Nullable(${type})`,
    empty: '\\N',
    zero,
    lossy: false,
    write: asIs,
    read: asIs,
    select: asIs,
    ...more,
  };
}

export const textStorage = plain('String', '', { write: escapeField, read: textIn });
const labels: Storage = {
  ...textStorage,
  type: 'LowCardinality(String)',
  nullableType: 'LowCardinality(Nullable(String))',
};
const boolean = plain('Bool', 'false', {
  write: (text) => (text === 't' ? 'true' : 'false'),
  read: (field) => (field === 'true' ? 't' : 'f'),
});
// Bytes go as escapes of two hexadecimal digits each, and come as plain ones.
const bytes = plain('String', '', {
  write: (text) => text.slice(2).replace(/../g, '\\x$&'),
  read: (field) => `\\x${field.toLowerCase()}`,
  select: (column) => `hex(${column})`,
});

function float(type: string, kind: FloatKind): Storage {
  return plain(type, '0', {
    lossy: true,
    write(text) {
      const value = kind === 'real' ? Math.fround(Number(text)) : Number(text);
      if (printFloat(value, kind) !== text) return null;
      return Number.isFinite(value) ? text : Number.isNaN(value) ? 'nan' : value < 0 ? '-inf' : 'inf';
    },
    read: (field) => printFloat(parseFloatField(field, kind), kind),
  });
}

function decimal(precision: number, scale: number): Storage {
  const fits = new RegExp(
    `^-?\\d{1,${Math.max(1, precision - scale)}}${scale > 0 ? `\\.\\d{${scale}}` : ''}$`,
  );
  return plain(`Decimal(${precision}, ${scale})`, '0', {
    lossy: true,
    // Where scale and precision are the same, the digit before the point is a zero.
    write: (text) => (fits.test(text) && (precision > scale || /^-?0\./.test(text)) ? text : null),
    read: asIs,
  });
}

/** DateTime64 and Date32 hold these years whole. */
const firstYear = '1900';
const lastYear = '2299';
const inYears = (text: string) => text.slice(0, 4) >= firstYear && text.slice(0, 4) <= lastYear;

const date = plain('Date32', '1970-01-01', {
  lossy: true,
  write: (text) => (/^\d{4}-\d\d-\d\d$/.test(text) && inYears(text) ? text : null),
});

function instant(zone: '' | '+00'): Storage {
  const shape = zone === '' ? /^\d{4}-\d\d-\d\d [\d:]{8}(\.\d+)?$/ : /^\d{4}-\d\d-\d\d [\d:]{8}(\.\d+)?\+00$/;
  return plain("DateTime64(6, 'UTC')", '1970-01-01 00:00:00.000000', {
    lossy: true,
    write: (text) =>
      shape.test(text) && inYears(text) ? (zone === '' ? text : text.slice(0, -zone.length)) : null,
    read: (field) => field.replace(/\.?0+$/, field.includes('.') ? '' : '$&') + zone,
  });
}

const integers: Record<string, string> = {
  smallint: 'Int16',
  integer: 'Int32',
  bigint: 'Int64',
  oid: 'UInt32',
  xid: 'UInt32',
  cid: 'UInt32',
  xid8: 'UInt64',
};
const noUuid = '00000000-0000-0000-0000-000000000000';

const named: Record<string, Storage> = {
  ...Object.fromEntries(Object.entries(integers).map(([name, type]) => [name, plain(type, '0')])),
  boolean,
  real: float('Float32', 'real'),
  'double precision': float('Float64', 'double'),
  uuid: plain('UUID', noUuid),
  date,
  bytea: bytes,
  '"char"': labels,
};

/** Array types that need no quoting of their items but that of texts. */
const plainItems: Record<string, string> = {
  smallint: 'Int16',
  integer: 'Int32',
  bigint: 'Int64',
  boolean: 'Bool',
  uuid: 'UUID',
};

/** Arrays cannot be NULL here: a NULL is an empty one, and beside it stands that it is none. */
function array(itemType: string): Storage {
  const quoted = itemType === 'String' || itemType === 'UUID';
  const bool = itemType === 'Bool';
  const type = `Array(Nullable(${itemType}))`;
  return {
    type,
    nullableType: type,
    empty: '[]',
    zero: '[]',
    lossy: true,
    write(text) {
      const found = parseArray(text);
      if (found === null || printArray(found) !== text) return null;
      const fields = found.map((item) => {
        if (item === null) return 'NULL';
        if (quoted) return quoteItem(item);
        return bool ? String(item === 't') : item;
      });
      return `[${fields.join(',')}]`;
    },
    read(field) {
      const found = items(field);
      return printArray(bool ? found.map((item) => item && (item === 'true' ? 't' : 'f')) : found);
    },
    select: asIs,
  };
}

/** ClickHouse's widest Decimal. */
const decimalDigits = 76;

/** @param few a text column of few different values */
export function storageOf(
  column: Pick<ColumnShape, 'type' | 'base' | 'form' | 'enum'>,
  few = false,
): Storage {
  const type = column.base ?? column.type;
  if (column.form === 'text') return few ? labels : textStorage;
  if (type.endsWith('[]')) {
    const item = type.slice(0, -2);
    const itemType = plainItems[item];
    if (itemType) return array(itemType);
    return column.enum || /^(text|character varying(\(\d+\))?|name)$/.test(item)
      ? array('String')
      : textStorage;
  }
  if (column.enum || few) return labels;
  const found = named[type];
  if (found) return found;
  const numeric = /^numeric\((\d+),(-?\d+)\)$/.exec(type);
  if (numeric) {
    const [precision, scale] = [Number(numeric[1]), Number(numeric[2])];
    if (precision <= decimalDigits && scale >= 0 && scale <= precision) return decimal(precision, scale);
  }
  const time = /^timestamp(?:\(\d\))? (with|without) time zone$/.exec(type);
  if (time) return instant(time[1] === 'with' ? '+00' : '');
  return textStorage;
}
