/** A change of shape is explained, a version is found again after a restart, and a table that comes back counts alike. */
import { describe, expect, it } from 'vitest';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { sameText } from '../../src/connector/recast.ts';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import { createLogger } from '../../src/platform/log.ts';
import type { LatestSchema } from '../../src/platform/registry.ts';
import type { IncompatibleChange } from '../../src/platform/resolved-config.ts';
import { Parking } from '../../src/publish/parking.ts';
import { compareShapes } from '../../src/publish/shape-change.ts';
import { type DescribedTable, TableVersions } from '../../src/publish/table-versions.ts';
import { type ColumnOrigin, laterNote } from '../../src/replicate/column-origins.ts';

/** `2 a text`, `1 id integer key`; `? a text` where the number is not known. */
function table(columns: string[], oid = 1): TableShape {
  const list = columns.map((text): ColumnShape => {
    const [, number, name, type, key] = /^(\d+|\?) (\S+) (.*?)( key)?$/.exec(text)!;
    return {
      name: name!,
      type: type!,
      key: key !== undefined,
      nullable: key === undefined,
      ...(number === '?' ? {} : { number: Number(number) }),
    };
  });
  const keyColumns = list.flatMap(({ key }, i) => (key ? [i] : []));
  return { schema: 'app', name: 't', columns: list, keyColumns, tenantColumn: null, oid };
}

function originsOf(shape: TableShape, computed: string[] = []): Map<string, ColumnOrigin> {
  return new Map(
    shape.columns
      .filter(({ number }) => number !== undefined)
      .map(({ name, number, missing }) => [
        name,
        {
          name,
          number: number!,
          type: 0,
          typmod: -1,
          missing: missing ?? null,
          computed: computed.includes(name),
        },
      ]),
  );
}

const before = table(['1 id integer key', '2 a text', '3 n integer']);

describe('what a change breaks', () => {
  const cases: [string, TableShape, string[], { readers?: string; rows?: string; changes?: string }][] = [
    [
      'a column added',
      table(['1 id integer key', '2 a text', '3 n integer', '4 b text']),
      [],
      { changes: 'column b added' },
    ],
    [
      'a column added with a default per row',
      table(['1 id integer key', '2 a text', '3 n integer', '4 b uuid']),
      ['b'],
      { rows: 'column b added: its default was worked out row by row' },
    ],
    [
      'a column added that the catalogue does not know',
      table(['1 id integer key', '2 a text', '3 n integer', '? b uuid']),
      [],
      { rows: 'column b added: the catalogue has moved on since' },
    ],
    [
      'a column renamed',
      table(['1 id integer key', '2 b text', '3 n integer']),
      [],
      { changes: 'column a renamed to b' },
    ],
    ['a column dropped', table(['1 id integer key', '3 n integer']), [], { changes: 'column a dropped' }],
    [
      'a column dropped and added again',
      table(['1 id integer key', '2 a text', '4 n integer']),
      [],
      { changes: 'column n added, column n dropped' },
    ],
    [
      'a name taken over by another type',
      table(['1 id integer key', '2 a text', '4 n text']),
      [],
      { readers: 'column n added where one of the name was dropped: Avro cannot read int as string' },
    ],
    [
      'a wider type',
      table(['1 id integer key', '2 a text', '3 n bigint']),
      [],
      { changes: 'column n changed from integer to bigint' },
    ],
    [
      'another type',
      table(['1 id integer key', '2 a text', '3 n boolean']),
      [],
      { readers: 'Avro cannot read int as boolean' },
    ],
    [
      'a type that Avro can read, of other values',
      table(['1 id integer key', '2 a text', '3 n double precision']),
      [],
      { rows: 'existing rows got other values' },
    ],
    [
      'another key',
      table(['1 id integer key', '2 a text key', '3 n integer']),
      [],
      { readers: 'the key changed from (id) to (id, a)' },
    ],
    [
      'no key',
      table(['1 id integer', '2 a text', '3 n integer']),
      [],
      { changes: 'the key changed from (id) to ()' },
    ],
    ['another table of the name', table(['1 x text'], 2), [], { rows: 'another table took the name' }],
  ];
  it.each(cases)('%s', (_, after, computed, { readers, rows, changes }) => {
    const change = compareShapes(before, after, { origins: originsOf(after, computed), made: false });
    const contains = (text: string | undefined) =>
      text === undefined ? [] : [expect.stringContaining(text)];
    expect(change.breaksReaders).toEqual(contains(readers));
    expect(change.breaksRows).toEqual(contains(rows));
    expect(change.changes.join(', ')).toContain(readers ?? rows ?? changes);
  });

  it('a table made anew in the stream has no rows to ask about', () => {
    const after = table(['1 x text'], 2);
    const change = compareShapes(before, after, { origins: new Map(), made: true });
    expect([change.breaksReaders, change.breaksRows]).toEqual([[], []]);
  });

  it('types whose texts stay', () => {
    const of = (type: string): ColumnShape => ({ name: 'c', type, key: false, nullable: true });
    const stays = (from: string, to: string) => sameText(of(from), of(to));
    for (const [from, to] of [
      ['smallint', 'bigint'],
      ['integer[]', 'bigint[]'],
      ['character varying(5)', 'character varying(9)'],
      ['character varying(5)', 'text'],
      ['numeric(5,2)', 'numeric(9,2)'],
      ['uuid', 'text'],
      ['timestamp(3) with time zone', 'timestamp with time zone'],
    ] as const)
      expect(stays(from, to), `${from} to ${to}`).toBe(true);
    for (const [from, to] of [
      ['bigint', 'integer'],
      ['text', 'character varying(5)'],
      ['character(5)', 'text'],
      ['boolean', 'text'],
      ['inet', 'text'],
      ['numeric(5,2)', 'numeric(9,3)'],
      ['numeric(5,2)', 'numeric'],
      ['timestamp without time zone', 'timestamp with time zone'],
      ['integer', 'bigint[]'],
    ] as const)
      expect(stays(from, to), `${from} to ${to}`).toBe(false);
  });
});

