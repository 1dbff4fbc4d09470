/**
 * The versions of a table's shape, as the registry has them under `<topic>-value`. A Relation message picks the version
 * that it describes, or makes the next one; after a restart the stream describes old shapes once more, and those are
 * found again rather than registered a second time.
 */
import { type ColumnShape, type TableShape, tableName } from '../connector/shape.ts';
import { madeAnew, pairColumns } from '../connector/shape-versions.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { RegistryClient } from '../platform/registry.ts';
import type { Compatibility, IncompatibleChange } from '../platform/resolved-config.ts';
import type { ColumnOrigin } from '../replicate/column-origins.ts';
import type { ExistingValues } from '../replicate/rewritten-values.ts';
import {
  keySchema,
  registeredFields,
  rowFields,
  sameForm,
  shapeOfSchema,
  valueSchema,
  versionOfSchema,
} from './avro-schema.ts';
import { carryAsText, stillCarried } from './carry-text.ts';
import { compareShapes, type ShapeChange } from './shape-change.ts';
import type { AvroSchema } from './types/codec.ts';

interface Version {
  schemaId: number;
  shape: TableShape;
  /** As registered. */
  fields: ReadonlyMap<string, AvroSchema>;
  version: number;
  major: number;
}

interface Subject {
  versions: Version[];
  /** The one that the stream is at; null until its first Relation of this process. */
  current: number | null;
}

export interface DescribedTable {
  topic: string;
  /** As the Relation and the catalogue describe it. */
  shape: TableShape;
  oid: number;
  /** By name, as far as known. */
  origins: ReadonlyMap<string, ColumnOrigin>;
  made: boolean;
  /** What existing rows have in these columns, by number, where it is not NULL although nothing that is known says so. */
  existingValues?(numbers: readonly number[]): Promise<ReadonlyMap<number, ExistingValues>>;
  /** The name that this table had before, where the stream showed it. */
  renamedFrom: string | null;
  /** Whatever the table's rule says; null: as it says. */
  policy: IncompatibleChange | null;
}

export interface VersionOptions {
  registry: Pick<
    RegistryClient,
    'versions' | 'register' | 'registerNext' | 'setCompatibility' | 'compatibilityOf' | 'isCompatible'
  >;
  compatibility: Compatibility;
  onIncompatibleChange(table: TableShape): IncompatibleChange;
  log: Logger;
}

export interface RegisteredShape {
  shape: TableShape;
  valueSchemaId: number;
  keySchemaId: number | null;
}

export class TableVersions {
  readonly #options: VersionOptions;
  readonly #subjects = new Map<string, Subject>();
  /** By key subject, the schema that was registered last. */
  readonly #keys = new Map<string, { schema: string; id: number }>();
  /** Subjects whose compatibility is as the configuration says, and that have a version. */
  readonly #checked = new Set<string>();

  constructor(options: VersionOptions) {
    this.#options = options;
  }

