/** The client of Glue's own API, with moto in Glue's place and pyiceberg's client beside it. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { DeleteTableCommand, GetTableCommand, GlueClient, UpdateTableCommand } from '@aws-sdk/client-glue';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Catalog, TableCommit, TableMetadata } from '../../connectors/sinks/iceberg/catalog/catalog.ts';
import { parseJson, printJson } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import {
  CommitConflict,
  CommitStateUnknown,
  NamespaceNotEmpty,
  NoSuchTable,
  TableExists,
} from '../../connectors/sinks/iceberg/catalog/failures.ts';
import type { MetadataFiles } from '../../connectors/sinks/iceberg/catalog/glue-catalog.ts';
import { openCatalog } from '../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import { LocalFileStore } from '../../connectors/sinks/iceberg/local-file-store.ts';
import type { TidemarkError } from '../../src/connector/failure.ts';
import { type CatalogFront, startCatalogFront } from '../iceberg/catalog-front.ts';
import { type MotoServer, startMoto } from '../iceberg/moto.ts';
import { ensurePyiceberg } from '../iceberg/pyiceberg.ts';
import { readerCommand } from '../iceberg/reader-commands.ts';
import { ReaderProcess } from '../iceberg/reader-process.ts';

const directory = new URL('../../.tidemark/test-stacks/iceberg-glue', import.meta.url).pathname;
const warehouse = pathToFileURL(join(directory, 'warehouse')).href;
const log = (line: string) => void process.stderr.write(`${line}\n`);
const region = 'us-east-1';
const credentials = { accessKeyId: 'tests', secretAccessKey: 'tests' };
const schema = {
  type: 'struct',
  'schema-id': 0,
  fields: [{ id: 1, name: 'id', type: 'long', required: true }],
};
const store = new LocalFileStore();

let moto: MotoServer;
/** pyiceberg with the AWS SDK for Python: another client of Glue, and what applies updates to metadata. */
let python: ReaderProcess;
/** As the AWS console would look at it. */
let glue: GlueClient;
let front: CatalogFront;
let catalog: Catalog;
let failMetadata: (() => Promise<void>) | null = null;
/** Locations of metadata before and after the commits that came in. */
const past: [string, string][] = [];

