/**
 * SQL for DuckDB that turns the change files into the table's latest state.
 *
 * Input: a relation over the files (LogFormat.relation) and, optionally, the variable `tidemark_at` (a
 * Position; later changes are left out). It makes two views: `tidemark_changes`, every change with typed columns, and
 * `tidemark_latest`, the rows as they are. `tidemark_parts` and `tidemark_part`, where set, leave one of so many parts of
 * a table with a key.
 *
 * With a key: the change with the highest Position wins; a delete removes; a truncate removes everything before it; the
 * end of a snapshot removes the rows whose newest change is no later than its start. A row that the source let go of in
 * between (`e`) was there then and is not removed by either; only another change of its key ends that.
 * A column that the winning change left unchanged is looked up in the same row's earlier changes, back to the insert
 * that began it; where that was a key change, the search goes on under the old key. Without a key: rows are counted by
 * their image, plus one for each change that added it and minus one for each that removed it.
 */
import { type Held, metadataColumns, type StoredColumn } from './fields.ts';
import { quoteName, quoteText } from './sql-text.ts';

export interface ViewTable {
  /** The table's columns in the shape's order. */
  columns: readonly StoredColumn[];
  /** Indexes into columns, in key order; empty for a table without a key. */
  keyColumns: readonly number[];
  /** Whether files hold rows of other columns (Manifest.reshaped). */
  reshaped: boolean;
}

/**
 * `native`: typed columns (NULL where the value is in `_exact`, but for floats) plus `_position` and `_commit_time`.
 * `text`: Postgres' own text of each column, `_exact` included; real and double precision stay numbers. Of a table with a
 * key with `_retired` behind them: whether the source let go of the row.
 */
export type ViewOutput = 'native' | 'text';

/** Text of a field's native value, as Postgres prints it. */
function nativeText(value: string, { storage }: Held): string {
  switch (storage.kind) {
    case 'text':
      return value;
    case 'boolean':
      return `CASE ${value} WHEN true THEN 't' WHEN false THEN 'f' END`;
    case 'bytea':
      return `'\\x' || lower(hex(${value}))`;
    case 'timestamptz':
      // By way of microseconds: a plain cast would print the session's time zone.
      return `CAST(make_timestamp(epoch_us(${value})) AS VARCHAR) || '+00'`;
    default:
      return `CAST(${value} AS VARCHAR)`;
  }
}

/** The field in its type; TRY_CAST, because files of the other encoder hold it in another one. */
function typed({ field, storage }: Held): string {
  const name = `c.${quoteName(field)}`;
  return storage.kind === 'text' || storage.kind === 'bytea'
    ? `CAST(${name} AS ${storage.duckdbType})`
    : `TRY_CAST(${name} AS ${storage.duckdbType})`;
}

function isFloat({ storage }: Held): boolean {
  return storage.kind === 'real' || storage.kind === 'double';
}

function exactOf({ field }: Held): string {
  return `CAST(CAST(c."_exact" AS JSON) AS MAP(VARCHAR, VARCHAR))[${quoteText(field)}]`;
}

/** As typed; -0 and what else was left to `_exact` comes back, since the type can hold it. */
function typedFloat(held: Held): string {
  const value = typed(held);
  const exact = `TRY_CAST(${exactOf(held)} AS ${held.storage.duckdbType})`;
  return `CASE WHEN c."_exact" IS NULL THEN ${value} ELSE coalesce(${exact}, ${value}) END`;
}

/** Text that tells two values of the field apart. */
function exactText(held: Held): string {
  if (isFloat(held)) return `CAST(${typedFloat(held)} AS VARCHAR)`;
  const text = nativeText(typed(held), held);
  if (held.storage.kind === 'text') return text;
  return `CASE WHEN c."_exact" IS NULL THEN ${text} ELSE coalesce(${exactOf(held)}, ${text}) END`;
}