  /** @throws TidemarkError TM208 for a topic of another table; TM231 where the change is against policy */
  async register(table: DescribedTable): Promise<RegisteredShape> {
    const { topic } = table;
    const subject = await this.#subject(topic);
    const last = subject.versions.at(-1);
    if (last && tableName(last.shape) !== tableName(table.shape)) {
      throw new TidemarkError(
        'TM208',
        `topic ${topic} belongs to table ${tableName(last.shape)}: both names become the same topic`,
      );
    }
    const wanted = describedShape(table);
    const from = subject.current ?? 0;
    const found = subject.versions.findLastIndex(
      (version, i) =>
        i >= from &&
        looksLike(version.shape, wanted) &&
        says(version.shape, wanted) &&
        hasForms(version, continued(version.shape, wanted)),
    );
    if (found >= 0) {
      subject.current = found;
      return this.#registered(topic, subject.versions[found]!);
    }
    if (!last) {
      if (table.renamedFrom !== null) this.#decide(table, table.shape, renamed(table.renamedFrom));
      return this.#append(subject, topic, wanted, { version: 1, major: 1 }, 'fits');
    }
    const before =
      subject.current === null
        ? (subject.versions.findLast(({ shape }) => looksLike(shape, wanted)) ?? last)
        : subject.versions[subject.current]!;
    const origins = await askedOrigins(table, before.shape, wanted);
    const context = { ...table, origins, fields: before.fields };
    let shape = continued(before.shape, describedShape(context));
    let change = compareShapes(before.shape, shape, context);
    const versions = { version: last.version + 1, major: last.major };
    let breaking = await this.#breaking(topic, shape, change);
    if (breaking.length > 0 && this.#policyOf(table, shape) === 'text') {
      const history = [...subject.versions, before];
      shape = carryAsText(history, shape, this.#options.compatibility) ?? shape;
      change = compareShapes(before.shape, shape, context);
      const { casts } = change;
      const breaksRows = change.breaksRows.filter((text) => !casts.includes(text));
      breaking = await this.#breaking(topic, shape, { ...change, breaksRows });
    }
    if (breaking.length > 0) {
      this.#decide(table, shape, { ...change, breaksRows: breaking, breaksReaders: [] });
      versions.major++;
    }
    const registered =
      breaking.length > 0
        ? await this.#append(subject, topic, shape, versions, 'breaks')
        : await this.#appendFitting(subject, table, shape, versions, change);
    this.#options.log.info(`${tableName(shape)} has a new shape: ${change.changes.join(', ')}`, {
      topic,
      ...versions,
      schemaId: registered.valueSchemaId,
    });
    return registered;
  }

  /** The version that was registered last, though the stream may not have described it yet; null: none was. */
  async newest(topic: string): Promise<RegisteredShape | null> {
    const last = (await this.#subject(topic)).versions.at(-1);
    return last ? this.#registered(topic, last) : null;
  }

  #policyOf({ policy }: DescribedTable, shape: TableShape): IncompatibleChange {
    return policy ?? this.#options.onIncompatibleChange(shape);
  }

  /** @throws TidemarkError TM231 where the table's policy is to park, or text that does not help */
  #decide(table: DescribedTable, shape: TableShape, change: ShapeChange): void {
    const reason = `the shape of ${tableName(shape)} changed: ${change.changes.join(', ')}`;
    if (this.#policyOf(table, shape) !== 'evolve') throw new TidemarkError('TM231', reason);
    this.#options.log.warn(`${reason}; it goes on as a new major version, as on.incompatible.change says`, {
      breaking: [...change.breaksReaders, ...change.breaksRows],
    });
  }

  /** Whether this process registered, or found, a version of the topic's table: the topic exists then. */
  has(topic: string): boolean {
    return (this.#subjects.get(topic)?.current ?? null) !== null;
  }

  /** Everything that keeps the new version from following the old one by itself, the registry's own opinion included. */
  async #breaking(topic: string, shape: TableShape, change: ShapeChange): Promise<string[]> {
    const { compatibility, registry } = this.#options;
    const breaking = [...change.breaksRows, ...(compatibility === 'NONE' ? [] : change.breaksReaders)];
    if (breaking.length > 0) return breaking;
    const key = keySchema(shape, topic);
    const asked: [string, string][] = [[`${topic}-value`, valueSchema(shape, topic)]];
    if (key !== null && this.#keys.get(`${topic}-key`)?.schema !== key) asked.push([`${topic}-key`, key]);
    const answers = await Promise.all(asked.map(([name, schema]) => registry.isCompatible(name, schema)));
    for (const [i, [name]] of asked.entries()) {
      if (answers[i]) continue;
      const text = `the registry finds it not ${compatibility} compatible with subject ${name}`;
      change.changes.push(text);
      breaking.push(text);
    }
    return breaking;
  }

  /** A registry may refuse what it found compatible with the latest version: its rule may be about all of them. */
  async #appendFitting(
    subject: Subject,
    table: DescribedTable,
    shape: TableShape,
    versions: { version: number; major: number },
    change: ShapeChange,
  ): Promise<RegisteredShape> {
    try {
      return await this.#append(subject, table.topic, shape, versions, 'fits');
    } catch (error) {
      if (!(error instanceof TidemarkError) || error.code !== 'TM305') throw error;
      const text = `the registry refuses it under ${this.#options.compatibility}`;
      this.#decide(table, shape, { ...change, changes: [...change.changes, text], breaksReaders: [text] });
      versions.major++;
      return this.#append(subject, table.topic, shape, versions, 'breaks');
    }
  }

  async #append(
    subject: Subject,
    topic: string,
    shape: TableShape,
    versions: { version: number; major: number },
    how: 'fits' | 'breaks',
  ): Promise<RegisteredShape> {
    const schema = valueSchema(shape, topic, versions);
    const schemaId = await this.#put(`${topic}-value`, schema, how);
    const version = { schemaId, shape, fields: rowFields(shape), ...versions };
    const registered = await this.#registered(topic, version, how);
    subject.current = subject.versions.push(version) - 1;
    return registered;
  }

  async #registered(
    topic: string,
    { shape, schemaId }: Version,
    how: 'fits' | 'breaks' = 'fits',
  ): Promise<RegisteredShape> {
    const key = keySchema(shape, topic);
    return {
      shape,
      valueSchemaId: schemaId,
      keySchemaId: key === null ? null : await this.#keyId(`${topic}-key`, key, how),
    };
  }

  /** Keys hardly ever change: asked for once. */
  async #keyId(subject: string, schema: string, how: 'fits' | 'breaks'): Promise<number> {
    const known = this.#keys.get(subject);
    if (known?.schema === schema) return known.id;
    const id = await this.#put(subject, schema, how);
    this.#keys.set(subject, { schema, id });
    return id;
  }

  /** A version that breaks the subject's compatibility is registered while there is none. */
  async #put(subject: string, schema: string, how: 'fits' | 'breaks'): Promise<number> {
    const { registry, compatibility, log } = this.#options;
    if (how === 'fits' || compatibility === 'NONE') {
      if (this.#checked.has(subject)) return registry.registerNext(subject, schema);
      const actual = await registry.compatibilityOf(subject);
      if (actual !== null && actual !== compatibility) {
        log.warn(
          `subject ${subject} was ${actual}; it is ${compatibility} now, as registry.compatibility says`,
        );
        await registry.setCompatibility(subject, compatibility);
      }
      const id = await registry.register(subject, schema, compatibility);
      this.#checked.add(subject);
      return id;
    }
    await registry.setCompatibility(subject, 'NONE');
    try {
      return await registry.register(subject, schema, 'NONE');
    } finally {
      await registry.setCompatibility(subject, compatibility);
    }
  }

  async #subject(topic: string): Promise<Subject> {
    let subject = this.#subjects.get(topic);
    if (!subject) {
      const versions = (await this.#options.registry.versions(`${topic}-value`)).map(({ id, schema }) => ({
        schemaId: id,
        shape: shapeOfSchema(schema),
        fields: registeredFields(schema),
        ...versionOfSchema(schema),
      }));
      subject = { versions, current: null };
      this.#subjects.set(topic, subject);
    }
    return subject;
  }
}

