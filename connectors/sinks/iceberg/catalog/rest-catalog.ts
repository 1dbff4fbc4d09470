/**
 * A catalog behind the Iceberg REST catalog API: Polaris, Nessie, Glue, S3 Tables, Lakekeeper and others.
 *
 * Not proven here: those products themselves. The tests' servers, Iceberg's own and SeaweedFS, check the requirements of
 * all tables of a transaction first and then change one table after the other, so that a reader may see some of them
 * changed is theirs, and that it may not is their word. A table's own `token`, remote signing and `Idempotency-Key` are
 * not used.
 */
import type {
  Catalog,
  LoadedTable,
  Namespace,
  TableCommit,
  TableCreation,
  TableIdentifier,
} from './catalog.ts';
import { tableText } from './catalog.ts';
import type { Json, JsonObject } from './exact-json.ts';
import { loadedTable, namesOf, tokenOf, withoutCredentials } from './rest-answers.ts';
import type { RestAnswer, RestClient, RestRequest } from './rest-client.ts';
import type { RestConfig } from './rest-config.ts';
import type { RestPaths } from './rest-paths.ts';

/** Names in one answer; a server may send fewer. */
const pageSize = 1000;

export class RestCatalog implements Catalog {
  readonly commitsTogether: boolean;
  /** Defaults of the server, then what this side said, then the server's overrides. */
  readonly properties: Readonly<Record<string, string>>;
  readonly #client: RestClient;
  readonly #paths: RestPaths;
  readonly #delegation: Record<string, string>;

  /** @param delegation ways to reach the files that the catalog may offer: `vended-credentials`, or none */
  constructor(client: RestClient, config: RestConfig, delegation: readonly string[]) {
    this.#client = client;
    this.#paths = config.paths;
    this.properties = config.properties;
    this.commitsTogether = config.commitsTogether;
    this.#delegation = delegation.length === 0 ? {} : { 'x-iceberg-access-delegation': delegation.join(',') };
  }

  async listNamespaces(parent: Namespace = []): Promise<Namespace[]> {
    const found: Namespace[] = [];
    const query: Record<string, string> = parent.length === 0 ? {} : { parent: this.#paths.parent(parent) };
    const request = {
      path: this.#paths.namespaces(),
      query,
      what: 'list namespaces',
      subject: 'namespace' as const,
    };
    for await (const page of this.#pages(request)) found.push(...namesOf(page, 'namespaces'));
    return found;
  }

  async namespaceExists(namespace: Namespace): Promise<boolean> {
    const { status } = await this.#client.send({
      // HEAD came later than GET, which every catalog has.
      method: 'GET',
      path: this.#paths.namespace(namespace),
      what: `look for namespace ${namespace.join('.')}`,
      subject: 'namespace',
      expected: [404],
    });
    return status !== 404;
  }