/** Postgres' text as the column's own type. */
function fromText(text: string, { storage }: Held): string {
  if (storage.kind === 'text') return text;
  if (storage.kind === 'bytea') return `unhex(substr(${text}, 3))`;
  return `TRY_CAST(${text} AS ${storage.duckdbType})`;
}

/**
 * Text of an earlier value as Postgres has it after the plain cast to the column's type; where DuckDB has no such
 * cast, the text that it was. Floats keep theirs: DuckDB prints them in another way.
 */
function castText(held: Held, { castTo }: StoredColumn): string {
  const text = exactText(held);
  const from = held.storage.kind;
  if (!castTo) return text;
  if (from === 'boolean' && castTo.kind === 'text')
    return `CASE ${text} WHEN 't' THEN 'true' WHEN 'f' THEN 'false' END`;
  if (castTo.kind === 'text' || castTo.kind === 'bytea' || isFloat({ field: '', storage: castTo }))
    return text;
  const native = from === 'text' || from === 'bytea' || from === 'uuid' ? text : typed(held);
  const cast = nativeText(`TRY_CAST(${native} AS ${castTo.duckdbType})`, { field: '', storage: castTo });
  return `coalesce(${cast}, ${text})`;
}

/** The column over all its history: `now` for Changes that have it as it is, `then` of the text of earlier ones. */
function overTime(column: StoredColumn, now: string, then: (text: string) => string): string {
  if (column.forms.length === 0) return now;
  const cases = [...column.forms].reverse().map(({ until, held }) => {
    const text =
      'field' in held ? castText(held, column) : held.value === null ? 'NULL' : quoteText(held.value);
    return `WHEN c."_position" <= ${quoteText(until)} THEN ${text === 'NULL' ? text : then(text)}`;
  });
  return `CASE ${cases.join(' ')} ELSE ${now} END`;
}

/** The column's text over all its history; a float's is DuckDB's, also where the column was another type before. */
function textOverTime(column: StoredColumn): string {
  const then = (text: string) => (isFloat(column) ? `CAST(${fromText(text, column)} AS VARCHAR)` : text);
  return overTime(column, exactText(column), then);
}

/** The column in the old row of a table without a key. */
function beforeOverTime(column: StoredColumn): string {
  const text = (field: string) => `CAST(c."_before" AS JSON) ->> ${quoteText(jsonPointer(field))}`;
  const spelled = (value: string) =>
    isFloat(column) ? `CAST(${fromText(value, column)} AS VARCHAR)` : booleanAsPostgres(column, value);
  const cases = [...column.forms].reverse().map(({ until, held }) => {
    const value = 'field' in held ? text(held.field) : held.value === null ? 'NULL' : quoteText(held.value);
    return `WHEN c."_position" <= ${quoteText(until)} THEN ${spelled(`(${value})`)}`;
  });
  // A delete may show its old row in the columns themselves.
  const shown = `WHEN c."_before" IS NULL THEN ${textOverTime(column)}`;
  return `CASE ${[shown, ...cases].join(' ')} ELSE ${spelled(`(${text(column.field)})`)} END`;
}

/** A boolean may be one of JSON; Postgres prints a letter. */
function booleanAsPostgres({ storage }: Held, text: string): string {
  return storage.kind === 'boolean' ? `left(${text}, 1)` : text;
}