function renamed(from: string): ShapeChange {
  const text = `it was ${from} before, and its rows from then are in the topic of that name`;
  return { changes: [text], breaksReaders: [], breaksRows: [text], casts: [] };
}

/** Of columns that were added, where rows may have what nobody knows. */
async function askedOrigins(
  { origins, made, existingValues }: DescribedTable,
  before: TableShape,
  after: TableShape,
): Promise<ReadonlyMap<string, ColumnOrigin>> {
  if (!existingValues || made) return origins;
  const asked = pairColumns(before, after)
    .added.map(({ name }) => origins.get(name))
    .filter((origin) => origin !== undefined && origin.missing === null && !origin.computed);
  if (asked.length === 0) return origins;
  const existing = await existingValues(asked.map((origin) => origin!.number));
  return new Map([...origins].map(([name, origin]) => [name, { ...origin, ...existing.get(origin.number) }]));
}

/** With what is known of its columns beside the Relation. */
function describedShape({ shape, oid, origins }: DescribedTable): TableShape {
  const columns = shape.columns.map((column): ColumnShape => {
    const origin = origins.get(column.name);
    if (!origin) return column;
    const { number, missing } = origin;
    // What existing rows have is not theirs to tell where the column leaves Postgres hashed or masked.
    return { ...column, number, ...(missing === null || column.protection ? {} : { missing }) };
  });
  return { ...shape, oid, columns };
}

/**
 * The shape as the next version after another: a column keeps what was known of it, and no field stops being nullable
 * or begins as required, since older records could not be read then.
 */
function continued(before: TableShape, shape: TableShape): TableShape {
  const kept = new Map(pairColumns(before, shape).kept.map(([old, column]) => [column.name, old]));
  const anew = madeAnew(before, shape);
  const columns = shape.columns.map((column): ColumnShape => {
    const old = kept.get(column.name);
    const nullable = !(column.key && old && !old.nullable);
    if (!old || anew) return { ...column, nullable };
    const { missing: _, ...rest } = column;
    const number = column.number ?? old.number;
    return {
      ...rest,
      ...stillCarried(old, column, shape),
      nullable,
      ...(number === undefined ? {} : { number }),
      ...(old.missing === undefined ? {} : { missing: old.missing }),
    };
  });
  return { ...shape, columns };
}

/** The same columns, key and tenant of the same table; what is not known of either side does not count. */
function looksLike(left: TableShape, right: TableShape): boolean {
  const known = (a: number | undefined, b: number | undefined) =>
    a === undefined || b === undefined || a === b;
  if (left.columns.length !== right.columns.length || !known(left.oid, right.oid)) return false;
  if (left.tenantColumn !== right.tenantColumn) return false;
  if (left.keyColumns.join() !== right.keyColumns.join()) return false;
  return left.columns.every((column, i) => {
    const other = right.columns[i]!;
    return (
      column.name === other.name &&
      column.type === other.type &&
      JSON.stringify(column.protection) === JSON.stringify(other.protection) &&
      known(column.number, other.number)
    );
  });
}

/** Whether the version's fields are what this Tidemark makes of the columns. */
function hasForms({ fields }: Version, shape: TableShape): boolean {
  return [...rowFields(shape)].every(([field, form]) => sameForm(fields.get(field), form));
}

/** Whether a version of the same look tells all that is known: labels, and the numbers that older versions lack. */
function says(version: TableShape, wanted: TableShape): boolean {
  return version.columns.every((column, i) => {
    const { enum: labels, number } = wanted.columns[i]!;
    return (
      JSON.stringify(column.enum) === JSON.stringify(labels) &&
      (column.number !== undefined || number === undefined)
    );
  });
}
