// biome-ignore-all lint/suspicious/noTemplateCurlyInString: references are written so
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { OptionField } from '../../src/connector/sink.ts';
import { loadConfig, redactConfig } from '../../src/platform/config.ts';
import { TidemarkError } from '../../src/platform/errors.ts';

const minimal = `
source:
  id: shop-eu
  url: postgres://reader:pw@localhost:5433/shop
  tables: [app.*]
kafka.brokers: 127.0.0.1:9092,[::1]:9093
registry.url: http://registry:8081
control.url: postgres://control@127.0.0.1/control
`;

const postgresOptions: Record<string, OptionField> = {
  'connection.url': { type: 'secret', description: 'Where.' },
  'pool.size': { type: 'integer', description: 'Connections.', default: 4 },
  'pause.time': { type: 'duration', description: 'Pause.', default: 1500 },
  'sort.memory': { type: 'bytes', description: 'Memory.', default: '1MiB' },
  'schema.names': { type: 'list', description: 'Schemas.', default: [] },
  'dry.run': { type: 'boolean', description: 'Dry.', default: false },
  style: { type: 'string', description: 'Style.', default: null, oneOf: ['plain', 'fancy'] },
};
const sinks = new Map([
  ['postgres', { name: 'postgres', options: postgresOptions }],
  ['parquet', { name: 'parquet', options: {} }],
]);

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-config-'));
  await mkdir(join(folder, 'connectors/instances'), { recursive: true });
});
afterEach(() => rm(folder, { recursive: true }));

const put = (name: string, content: string | object): Promise<void> =>
  writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content, null, 2));
const instance = (name: string, content: string | object) => put(`connectors/instances/${name}`, content);

async function load(yaml = minimal, env: NodeJS.ProcessEnv = {}) {
  await put('tidemark.yaml', yaml);
  return loadConfig(join(folder, 'tidemark.yaml'), sinks, env);
}

/** The error that loading gives, its folder taken out. */
async function failure(yaml = minimal, env: NodeJS.ProcessEnv = {}): Promise<{ code: string; text: string }> {
  const error = await load(yaml, env).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof TidemarkError)) throw error ?? new Error('loading did not fail');
  expect(error.cause).toBeUndefined();
  return { code: error.code, text: error.message.replaceAll(`${folder}/`, '') };
}