beforeAll(async () => {
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  moto = await startMoto(join(directory, 'moto.log'), log);
  const command = await readerCommand('pyiceberg', directory, log);
  const path = `${await ensurePyiceberg(log)}:${moto.modules}`;
  python = await ReaderProcess.start({ ...command, env: { ...command.env, PYTHONPATH: path } });
  glue = new GlueClient({ endpoint: moto.endpoint, region, credentials });
});
afterAll(async () => {
  glue.destroy();
  await python.stop();
  await moto.stop();
  await rm(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  front = await startCatalogFront(moto.endpoint);
  catalog = await openCatalog(
    { kind: 'glue', endpoint: front.uri, region, credentials, warehouse, timeoutMs: 5000 },
    files,
    2,
  );
  failMetadata = null;
});
afterEach(async () => {
  await catalog.close();
  front.stop();
});

const files: MetadataFiles = {
  async readMetadata(location) {
    return parseJson((await store.get(location))!.toString()) as TableMetadata;
  },
  async writeMetadata(base, { requirements, updates }) {
    const request = {
      operation: 'update',
      metadata: base === null ? null : printJson(base.metadata),
      metadataLocation: base?.metadataLocation,
      requirements,
      updates,
    };
    const answer = (await python.ask(request).catch((error: Error) => {
      if (/CommitFailedException/.test(error.message)) throw new CommitConflict('write metadata');
      throw error;
    })) as { metadata: string };
    const metadata = parseJson(answer.metadata) as TableMetadata;
    const metadataLocation = `${metadata.location}/metadata/00000-${randomUUID()}.metadata.json`;
    await store.put(metadataLocation, Buffer.from(printJson(metadata)));
    await failMetadata?.();
    return { metadata, metadataLocation };
  },
  async removeMetadata(location) {
    await store.delete([location]);
  },
  async removePast(base, now) {
    past.push([base.metadataLocation, now.metadataLocation]);
  },
};

const failure = (work: Promise<unknown>) =>
  work.then(
    () => null,
    (error: unknown) => error as TidemarkError,
  );
let databases = 0;

async function newTable() {
  databases += 1;
  const identifier = { namespace: [`db${databases}`], name: 't' };
  await catalog.createNamespace(identifier.namespace);
  const table = await catalog.createTable({ identifier, schema, properties: { made: 'here' } });
  return { identifier, table };
}

function setting(identifier: TableCommit['identifier'], updates: Record<string, string>): TableCommit {
  return { identifier, requirements: [], updates: [{ action: 'set-properties', updates }] };
}

async function entry({ namespace, name }: TableCommit['identifier']) {
  const { Table } = await glue.send(new GetTableCommand({ DatabaseName: namespace[0]!, Name: name }));
  return Table!;
}

async function metadataFiles(location: string): Promise<string[]> {
  const found: string[] = [];
  for await (const page of store.list(`${location}/metadata/`))
    found.push(...page.map((each) => each.location));
  return found;
}

it('has databases and tables', async () => {
  expect(await catalog.createNamespace(['some_db'])).toBe('created');
  expect(await catalog.createNamespace(['some_db'])).toBe('exists');
  expect(await catalog.namespaceExists(['some_db'])).toBe(true);
  expect(await catalog.namespaceExists(['other_db'])).toBe(false);
  expect(await catalog.listNamespaces()).toContainEqual(['some_db']);
  const identifier = { namespace: ['some_db'], name: 'first' };
  expect(await catalog.loadTable(identifier)).toBeNull();
  const created = await catalog.createTable({ identifier, schema });
  expect(created.metadata.location).toBe(`${warehouse}/some_db.db/first`);
  expect(await failure(catalog.createTable({ identifier, schema }))).toBeInstanceOf(TableExists);
  expect(await catalog.tableExists(identifier)).toBe(true);
  expect(await catalog.listTables(['some_db'])).toEqual([identifier]);
  expect((await catalog.loadTable(identifier))!.metadata).toEqual(created.metadata);
  // The file of the attempt that was refused is gone.
  expect(await metadataFiles(created.metadata.location)).toEqual([created.metadataLocation]);
  expect(await failure(catalog.dropNamespace(['some_db']))).toBeInstanceOf(NamespaceNotEmpty);
  expect(await catalog.dropTable(identifier, true)).toBe('dropped');
  expect(await catalog.dropTable(identifier, true)).toBe('absent');
  expect(await catalog.dropNamespace(['some_db'])).toBe('dropped');
  expect(await catalog.dropNamespace(['some_db'])).toBe('absent');
  expect(await catalog.stageTable({ identifier, schema })).toBeNull();
  expect(catalog.commitsTogether).toBe(false);
});

it('takes no names that Glue would change', async () => {
  for (const namespace of [['a', 'b'], ['Capital'], ['da-sh'], ['']]) {
    expect(await failure(catalog.createNamespace(namespace))).toMatchObject({ code: 'TM405' });
  }
});

it('keeps where the metadata is, and was, and what Glue shows of the table', async () => {
  const { identifier, table } = await newTable();
  await glue.send(
    new UpdateTableCommand({
      DatabaseName: identifier.namespace[0]!,
      TableInput: {
        Name: identifier.name,
        Description: 'kept',
        Parameters: { ...(await entry(identifier)).Parameters, theirs: 'kept' },
      },
    }),
  );
  const [committed] = await catalog.commit([setting(identifier, { b: '2' })]);
  expect(committed!.metadata.properties).toMatchObject({ made: 'here', b: '2' });
  expect(past.at(-1)).toEqual([table.metadataLocation, committed!.metadataLocation]);
  expect(await entry(identifier)).toMatchObject({
    Description: 'kept',
    TableType: 'EXTERNAL_TABLE',
    Parameters: {
      table_type: 'ICEBERG',
      theirs: 'kept',
      metadata_location: committed!.metadataLocation,
      previous_metadata_location: table.metadataLocation,
    },
    StorageDescriptor: {
      Location: table.metadata.location,
      Columns: [{ Name: 'id', Type: 'bigint', Parameters: { 'iceberg.field.optional': 'false' } }],
    },
  });
});

it('shares tables with pyiceberg’s client, both ways', async () => {
  const { identifier } = await newTable();
  const properties = {
    type: 'glue',
    'glue.endpoint': moto.endpoint,
    'glue.region': region,
    'glue.access-key-id': 'tests',
    'glue.secret-access-key': 'tests',
    warehouse,
  };
  const request = { properties, namespace: identifier.namespace, table: identifier.name };
  expect(await python.ask({ operation: 'read', ...request })).toMatchObject({ columns: ['id'], rows: [] });
  const { snapshot } = (await python.ask({ operation: 'write', ...request, rows: [['7']] })) as {
    snapshot: string;
  };
  const seen = (await catalog.loadTable(identifier))!;
  expect(String(seen.metadata['current-snapshot-id'])).toBe(snapshot);
  await catalog.commit([setting(identifier, { after: 'theirs' })]);
  expect(await python.ask({ operation: 'read', ...request })).toMatchObject({ rows: [['7']] });
});

it('requirements that do not hold are a conflict before anything is written', async () => {
  const { identifier, table } = await newTable();
  const requirements = [{ type: 'assert-table-uuid', uuid: randomUUID() }];
  const commit = { ...setting(identifier, { b: '2' }), requirements };
  expect(await failure(catalog.commit([commit]))).toBeInstanceOf(CommitConflict);
  expect(await metadataFiles(table.metadata.location)).toEqual([table.metadataLocation]);
});

it('a version that Glue refuses is a conflict, and the new file is removed', async () => {
  const { identifier, table } = await newTable();
  const refusal = {
    kind: 'answer' as const,
    answer: {
      status: 400,
      headers: { 'content-type': 'application/x-amz-json-1.1' },
      body: JSON.stringify({
        __type: 'ConcurrentModificationException',
        Message: 'Update table failed due to concurrent modifications.',
      }),
    },
  };
  front.expect(/UpdateTable$/, refusal);
  expect(await failure(catalog.commit([setting(identifier, { b: '2' })]))).toBeInstanceOf(CommitConflict);
  expect(await metadataFiles(table.metadata.location)).toEqual([table.metadataLocation]);
});

it('sends the version that it read', async () => {
  const { identifier } = await newTable();
  const sent: unknown[] = [];
  const spy = new GlueClient({ endpoint: moto.endpoint, region, credentials });
  spy.middlewareStack.add(
    (next, context) => async (args) => {
      if (context.commandName === 'UpdateTableCommand') sent.push(args.input);
      return next(args);
    },
    { step: 'initialize' },
  );
  const { GlueCatalog } = await import('../../connectors/sinks/iceberg/catalog/glue-catalog.ts');
  const watched = new GlueCatalog(spy, { catalogId: null, warehouse, formatVersion: 2 }, files);
  const { VersionId } = await entry(identifier);
  expect(VersionId).toBeDefined();
  await watched.commit([setting(identifier, { b: '2' })]);
  expect(sent).toMatchObject([{ VersionId, SkipArchive: true }]);
  await watched.close();
});

it('a commit whose answer got lost is found in Glue', async () => {
  const { identifier } = await newTable();
  front.expect(/UpdateTable$/, { kind: 'forward and break' });
  // The AWS SDK sends it again; Glue, other than moto, refuses that.
  front.expect(/UpdateTable$/, {
    kind: 'answer',
    answer: { status: 400, body: JSON.stringify({ __type: 'ConcurrentModificationException' }) },
  });
  const [state] = await catalog.commit([setting(identifier, { b: '2' })]);
  expect((await entry(identifier)).Parameters!.metadata_location).toBe(state!.metadataLocation);
  front.expect(/UpdateTable$/, ...Array.from({ length: 3 }, () => ({ kind: 'break' as const })));
  const unknown = failure(catalog.commit([setting(identifier, { c: '3' })]));
  expect(await unknown).toBeInstanceOf(CommitStateUnknown);
  // Its file stays: it may yet become the table's.
  expect(await metadataFiles(state!.metadata.location)).toHaveLength(3);
});

it('a table that is dropped meanwhile is no table of ours any more', async () => {
  const { identifier } = await newTable();
  failMetadata = async () => {
    await glue.send(
      new DeleteTableCommand({ DatabaseName: identifier.namespace[0]!, Name: identifier.name }),
    );
  };
  expect(await failure(catalog.commit([setting(identifier, { b: '2' })]))).toBeInstanceOf(NoSuchTable);
});

it('failures stop or pass as they should', async () => {
  const answered = (status: number, type: string) => ({
    kind: 'answer' as const,
    answer: { status, body: JSON.stringify({ __type: type, Message: 'secret' }) },
  });
  const cases: [number, string, string][] = [
    [400, 'AccessDeniedException', 'TM402'],
    [400, 'UnrecognizedClientException', 'TM402'],
    [400, 'ThrottlingException', 'TM401'],
    [500, 'InternalServiceException', 'TM401'],
    [400, 'InvalidInputException', 'TM405'],
  ];
  for (const [status, type, code] of cases) {
    front.expect(/GetDatabase$/, ...Array.from({ length: 3 }, () => answered(status, type)));
    const result = await failure(catalog.namespaceExists(['some']));
    expect(result, type).toMatchObject({ code });
    expect(result!.message).not.toContain('secret');
    // Of those that the SDK did not send again some are left over.
    front.forget();
  }
});