function jsonPointer(field: string): string {
  return `/${field.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

/** Identity of a row of a table without a key whose shape changed: of its values as they are by now. */
function imageOf(texts: readonly string[]): string {
  // A hash of hashes: DuckDB works on 2,048 rows at once, and a copy of all of them, whole, can be all its memory.
  return `md5(concat(${texts.map((text) => `coalesce(md5(CAST(${text} AS VARCHAR)), '-')`).join(', ')}))`;
}

/** A key part of `_previous_key`, spelled as exactText spells the column. */
function previousPart(column: StoredColumn, part: number): string {
  const text = `c."_previous_key"[${part + 1}]`;
  if (!isFloat(column)) return booleanAsPostgres(column, text);
  return `CAST(CAST(${text} AS ${column.storage.duckdbType}) AS VARCHAR)`;
}

function keyText(parts: readonly string[]): string {
  return parts.length === 1 ? parts[0]! : `CAST(to_json([${parts.join(', ')}]) AS VARCHAR)`;
}

/** The statement that makes `tidemark_changes`. */
function changesView(
  { columns, keyColumns, reshaped }: ViewTable,
  output: ViewOutput,
  source: string,
): string {
  const keys = keyColumns.map((index) => columns[index]!);
  const lines = metadataColumns.map(([name]) => {
    // Hashes of rows of another shape say nothing about rows of this one.
    if (reshaped && keys.length === 0 && name === '_image')
      return `  CASE WHEN c."_image" IS NOT NULL THEN ${imageOf(columns.map(textOverTime))} END AS "_image"`;
    if (reshaped && keys.length === 0 && name === '_before_image')
      return `  CASE WHEN c."_before_image" IS NOT NULL THEN ${imageOf(columns.map(beforeOverTime))} END AS "_before_image"`;
    return `  c.${quoteName(name)}`;
  });
  if (keys.length > 0) {
    lines.push(`  ${keyText(keys.map(textOverTime))} AS "_key"`);
    const previous = keyText(keys.map(previousPart));
    lines.push(`  CASE WHEN len(c."_previous_key") > 0 THEN ${previous} END AS "_old_key"`);
    // A delete and a create of one key at one Position: the create counts.
    lines.push(`  c."_position" || CASE WHEN c."_op" = 'd' THEN '0' ELSE '1' END AS "_at"`);
  }
  for (const column of columns) {
    const now = isFloat(column)
      ? typedFloat(column)
      : output === 'native'
        ? typed(column)
        : exactText(column);
    const native = isFloat(column) || output === 'native';
    const value = overTime(column, now, (text) => (native ? fromText(text, column) : text));
    lines.push(`  ${value} AS ${quoteName(column.shown)}`);
  }
  return `CREATE OR REPLACE TEMP VIEW tidemark_changes AS
SELECT
${lines.join(',\n')}
FROM (
${source}
) AS c
WHERE coalesce(c."_position" <= CAST(getvariable('tidemark_at') AS VARCHAR), true);`;
}

/** Every field of these columns, earlier ones too. */
export function heldFields(columns: readonly StoredColumn[]): Held[] {
  return columns.flatMap((column): Held[] => [
    column,
    ...column.forms.flatMap((form) => ('field' in form.held ? [form.held] : [])),
  ]);
}

/** Behind the table's own. */
const keyedColumns: Record<ViewOutput, string[]> = {
  native: ['_position', '_commit_time'],
  text: ['_retired'],
};
const keylessColumns: Record<ViewOutput, string[]> = { native: ['_position', '_commit_time'], text: [] };

function keyedView({ columns, keyColumns }: ViewTable, output: ViewOutput): string {
  const fillable = columns.flatMap((column, index) =>
    keyColumns.includes(index) || !canBeUnchanged(column) ? [] : [{ ...column, slot: `c${index}` }],
  );
  const slots = new Map(fillable.map(({ field, slot }) => [field, slot]));
  // Not FILTER, for which DuckDB rearranges every column once for every aggregate: 3 s of 4 for a thousand columns.
  const sources = fillable.map(
    (column) => `,\n    max(CASE WHEN ${isKnown('l', column)} THEN l."_at" END) AS ${column.slot}`,
  );
  const values = fillable.map(
    ({ shown, slot }) =>
      `,\n    any_value(CASE WHEN l."_at" = s.${slot} THEN l.${quoteName(shown)} END) AS v_${slot}`,
  );
  const selected = columns.map((column) => {
    const name = quoteName(column.shown);
    const slot = slots.get(column.field);
    if (slot === undefined) return `p.${name}`;
    return `CASE WHEN ${isKnown('p', column)} THEN p.${name} ELSE f.v_${slot} END AS ${name}`;
  });
  return `CREATE OR REPLACE TEMP VIEW tidemark_latest AS
WITH RECURSIVE marks AS MATERIALIZED (
  SELECT coalesce(max("_position") FILTER (WHERE "_op" = 't'), '') AS truncated,
    coalesce(max(CAST("_before" AS JSON) ->> 'since') FILTER (WHERE "_op" = 's'), '') AS swept,
    count(*) FILTER (WHERE "_op" = 'e') > 0 AS retired
  FROM tidemark_changes WHERE "_op" IN ('t', 's', 'e')
),
-- Where the source let go of rows, some from before the last truncate are still there.
live AS NOT MATERIALIZED (
  SELECT * FROM tidemark_changes WHERE "_op" NOT IN ('t', 's', 'e')
    AND ("_position" > (SELECT truncated FROM marks) OR (SELECT retired FROM marks))
),
newest AS MATERIALIZED (SELECT "_key", max("_at") AS "_at" FROM live GROUP BY "_key"),
-- What emptied the table of the rows whose newest change is no later than "since", and when the first such thing did.
emptied AS MATERIALIZED (
  SELECT since, min("_position") OVER (ORDER BY since DESC) AS "_position"
  FROM (
    SELECT CASE WHEN "_op" = 't' THEN "_position" ELSE CAST("_before" AS JSON) ->> 'since' END AS since, "_position"
    FROM tidemark_changes WHERE "_op" IN ('t', 's')
  )
),
-- Rows that the source let go of after their newest change, while they were there.
kept AS MATERIALIZED (
  SELECT r."_key"
  FROM (
    SELECT n."_key", left(n."_at", 42) AS changed, min(e."_position") AS retired
    FROM tidemark_changes e JOIN newest n ON n."_key" = e."_key" AND n."_at" < e."_at"
    WHERE e."_op" = 'e'
    GROUP BY n."_key", n."_at"
  ) r ASOF LEFT JOIN emptied ON emptied.since >= r.changed
  WHERE emptied."_position" IS NULL OR r.retired <= emptied."_position"
),
standing AS NOT MATERIALIZED (
  SELECT n."_key", n."_at", k."_key" IS NOT NULL AS "_retired"
  FROM newest n LEFT JOIN kept k ON k."_key" = n."_key"
  WHERE k."_key" IS NOT NULL OR left(n."_at", 42) > (SELECT greatest(truncated, swept) FROM marks)
),
present AS NOT MATERIALIZED (
  SELECT live.*, standing."_retired" FROM live JOIN standing USING ("_key", "_at")
  WHERE live."_op" <> 'd'
    AND coalesce(hash(live."_key") % CAST(getvariable('tidemark_parts') AS BIGINT) = getvariable('tidemark_part'), true)
),
-- What follows is about the few rows whose newest change left columns unchanged.
gaps AS MATERIALIZED (SELECT "_key", "_at" FROM present WHERE len("_unchanged") > 0),
-- Key changes that left columns unchanged: there the search goes on under the old key.
moves AS MATERIALIZED (SELECT "_key", "_at", "_old_key" FROM live WHERE "_op" = 'c' AND len("_unchanged") > 0),
trail(row_key, key, upto, since, old_key) AS (
  SELECT g."_key", g."_key", g."_at", coalesce(max(m."_at"), ''), arg_max(m."_old_key", m."_at")
  FROM gaps g LEFT JOIN moves m ON m."_key" = g."_key" AND m."_at" <= g."_at"
  GROUP BY g."_key", g."_at"
  UNION ALL
  SELECT t.row_key, t.old_key, t.since, coalesce(max(m."_at"), ''), arg_max(m."_old_key", m."_at")
  FROM trail t LEFT JOIN moves m ON m."_key" = t.old_key AND m."_at" < t.since
  WHERE t.old_key IS NOT NULL
  GROUP BY t.row_key, t.old_key, t.since
),
-- The newest change that knows a column's value has it. A trail may run past the insert that began the row, into an
-- earlier row of the same key, but that insert had every value and is newer. Which change it is comes first, and only
-- then its value: what an aggregate has seen of values it keeps in memory, and each is to be seen once.
sources AS MATERIALIZED (
  SELECT t.row_key${sources.join('')}
  FROM live l JOIN trail t ON l."_key" = t.key AND l."_at" <= t.upto AND l."_at" >= t.since
  WHERE l."_op" IN ('c', 'u', 'r')
  GROUP BY t.row_key
),
wanted AS MATERIALIZED (SELECT DISTINCT row_key, unnest(CAST([${fillable.map(({ slot }) => slot).join(', ')}] AS VARCHAR[])) AS "_at" FROM sources),
filled AS MATERIALIZED (
  SELECT s.row_key${values.join('')}
  FROM live l JOIN wanted w ON w."_at" = l."_at" JOIN sources s ON s.row_key = w.row_key
  GROUP BY s.row_key
)
SELECT ${[...selected, ...keyedColumns[output].map((name) => `p.${quoteName(name)}`)].join(',\n  ')}
FROM present p LEFT JOIN filled f ON f.row_key = p."_key";`;
}

/** Postgres leaves values out that are stored out of line: none of a type that always fits into its row. */
function canBeUnchanged({ storage, forms }: StoredColumn): boolean {
  return (
    forms.length > 0 || storage.kind === 'text' || storage.kind === 'bytea' || storage.kind === 'decimal'
  );
}

/** Under whichever field the column had at the time. */
function isKnown(alias: string, { field, forms }: StoredColumn): string {
  const fields = [field, ...forms.flatMap(({ held }) => ('field' in held ? [held.field] : []))];
  const named = fields.map((each) => `list_contains(${alias}."_unchanged", ${quoteText(each)})`);
  return `NOT coalesce(${named.join(' OR ')}, false)`;
}

function keylessView({ columns }: ViewTable, output: ViewOutput): string {
  const selected = [
    ...columns.map(({ shown }) => quoteName(shown)),
    ...keylessColumns[output].map((name) => quoteName(name)),
  ].map((name) => `l.${name}`);
  return `CREATE OR REPLACE TEMP VIEW tidemark_latest AS
WITH cleared AS MATERIALIZED (
  SELECT coalesce(max("_position"), '') AS upto FROM tidemark_changes WHERE "_op" = 't'
),
live AS NOT MATERIALIZED (
  SELECT * FROM tidemark_changes
  WHERE "_op" NOT IN ('t', 's', 'e') AND "_position" > (SELECT upto FROM cleared)
),
net AS MATERIALIZED (
  SELECT image, sum(n) AS copies, max("_position") FILTER (WHERE n > 0) AS "_position"
  FROM (
    SELECT "_image" AS image, 1 AS n, "_position" FROM live WHERE "_image" IS NOT NULL
    UNION ALL
    SELECT "_before_image", -1, "_position" FROM live WHERE "_before_image" IS NOT NULL
  )
  GROUP BY image
  HAVING sum(n) > 0
),
-- One number per copy.
copy AS (SELECT image, "_position", unnest(range(CAST(copies AS BIGINT))) FROM net)
SELECT ${selected.join(', ')}
FROM live l JOIN copy ON copy.image = l."_image" AND copy."_position" = l."_position";`;
}

/** The two CREATE VIEW statements. @param source SQL of the relation over the files */
export function latestViewStatements(table: ViewTable, output: ViewOutput, source: string): string[] {
  return [
    changesView(table, output, source),
    table.keyColumns.length > 0 ? keyedView(table, output) : keylessView(table, output),
  ];
}