describe('what a sound file becomes', () => {
  test('the smallest file, with every default', async () => {
    const config = await load();
    expect(config).toMatchObject({
      file: join(folder, 'tidemark.yaml'),
      source: {
        id: 'shop-eu',
        endpoint: {
          host: 'localhost',
          port: 5433,
          database: 'shop',
          user: 'reader',
          password: 'pw',
          tls: false,
        },
        slot: 'tidemark_shop_eu',
        publication: 'tidemark_shop_eu',
        tables: [{ pattern: 'app.*', tenantColumn: undefined, columns: {} }],
        tenantColumn: null,
        heartbeatIntervalMs: 2000,
        statusIntervalMs: 5000,
        values: 'auto',
        snapshot: { mode: 'initial', chunkRows: 10_000, chunkBytes: 4_194_304 },
      },
      kafka: {
        brokers: ['127.0.0.1:9092', '[::1]:9093'],
        clientId: 'tidemark',
        tls: false,
        sasl: null,
        topicPrefix: 'shop-eu',
        partitions: 4,
        replicationFactor: 3,
        minInsyncReplicas: 2,
        retentionMs: 604_800_000,
        rowMaxBytes: 67_108_864,
        compression: 'none',
        producer: 'record-batches',
        batchMaxBytes: 2_097_152,
        transactionTimeoutMs: 60_000,
        sessionTimeoutMs: 10_000,
      },
      registry: { url: 'http://registry:8081', username: null, password: null, tls: false },
      control: {
        host: '127.0.0.1',
        port: 5432,
        database: 'control',
        user: 'control',
        password: null,
        tls: false,
      },
      deliver: {
        instancesDirectory: join(folder, 'connectors/instances'),
        spillDirectory: join(folder, '.tidemark/spill'),
        spillMaxBytes: 21_474_836_480,
        memoryBytes: 268_435_456,
        spillMemoryBytes: 268_435_456,
      },
      destinations: [],
      observe: { metricsHost: '127.0.0.1', metricsPort: null },
    });
    expect(config.source.personalColumns).toEqual(expect.arrayContaining(['email', '*_phone', 'ssn']));
  });

  test('nested, dotted and mixed spellings are the same', async () => {
    const nested = await load(`${minimal}observe: {metrics: {host: 0.0.0.0, port: 9000}}`);
    expect(await load(`${minimal}observe.metrics: {host: 0.0.0.0, port: "9000"}`)).toEqual(nested);
    expect(await load(`${minimal}observe: {metrics.host: 0.0.0.0, metrics.port: 9000}`)).toEqual(nested);
    expect(await load(`${minimal}observe.metrics.host: 0.0.0.0\nobserve.metrics.port: 9000`)).toEqual(nested);
  });

  test('table rules: tenant, no tenant, columns nested and dotted, names such as __proto__', async () => {
    const yaml = minimal.replace(
      'tables: [app.*]',
      `tables:
    - app.users
    - {pattern: app.orders, tenant: {column: org_id}, columns: {email: keep, __proto__: drop}}
    - {pattern: app.countries, tenant.column: null, columns.Name: keep}
    - {pattern: app.plans, tenant: {column: ~}}`,
    );
    const { tables } = (await load(yaml)).source;
    expect(tables.map((rule) => [rule.pattern, rule.tenantColumn, Object.entries(rule.columns)])).toEqual([
      ['app.users', undefined, []],
      [
        'app.orders',
        'org_id',
        [
          ['email', 'keep'],
          ['__proto__', 'drop'],
        ],
      ],
      ['app.countries', null, [['Name', 'keep']]],
      ['app.plans', null, []],
    ]);
    expect(({} as Record<string, unknown>).email).toBeUndefined();
  });

  test('a scalar is the text that was written: a password of digits keeps its zero', async () => {
    const yaml = minimal.replace('reader:pw@', 'reader@').replace('tables:', 'password: 0123\n  tables:');
    expect((await load(yaml)).source.endpoint.password).toBe('0123');
  });

  test('what leaves the machine is verified unless something else is chosen', async () => {
    const remote = minimal
      .replace('localhost:5433', 'db')
      .replace('[::1]', 'k2')
      .replace('127.0.0.1/c', 'db/c');
    const config = await load(remote);
    for (const tls of [config.source.endpoint.tls, config.kafka.tls, config.control.tls]) {
      expect(tls).toEqual({ rejectUnauthorized: true });
    }
    const plain = await load(
      `${remote}source.tls.mode: disable\nkafka.tls.mode: disable\ncontrol.tls.mode: disable`,
    );
    for (const tls of [plain.source.endpoint.tls, plain.kafka.tls, plain.control.tls])
      expect(tls).toBe(false);
  });

  test('registry credentials move out of the URL; https is verified', async () => {
    const config = await load(minimal.replace('http://reg', 'https://me:p%40ss@reg'));
    expect(config.registry).toMatchObject({
      url: 'https://registry:8081',
      username: 'me',
      password: 'p@ss',
      tls: { rejectUnauthorized: true },
    });
  });
});