/** Subjects in memory; the same text again is the same id, as registries have it. */
class MemoryRegistry {
  readonly subjects = new Map<string, LatestSchema[]>();
  readonly levels = new Map<string, string>();
  #id = 0;

  async versions(subject: string): Promise<LatestSchema[]> {
    return [...(this.subjects.get(subject) ?? [])];
  }

  async register(subject: string, schema: string, compatibility = 'BACKWARD'): Promise<number> {
    const versions = this.subjects.get(subject) ?? [];
    this.subjects.set(subject, versions);
    if (!this.levels.has(subject)) this.levels.set(subject, compatibility);
    const known = versions.find((each) => each.schema === schema);
    if (known) return known.id;
    versions.push({ id: ++this.#id, version: versions.length + 1, schema });
    return this.#id;
  }

  registerNext(subject: string, schema: string): Promise<number> {
    return this.register(subject, schema);
  }

  async compatibilityOf(subject: string): Promise<string | null> {
    return this.levels.get(subject) ?? null;
  }

  async setCompatibility(subject: string, level: string): Promise<void> {
    this.levels.set(subject, level);
  }

  async isCompatible(): Promise<boolean> {
    return true;
  }
}

describe('versions', () => {
  const log = createLogger({ level: 'error' });
  const open = (registry: MemoryRegistry, policy: IncompatibleChange = 'park') =>
    new TableVersions({ registry, compatibility: 'BACKWARD', onIncompatibleChange: () => policy, log });
  const described = (shape: TableShape): DescribedTable => {
    const { oid, ...rest } = shape;
    const columns = shape.columns.map(({ number: _, missing: __, ...column }) => column);
    return {
      topic: 'p.app.t',
      shape: { ...rest, columns },
      oid: oid!,
      origins: originsOf(shape),
      made: false,
      renamedFrom: null,
      policy: null,
    };
  };
  const wider = table(['1 id integer key', '2 a text', '3 n integer', '4 b text']);

  it('a shape renamed and renamed back is a third version; after a restart all are found again', async () => {
    const registry = new MemoryRegistry();
    const renamed = table(['1 id integer key', '2 z text', '3 n integer']);
    const history = [before, renamed, before, wider];
    const versions = open(registry);
    const ids: number[] = [];
    for (const shape of history) ids.push((await versions.register(described(shape))).valueSchemaId);
    expect(new Set(ids).size).toBe(4);
    expect(registry.subjects.get('p.app.t-value')).toHaveLength(4);
    const again = open(registry);
    // The stream repeats from its last Progress on.
    for (const shape of history.slice(2))
      expect(ids).toContain((await again.register(described(shape))).valueSchemaId);
    expect(registry.subjects.get('p.app.t-value')).toHaveLength(4);
  });

  it('what is not known of a column is what was known of it before', async () => {
    const versions = open(new MemoryRegistry());
    await versions.register(described(before));
    const { shape } = await versions.register({ ...described(before), origins: new Map() });
    expect(shape.columns.map(({ number }) => number)).toEqual([1, 2, 3]);
    const unknown = { ...described(wider), origins: new Map() };
    await expect(versions.register(unknown)).rejects.toMatchObject({ code: 'TM231' });
  });

  it('what existing rows have is kept from the version that added the column', async () => {
    const registry = new MemoryRegistry();
    const versions = open(registry);
    await versions.register(described(before));
    const origins = originsOf(wider);
    origins.set('b', { ...origins.get('b')!, missing: 'five' });
    await versions.register({ ...described(wider), origins });
    const most = table(['1 id integer key', '2 a text', '3 n bigint', '4 b text']);
    const { shape } = await versions.register(described(most));
    expect(shape.columns[3]).toMatchObject({ name: 'b', number: 4, missing: 'five' });
  });

  it('a key column joins as nullable, so that older records can be read', async () => {
    const versions = open(new MemoryRegistry());
    await versions.register(described(table(['1 id integer', '2 a text'])));
    const { shape, keySchemaId } = await versions.register(
      described(table(['1 id integer key', '2 a text'])),
    );
    expect(shape.columns[0]).toMatchObject({ key: true, nullable: true });
    expect(keySchemaId).not.toBeNull();
  });

  it('a type whose form another Tidemark registered otherwise is said to be so, and comes back as a major version', async () => {
    const registry = new MemoryRegistry();
    await open(registry).register(described(before));
    const [first] = registry.subjects.get('p.app.t-value')!;
    // As if an earlier version had carried integers as text.
    first!.schema = first!.schema.replace(
      '{"name":"n","type":["null","int"]',
      '{"name":"n","type":["null","string"]',
    );
    expect(first!.schema).toContain('{"name":"n","type":["null","string"]');
    await expect(open(registry).register(described(before))).rejects.toMatchObject({
      code: 'TM231',
      message:
        "the shape of app.t changed: nothing in Postgres, but Tidemark's form of integer (column n) is another since an upgrade: Avro cannot read string as int",
    });
    await open(registry).register({ ...described(before), policy: 'evolve' });
    await open(registry).register(described(before));
    const schemas = registry.subjects.get('p.app.t-value')!.map(({ schema }) => JSON.parse(schema).tidemark);
    expect(schemas).toMatchObject([{ major: 1 }, { major: 2 }]);
  });

  it('a breaking change is TM231 by policy, or a major version beside the others', async () => {
    const registry = new MemoryRegistry();
    const retyped = table(['1 id integer key', '2 a text', '3 n text']);
    const strict = open(registry);
    await strict.register(described(before));
    await expect(strict.register(described(retyped))).rejects.toMatchObject({
      code: 'TM231',
      message: expect.stringContaining(
        'column n changed from integer to text: Avro cannot read int as string',
      ),
    });
    await open(registry, 'evolve').register(described(retyped));
    const [, second] = registry.subjects.get('p.app.t-value')!;
    expect(JSON.parse(second!.schema).tidemark).toMatchObject({ version: 2, major: 2 });
    expect(registry.levels.get('p.app.t-value')).toBe('BACKWARD');
  });
});

describe('on.incompatible.change: text', () => {
  const log = createLogger({ level: 'error' });
  const open = (registry: MemoryRegistry) =>
    new TableVersions({ registry, compatibility: 'BACKWARD', onIncompatibleChange: () => 'text', log });
  const described = (shape: TableShape): DescribedTable => {
    const { oid, ...rest } = shape;
    const columns = shape.columns.map(({ number: _, missing: __, ...column }) => column);
    const origins = originsOf(shape);
    const fixed = { topic: 'p.app.t', made: false, renamedFrom: null, policy: null };
    return { ...fixed, shape: { ...rest, columns }, oid: oid!, origins };
  };
  /** Field by field: its type, without null, and `key` where it is required. */
  const fields = (schema: string) => {
    const [before] = JSON.parse(schema).fields;
    const list = before.type[1].fields as { name: string; type: unknown }[];
    return list.map(({ name, type }) => `${name} ${Array.isArray(type) ? type[1] : `${type} key`}`);
  };
  const through = async (...history: string[][]) => {
    const registry = new MemoryRegistry();
    const versions = open(registry);
    for (const columns of history) await versions.register(described(table(columns)));
    const schemas = registry.subjects.get('p.app.t-value')!.map(({ schema }) => schema);
    // A new process finds the last again.
    await open(registry).register(described(table(history.at(-1)!)));
    expect(registry.subjects.get('p.app.t-value')).toHaveLength(schemas.length);
    for (const schema of schemas) expect(JSON.parse(schema).tidemark.major).toBe(1);
    return schemas.map(fields);
  };
  const key = '1 id integer key';

  it('a string goes on in its field; anything else gets one beside it, and leaves the old one', async () => {
    expect(await through([key, '2 a jsonb', '3 n integer'], [key, '2 a integer', '3 n date'])).toEqual([
      ['id int key', 'a [object Object]', 'n int'],
      ['id int key', 'a string', 'n__text string', 'n int'],
    ]);
  });

  it('stays so: another type, the type of old, and a rename go on as text', async () => {
    const [, ...later] = await through(
      [key, '3 n integer'],
      [key, '3 n text'],
      [key, '3 n uuid'],
      [key, '3 n integer'],
      [key, '3 m integer'],
      [key, '3 m integer', '4 n bytea'],
      [key, '3 m integer'],
    );
    expect(later).toEqual([
      ['id int key', 'n__text string', 'n int'],
      ['id int key', 'n__text string', 'n int'],
      ['id int key', 'n__text string', 'n int'],
      ['id int key', 'm__text string'],
      ['id int key', 'm__text string', 'n bytes'],
      ['id int key', 'm__text string'],
    ]);
  });

  it('a field that is taken is given to nobody else', async () => {
    expect(
      await through(
        [key, '2 n__text bytea', '3 n integer'],
        [key, '2 n__text bytea', '3 n text'],
        [key, '2 n__text bytea', '3 n text', '4 n__text_2 integer'],
      ),
    ).toEqual([
      ['id int key', 'n__text bytes', 'n int'],
      ['id int key', 'n__text bytes', 'n__text_2 string', 'n int'],
      ['id int key', 'n__text bytes', 'n__text_2 string', 'n__text_2_2 int', 'n int'],
    ]);
  });

  it('a name taken over by another type', async () => {
    expect(await through([key, '3 n integer'], [key, '4 n text'])).toEqual([
      ['id int key', 'n int'],
      ['id int key', 'n__text string'],
    ]);
  });

  it('a key that changes its type or its columns parks', async () => {
    for (const after of [['1 id uuid key'], [key, '2 a text key'], [key, '2 a text', '? b text']])
      await expect(through([key, '2 a text'], after)).rejects.toMatchObject({ code: 'TM231' });
  });
});

describe('notes of the event trigger', () => {
  it('what existing rows got is what the first note says, also after a rewrite', () => {
    const note = (missing: string | null, name = 'c') => ({
      oid: 1,
      made: false,
      columns: [{ name, number: 3, type: 25, typmod: -1, missing, computed: false }],
    });
    const two = laterNote(note('five'), note(null, 'renamed'));
    expect(two.columns).toMatchObject([{ name: 'renamed', number: 3, missing: 'five' }]);
  });
});

describe('parking', () => {
  const at = (lsn: number, ordinal = 0): Position => formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal });
  const parked = (lsn: number) => ({ position: at(lsn, 1), code: 'TM231', reason: 'r', moves: null });

  it('a table that comes back is parked in every Progress before the end of that Transaction', () => {
    const parking = new Parking({ t: parked(1) });
    expect(parking.holds('t')).toBe(true);
    expect(parking.startResume('u')).toBe(false);
    expect(parking.startResume('t')).toBe(true);
    expect(parking.holds('t')).toBe(false);
    expect(Object.keys(parking.at(at(9, 5)))).toEqual(['t']);
    parking.endTransaction(at(9, 20));
    expect(Object.keys(parking.at(at(8)))).toEqual(['t']);
    expect(Object.keys(parking.at(at(9, 19)))).toEqual(['t']);
    expect(parking.at(at(9, 20))).toEqual({});
  });

  it('one that is parked again on the way keeps its old place until then', () => {
    const parking = new Parking({ t: parked(1) });
    parking.startResume('t');
    parking.park('t', parked(9));
    expect(parking.holds('t')).toBe(true);
    expect(parking.at(at(9, 3)).t!.position).toBe(at(1, 1));
    parking.endTransaction(at(9, 20));
    expect(parking.at(at(9, 20)).t!.position).toBe(at(9, 1));
  });

  it('Progress does not name what is parked later', () => {
    const parking = new Parking({});
    parking.park('t', parked(9));
    expect(parking.at(at(8))).toEqual({});
  });
});
