/** Types as the source's catalogue has them: what is under a domain, in an array, a range or a composite. */
import type { ClientBase } from 'pg';
import type { ColumnShape, EnumType, TypeParts } from '../connector/shape.ts';

export interface SourceType {
  oid: number;
  schema: string;
  name: string;
  /** format_type without a modifier. */
  text: string;
  kind: 'base' | 'composite' | 'domain' | 'enum' | 'pseudo' | 'range' | 'multirange';
  /** Of a true array; int2vector and oidvector are none. */
  element: number | null;
  delimiter: string;
  /** pgoutput sends its values as text where it has no send function. */
  sends: boolean;
  /** Of a domain: what it is over, with the domain's own modifier. */
  base: { oid: number; text: string } | null;
  /** Of a range and of its multirange: the subtype, and both their names. */
  subtype: { oid: number; schema: string; range: string; multirange: string } | null;
  attributes: { name: string; oid: number; text: string }[] | null;
  extension: string | null;
  labels: string[] | null;
}

/** By OID; closed under every reference. */
export type SourceTypes = ReadonlyMap<number, SourceType>;

const kinds = {
  b: 'base',
  c: 'composite',
  d: 'domain',
  e: 'enum',
  p: 'pseudo',
  r: 'range',
  m: 'multirange',
} as const;

const typesQuery = `
  select t.oid::int8::text as oid, n.nspname as schema, t.typname as name, format_type(t.oid, null) as text, t.typtype as kind,
         (select e.oid::int8::text from pg_type e where e.typarray = t.oid) as element, t.typdelim as delimiter,
         t.typsend <> 0 as sends,
         case when t.typtype = 'd' then json_build_object('oid', t.typbasetype::int8, 'text', format_type(t.typbasetype, t.typtypmod)) end as base,
         (select json_build_object('oid', r.rngsubtype::int8, 'schema', rn.nspname, 'range', rt.typname, 'multirange', m.typname)
            from pg_range r join pg_type m on m.oid = r.rngmultitypid join pg_type rt on rt.oid = r.rngtypid
            join pg_namespace rn on rn.oid = rt.typnamespace
           where t.oid in (r.rngtypid, r.rngmultitypid)) as subtype,
         case when t.typtype = 'c' then
           (select coalesce(json_agg(json_build_object('name', a.attname, 'oid', a.atttypid::int8, 'text', format_type(a.atttypid, a.atttypmod))
                            order by a.attnum), '[]')
              from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) end as attributes,
         (select x.extname from pg_depend d join pg_extension x on x.oid = d.refobjid
           where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.refclassid = 'pg_extension'::regclass
             and d.deptype = 'e') as extension,
         case when t.typtype = 'e' then
           (select json_agg(l.enumlabel order by l.enumsortorder) from pg_enum l where l.enumtypid = t.oid) end as labels
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
   where t.oid = any ($1::oid[])`;

/** The types and all that they refer to. The search path must be empty, so that names come qualified. */
export async function readSourceTypes(client: ClientBase, oids: readonly number[]): Promise<SourceTypes> {
  const types = new Map<number, SourceType>();
  let wanted = [...new Set(oids)];
  while (wanted.length > 0) {
    const { rows } = await client.query(typesQuery, [wanted]);
    for (const row of rows) {
      const type: SourceType = {
        ...row,
        oid: Number(row.oid),
        kind: kinds[row.kind as 'b'],
        element: row.element === null ? null : Number(row.element),
      };
      types.set(type.oid, type);
    }
    wanted = [...new Set(rows.flatMap((row) => references(types.get(Number(row.oid))!)))].filter(
      (oid) => !types.has(oid),
    );
  }
  return types;
}

function references(type: SourceType): number[] {
  return [
    ...(type.element === null ? [] : [type.element]),
    ...(type.base ? [type.base.oid] : []),
    ...(type.subtype ? [type.subtype.oid] : []),
    ...(type.attributes ?? []).map(({ oid }) => oid),
  ];
}

/** The type under the domains. */
export function withoutDomains(types: SourceTypes, oid: number): SourceType | undefined {
  let type = types.get(oid);
  while (type?.base) type = types.get(type.base.oid);
  return type;
}

/** A type that is no array, nor a domain: the column's own, or that of an array's elements. */
export function leafType(types: SourceTypes, oid: number): SourceType | undefined {
  const type = withoutDomains(types, oid);
  return type?.element ? withoutDomains(types, type.element) : type;
}

/** Their values name objects of the source by OID: elsewhere, only the name means something. */
const objectNames = /^reg[a-z]+$/;

/** The first OID that is not built in. */
const firstNormalOid = 16384;

/**
 * What a column's shape says of its type.
 * @param text format_type with the column's own modifier
 */
export function describeType(
  types: SourceTypes,
  oid: number,
  text: string,
): Pick<ColumnShape, 'type' | 'base' | 'form'> & TypeParts {
  const type = withoutDomains(types, oid);
  if (!type) return { type: text };
  const leaf = leafType(types, oid)!;
  const array = type.element !== null;
  // An array in a domain in an array, or one with a delimiter that only the catalogue knows.
  if (leaf.element !== null || (array && leaf.delimiter !== ',' && leaf.oid >= firstNormalOid)) {
    return { type: text, base: 'text', form: 'text' };
  }
  if (leaf.schema === 'pg_catalog' && objectNames.test(leaf.name)) {
    return { type: text, base: array ? 'text[]' : 'text' };
  }
  const base = baseText(types, oid, text);
  return { type: text, ...(base === text ? {} : { base }), ...partsOf(types, leaf) };
}

/** format_type without domains, neither around an array nor in it. */
function baseText(types: SourceTypes, oid: number, text: string): string {
  let type = types.get(oid)!;
  while (type.base) {
    text = type.base.text;
    type = types.get(type.base.oid)!;
  }
  const element = type.element === null ? undefined : types.get(type.element);
  return element?.base ? `${baseText(types, element.oid, element.text)}[]` : text;
}

function partsOf(types: SourceTypes, leaf: SourceType): TypeParts {
  const { schema, name } = leaf;
  if (leaf.labels) return { enum: { schema, name, labels: leaf.labels } satisfies EnumType };
  if (leaf.extension !== null) return { extension: { name: leaf.extension, schema, type: name } };
  if (leaf.attributes) {
    const attributes = leaf.attributes.map(({ name: attribute, oid, text }) => {
      const { type, base, form, ...parts } = describeType(types, oid, text);
      return { name: attribute, type: base ?? type, ...parts };
    });
    return { composite: { schema, name, attributes } };
  }
  if (leaf.subtype && leaf.oid >= firstNormalOid) {
    const { oid, schema: rangeSchema, range, multirange } = leaf.subtype;
    const { type, base } = describeType(types, oid, types.get(oid)?.text ?? '');
    return { range: { schema: rangeSchema, name: range, subtype: base ?? type, multirange } };
  }
  return {};
}

/** Built-in types of which Avro has no exact form for every value. */
const inexact = /^(interval|time(\(\d\))? with time zone|bit varying|"bit")|\[\]$/;

/** A key must be exact, by type and never by value: types that need the header are carried as text in keys. */
export function keyForm(column: Pick<ColumnShape, 'type' | 'base' | 'form'>): Pick<ColumnShape, 'form'> {
  return column.form || inexact.test(column.base ?? column.type) ? { form: 'text' } : {};
}