describe('destinations', () => {
  const replica = {
    'connector.class': 'postgres',
    tables: 'app.*, audit.log',
    'connection.url': 'postgres://u:hush@h/d',
  };

  test('wrapped and flat form, strings and numbers, examples left out, in the order of file names', async () => {
    await instance('b.json', { name: 'two', config: { ...replica, name: 'two', cadence: 'continuous' } });
    await instance('a.json', {
      name: 'one',
      ...replica,
      'cadence.app.findings': '1m',
      'window.max.records': '500',
      'pool.size': 8,
      'dry.run': true,
      'sort.memory': 1024,
      'schema.names': ['x', 'y'],
      style: 'fancy',
    });
    await instance('c.example.json', 'not JSON');
    await instance('README.md', 'not JSON');
    const [one, two] = (await load()).destinations;
    expect(one).toEqual({
      name: 'one',
      file: join(folder, 'connectors/instances/a.json'),
      kind: 'postgres',
      tables: ['app.*', 'audit.log'],
      cadenceMs: 900_000,
      tableCadenceMs: { 'app.findings': 60_000 },
      tenant: null,
      windowMaxRecords: 500,
      pauseAfterMs: null,
      quarantineMaxRows: 1000,
      options: {
        'connection.url': 'postgres://u:hush@h/d',
        'pool.size': 8,
        'pause.time': 1500,
        'sort.memory': 1024,
        'schema.names': ['x', 'y'],
        'dry.run': true,
        style: 'fancy',
      },
    });
    expect(two).toMatchObject({ name: 'two', cadenceMs: 0, windowMaxRecords: 100_000 });
    expect(two?.options).toMatchObject({ 'sort.memory': 1_048_576, 'schema.names': [], style: null });
  });

  test('every problem of every file in one error, with lines and the nearest spelling', async () => {
    await instance('a.json', {
      name: 'Bad_Name',
      config: { ...replica, 'conection.url': 'sekret-1', cadence: '15 min' },
    });
    await instance('b.json', { name: 'b', config: { ...replica, 'connector.class': 'postgress' } });
    await instance('c.json', { name: 'c', config: { ...replica, 'cadence.other.t': '1m', style: 'fency' } });
    await instance('d.json', '{"name": "d", "config": {"a": "sekret-2", "a": 1}}');
    await instance('e.json', '{"name": sekret-3}');
    await instance('f.json', { name: 'f', config: { ...replica, nested: { 'sekret-4': 1 } } });
    await instance('g.json', { name: 'g', config: { tables: 'app.*' }, extra: 1 });
    const { code, text } = await failure();
    expect(code).toBe('TM101');
    const line = (part: string): string => text.split('\n').find((each) => each.includes(part)) ?? text;
    expect(line('a.json:2')).toMatch(/name: must be 1 to 63 of a-z/);
    expect(line('conection.url')).toMatch(
      /a\.json:7: conection.url: unknown key; did you mean connection.url\? Allowed here: .*cadence/,
    );
    expect(line('a.json:8')).toMatch(/cadence: must be continuous, or a duration/);
    expect(line('b.json')).toMatch(
      /connector.class: must be one of postgres, parquet; did you mean postgres\?/,
    );
    expect(line('cadence.other.t')).toMatch(/does not cover/);
    expect(line('c.json:8')).toMatch(/one of plain, fancy; did you mean fancy\?/);
    expect(line('d.json')).toMatch(/d\.json:1: the same key is there twice/);
    expect(line('e.json')).toMatch(/not valid JSON/);
    expect(line('f.json')).toMatch(/nested: must not be an object/);
    expect(text).toMatch(/g\.json.*extra: stands beside "config"/);
    expect(text).toMatch(/g\.json.*connector.class: is missing: one of postgres, parquet/);
    expect(text).not.toMatch(/sekret|hush/);
  });

  test('two files with one name, a name that differs from that in config', async () => {
    await instance('a.json', { name: 'same', config: replica });
    await instance('b.json', { name: 'same', config: { ...replica, name: 'other' } });
    const { text } = await failure();
    expect(text).toMatch(/b\.json: name: is the name of .*a\.json already/);
    expect(text).toMatch(/b\.json:7: config.name: differs from name/);
  });

  test('the examples load when they are given a name that counts', async () => {
    const text = (description: string): OptionField => ({ type: 'string', description, default: null });
    const examples = {
      replica: { 'connection.url': text('') },
      lake: Object.fromEntries(
        [
          'parquet.url',
          's3.endpoint',
          's3.region',
          's3.access.key.id',
          's3.secret.access.key',
          's3.path.style',
        ].map((key) => [key, text('')]),
      ),
    };
    for (const name of Object.keys(examples)) {
      const example = new URL(`../../connectors/instances/${name}.example.json`, import.meta.url);
      const content = (await readFile(example, 'utf8')).replace('/run/secrets', folder);
      await instance(`${name}.json`, content);
    }
    await put('lake-secret-access-key', 'x\n');
    await put('tidemark.yaml', minimal);
    const kinds = new Map([
      ['postgres', { name: 'postgres', options: examples.replica }],
      ['parquet', { name: 'parquet', options: examples.lake }],
    ]);
    const env = { REPLICA_URL: 'postgres://u@h/d', LAKE_ACCESS_KEY_ID: 'k' };
    const { destinations } = await loadConfig(join(folder, 'tidemark.yaml'), kinds, env);
    expect(destinations.map(({ name, cadenceMs }) => [name, cadenceMs])).toEqual([
      ['lake', 900_000],
      ['replica', 0],
    ]);
    expect(destinations[0]?.options['s3.secret.access.key']).toBe('x');
  });

  test('an optional folder may be missing, a named one may not', async () => {
    await rm(join(folder, 'connectors'), { recursive: true });
    expect((await load()).destinations).toEqual([]);
    expect((await failure(`${minimal}deliver.instances.directory: there`)).text).toMatch(
      /there: the folder cannot be read/,
    );
  });
});