  async createNamespace(namespace: Namespace, properties: Record<string, string> = {}) {
    const { status } = await this.#client.send({
      method: 'POST',
      path: this.#paths.namespaces(),
      body: { namespace, properties },
      what: `create namespace ${namespace.join('.')}`,
      subject: 'namespace',
      expected: [409],
    });
    return status === 409 ? 'exists' : 'created';
  }

  async dropNamespace(namespace: Namespace) {
    const { status } = await this.#client.send({
      method: 'DELETE',
      path: this.#paths.namespace(namespace),
      what: `drop namespace ${namespace.join('.')}`,
      subject: 'namespace removal',
      expected: [404],
    });
    return status === 404 ? 'absent' : 'dropped';
  }

  async listTables(namespace: Namespace): Promise<TableIdentifier[]> {
    const found: TableIdentifier[] = [];
    const what = `list tables of ${namespace.join('.')}`;
    const request = { path: this.#paths.tables(namespace), query: {}, what, subject: 'namespace' as const };
    for await (const page of this.#pages(request)) {
      for (const name of namesOf(page, 'identifiers')) {
        found.push({ namespace: name.slice(0, -1), name: name.at(-1)! });
      }
    }
    return found;
  }

  async tableExists(identifier: TableIdentifier): Promise<boolean> {
    const { status } = await this.#client.send({
      method: 'HEAD',
      path: this.#paths.table(identifier),
      what: `look for table ${tableText(identifier)}`,
      subject: 'table',
      expected: [404, 405],
    });
    // HEAD came later than GET.
    return status === 405 ? (await this.loadTable(identifier)) !== null : status !== 404;
  }

  async loadTable(identifier: TableIdentifier): Promise<LoadedTable | null> {
    const what = `load table ${tableText(identifier)}`;
    const { status, body } = await this.#client.send({
      method: 'GET',
      path: this.#paths.table(identifier),
      headers: this.#delegation,
      what,
      subject: 'table',
      expected: [404],
    });
    return status === 404 ? null : this.#loaded(body, identifier, what);
  }

  createTable(creation: TableCreation): Promise<LoadedTable> {
    return this.#create(creation, false);
  }

  stageTable(creation: TableCreation): Promise<LoadedTable> {
    return this.#create(creation, true);
  }

  async commit(commits: readonly TableCommit[]): Promise<(LoadedTable | null)[]> {
    if (commits.length === 1) return [await this.#commitOne(commits[0]!)];
    if (!this.commitsTogether) throw new Error('this catalog commits one table at a time');
    await this.#client.send({
      method: 'POST',
      path: this.#paths.transactions(),
      body: { 'table-changes': commits.map(changeOf) },
      what: `commit ${commits.map(({ identifier }) => tableText(identifier)).join(', ')}`,
      subject: 'commit',
    });
    return commits.map(() => null);
  }

  async dropTable(identifier: TableIdentifier, purge: boolean) {
    const { status } = await this.#client.send({
      method: 'DELETE',
      path: this.#paths.table(identifier),
      query: { purgeRequested: String(purge) },
      what: `drop table ${tableText(identifier)}`,
      subject: 'table',
      expected: [404],
    });
    return status === 404 ? 'absent' : 'dropped';
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  async #commitOne(commit: TableCommit): Promise<LoadedTable> {
    const what = `commit table ${tableText(commit.identifier)}`;
    const { body } = await this.#client.send({
      method: 'POST',
      path: this.#paths.table(commit.identifier),
      body: changeOf(commit),
      what,
      subject: 'commit',
    });
    return this.#loaded(body, commit.identifier, what);
  }

  async #create(creation: TableCreation, staged: boolean): Promise<LoadedTable> {
    const { identifier, schema, partitionSpec, sortOrder, location, properties } = creation;
    const what = `${staged ? 'stage' : 'create'} table ${tableText(identifier)}`;
    const body: JsonObject = { name: identifier.name, schema, 'stage-create': staged };
    if (partitionSpec !== undefined) body['partition-spec'] = partitionSpec;
    if (sortOrder !== undefined) body['write-order'] = sortOrder;
    if (location !== undefined) body.location = location;
    if (properties !== undefined) body.properties = properties;
    const answer = await this.#client.send({
      method: 'POST',
      path: this.#paths.tables(identifier.namespace),
      headers: this.#delegation,
      body,
      what,
      subject: 'creation',
    });
    const table = this.#loaded(answer.body, identifier, what);
    // Some servers name the file that a commit will write.
    return staged ? { ...table, metadataLocation: null } : table;
  }

  #loaded(body: Json, identifier: TableIdentifier, what: string): LoadedTable {
    const table = loadedTable(body, identifier, what, this.properties);
    // Some servers give them to whoever asks for a table.
    return Object.keys(this.#delegation).length === 0 ? withoutCredentials(table) : table;
  }

  /** A server without pages ignores what asks for them. */
  async *#pages(
    request: Pick<RestRequest, 'path' | 'what' | 'subject'> & { query: Record<string, string> },
  ): AsyncIterable<RestAnswer> {
    // The first token is empty: it says that this side knows pages.
    let pageToken: string | null = '';
    while (pageToken !== null) {
      const query = { ...request.query, pageToken, pageSize: String(pageSize) };
      const answer: RestAnswer = await this.#client.send({ ...request, method: 'GET', query });
      yield answer;
      const next = tokenOf(answer);
      pageToken = next === pageToken ? null : next;
    }
  }
}

function changeOf({ identifier, requirements, updates }: TableCommit): Record<string, unknown> {
  return { identifier, requirements, updates };
}