describe('references', () => {
  test('env, file, a key of a JSON and of a properties file, the escape', async () => {
    await put('password', 'from file\n');
    await put('secrets.json', { broker: 'k9:9092' });
    await put('secrets.properties', '# comment\nuser = kafka\nother=1\n');
    const config = await load(
      `${minimal.replace('127.0.0.1:9092,[::1]:9093', '["${file:secrets.json:broker}"]')}
kafka.sasl: {mechanism: plain, username: '\${file:secrets.properties:user}', password: 'a\${env:A}b$\${env:B}c'}
registry: {username: "x", password: "\${file:${folder}/password}"}`,
      { A: '${env:B}', B: 'never' },
    );
    expect(config.kafka.brokers).toEqual(['k9:9092']);
    expect(config.kafka.sasl).toEqual({
      mechanism: 'plain',
      username: 'kafka',
      password: 'a${env:B}b${env:B}c',
    });
    expect(config.registry.password).toBe('from file');
  });

  test('an unresolved one names file, line, key and reference, and is TM102', async () => {
    await put('secrets.json', { other: 'sekret' });
    const { code, text } = await failure(
      minimal.replace(':pw@', ':${env:NOPE}@').replace('127.0.0.1:9092', '${file:none}') +
        'kafka.client.id: ${file:secrets.json:wanted}\nobserve.metrics.host: pre${sekret',
      { OTHER: 'sekret' },
    );
    expect(code).toBe('TM102');
    expect(text.split('\n')).toEqual([
      'tidemark.yaml:4: source.url: ${env:NOPE} cannot be resolved: the environment variable is not set',
      'tidemark.yaml:6: kafka.brokers: ${file:none} cannot be resolved: it does not exist',
      'tidemark.yaml:9: kafka.client.id: ${file:secrets.json:wanted} cannot be resolved: the file has no such key',
      expect.stringMatching(/^tidemark.yaml:10: observe.metrics.host: has a "\$\{" that is neither/),
    ]);
  });

  test('names on the prototype of the environment are not variables; a device is not a file', async () => {
    const { text } = await failure(
      `${minimal}kafka.client.id: \${env:constructor}\nobserve.metrics.host: \${file:/dev/zero}`,
    );
    expect(text).toMatch(/constructor\} cannot be resolved/);
    expect(text).toMatch(/not a regular file/);
  });

  test('a resolved value that does not fit is not repeated', async () => {
    const { code, text } = await failure(
      `${minimal}kafka.compression: \${env:C}\nkafka.topic.retention: \${env:C}`,
      { C: 'sekret' },
    );
    expect(code).toBe('TM101');
    expect(text).not.toContain('sekret');
  });
});

describe('privacy', () => {
  const tables = (policy: string) =>
    minimal.replace('[app.*]', `[{pattern: app.*, tenant.column: org, columns: {${policy}}}]`);
  const key = 'privacy.hash.key: sekret-of-thirty-two-characters-and-more\n';

  test('a column is kept, dropped, hashed or masked in a documented form', async () => {
    const config = await load(tables('a: hash, b: mask:network, c: drop, d: keep') + key);
    expect(config.source.tables[0]!.columns).toEqual({
      a: 'hash',
      b: 'mask:network',
      c: 'drop',
      d: 'keep',
    });
    expect(config.source.hashKey).toBe('sekret-of-thirty-two-characters-and-more');
  });

  test.each([
    ['a hash without a key', tables('a: hash'), /privacy.hash.key: is missing/],
    ['a short key', `${minimal}privacy.hash.key: sekret\n`, /privacy.hash.key: must be at least 32 char/],
    ['a hash with a short key', `${tables('a: hash')}privacy.hash.key: sekret\n`, /at least 32 char[^\n]*$/],
    ['a hashed tenant', tables('org: hash') + key, /org is the tenant column/],
    ['a masked tenant', tables('org: mask:full'), /org is the tenant column/],
  ])('%s is refused, without a word of the key', async (_what, yaml, expected) => {
    const { code, text } = await failure(yaml);
    expect(code).toBe('TM101');
    expect(text).toMatch(expected);
    expect(text).not.toMatch(/sekret/);
  });
});

describe('what is refused', () => {
  test('unknown, doubled and unfit keys, all at once, with their lines', async () => {
    const { code, text } = await failure(`
source:
  id: Shop
  urll: postgres://u:sekret@h/d
  user: u
  tables: [app, a.b.c, app.*, app.*, {pattern: x.y, column: {a: keep}}, {columns: {a: kep}}]
  status.interval: 10
  heartbeat: {interval: 1us}
kafka:
  brokers: [k1]
  topic: {partitions: 0, min: {insync.replicas: 4}}
  topic.partitions: 3
  row.max.bytes: 64MB
  sasl.username: u
registry: nothing
control: {host: h, port: 99999}
obsrve: {metrics: {port: 1}}
`);
    expect(code).toBe('TM101');
    for (const expected of [
      /yaml:3: source.id: must be a-z, 0-9, _ and -, at most 48$/m,
      /yaml:4: source.urll: unknown key; did you mean source.url\? Allowed here: source.id, source.slot/,
      /yaml:6: source.tables\[0\]: must be `schema.table` or `schema.\*`/,
      /yaml:6: source.tables\[1\]: must be/,
      /yaml:6: source.tables\[4\].column: unknown key/,
      /yaml:6: source.tables\[5\].columns.a: must be one of keep, drop, hash, mask:full, .*; did you mean keep\?/,
      /yaml:6: source.tables\[5\].pattern: is missing/,
      /yaml:6: source.tables: has two rules for the same pattern/,
      /yaml:7: source.status.interval: must be a duration such as 500ms.* from 100ms to 1m$/m,
      /yaml:8: source.heartbeat.interval: must be a duration/,
      /yaml:10: kafka.brokers: must be a list .*each `host:port`; item 1 is not/,
      /yaml:11: kafka.topic.partitions: must be a whole number from 1 to 10000/,
      /yaml:11: kafka.topic.min.insync.replicas: must be at most kafka.topic.replication.factor/,
      /yaml:12: kafka.topic.partitions: is set twice; the first is on line 11/,
      /yaml:13: kafka.row.max.bytes: must be a size such as 64MiB/,
      /yaml:14: kafka.sasl.username: is set without kafka.sasl.mechanism/,
      /yaml:15: registry: holds a group of keys, not a value; allowed: registry.url/,
      /yaml: registry.url: is missing: an http or https URL/,
      /yaml:16: control.port: must be a whole number from 1 to 65535/,
      /yaml: control.user: is missing; set it, or control.url/,
      /yaml:17: obsrve: unknown key; did you mean observe\? Allowed here: source.\*, kafka.\*/,
    ]) {
      expect(text).toMatch(expected);
    }
    expect(text).not.toMatch(/sekret/);
  });

  test('a URL beside its parts, ssl parameters beside tls keys, two passwords', async () => {
    const { text } = await failure(
      minimal.replace('/shop\n', '/shop?sslmode=require\n  host: h\n  password: x\n  tls.mode: disable\n'),
    );
    expect(text).toMatch(/source.host: is set beside source.url/);
    expect(text).toMatch(/source.password: is set, and source.url has a password too/);
    expect(text).toMatch(/source.url: has ssl parameters, and source.tls.\* is set too/);
  });

  test.each([
    [
      'an alias bomb',
      `a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n${minimal}`,
      /anchors and aliases are not accepted/,
    ],
    ['an alias to itself', `a: &a {b: *a}\n`, /anchors and aliases|the syntax is wrong/],
    ['a merge key', `base: &b {id: sekret}\nsource: {<<: *b}`, /anchors and aliases/],
    ['deep nesting', '['.repeat(100_000), /nesting is too deep|syntax is wrong/],
    [
      'deep maps',
      `${Array.from({ length: 40 }, (_, depth) => `${' '.repeat(depth)}a:`).join('\n')} 1`,
      /nested more than/,
    ],
    [
      'very many keys',
      Array.from({ length: 30_000 }, (_, index) => `k${index}: 1`).join('\n'),
      /more than 20000 values/,
    ],
    [
      'many unknown keys',
      Array.from({ length: 15_000 }, (_, index) => `sourceid${index}: 1`).join('\n'),
      /and \d+ more$/,
    ],
    ['a file beyond a mebibyte', `# ${'x'.repeat(1 << 20)}`, /file of at most/],
    ['a doubled key', `${minimal}control.url: sekret`, /yaml:9: the same key is there twice/],
    ['a tag', `source: !!js/function sekret`, /tags such as !name/],
    ['two documents', `${minimal}---\na: sekret`, /more than one document/],
    ['a list at the top', '- sekret', /must hold keys and values/],
    ['a text at the top', 'sekret', /must hold keys and values/],
    ['a complex key', '? [sekret]\n: 1', /key must be plain text/],
    ['an unclosed quote', 'source: "sekret', /quote, bracket|syntax is wrong/],
    ['a reserved character', 'source: @sekret', /syntax is wrong/],
    [
      'a prototype key',
      `${minimal}__proto__: {source: {id: x}}\nconstructor: 1`,
      /__proto__: unknown key[\s\S]*constructor: unknown key/,
    ],
    [
      'a URL in place of a key',
      `postgres://u:sekret@h/d: 1`,
      /\(a key that is not a dotted name\): unknown key/,
    ],
    [
      'wrong types',
      `${minimal.replace('id: shop-eu', 'id: [sekret]')}kafka.compression: {sekret: 1}`,
      /source.id: must be .*not a list[\s\S]*kafka.compression: must be one of .*not a map/,
    ],
    ['an empty file', '', /source.id: is missing/],
    ['binary', '\0\x01sekret: \xff', /./],
  ])('%s', async (_name, yaml, expected) => {
    const { code, text } = await failure(yaml);
    expect(code).toBe('TM101');
    expect(text).toMatch(expected);
    expect(text).not.toMatch(/sekret/);
    expect(text.length).toBeLessThan(20_000);
  });

  test('a missing file', async () => {
    await expect(loadConfig(join(folder, 'none.yaml'), sinks)).rejects.toThrow(
      /none.yaml: cannot be read: it does not exist/,
    );
  });
});

describe('redactConfig', () => {
  test('prints no secret: passwords, TLS keys, secret options, passwords within URLs', async () => {
    await instance('a.json', {
      name: 'a',
      'connector.class': 'postgres',
      tables: 'app.*',
      'connection.url': 'sekret-url',
      'schema.names': 'shown',
    });
    const config = await load(
      `${minimal.replace(':pw@', ':sekret-1@').replace('http://', 'http://u:sekret-2@')}
kafka.sasl: {mechanism: scram-sha-256, username: someone, password: sekret-3}
privacy.hash.key: sekret-of-thirty-two-characters-and-more`,
    );
    config.source.endpoint.tls = { key: 'sekret-4', passphrase: 'sekret-5', cert: 'x', ca: 'y' };
    const printed = JSON.stringify(redactConfig(config));
    expect(printed).not.toMatch(/sekret/);
    expect(printed).toMatch(/someone.*\[redacted\].*shown/);
    expect(JSON.stringify(config)).toMatch(/sekret-1/);
    const copied = { ...config, destinations: structuredClone(config.destinations) };
    expect(JSON.stringify(redactConfig(copied))).not.toMatch(/sekret|shown/);
  });
});
