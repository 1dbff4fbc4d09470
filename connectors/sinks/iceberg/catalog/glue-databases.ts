/** Namespaces of a Glue catalog: its databases, which have one level. */
import {
  CreateDatabaseCommand,
  DeleteDatabaseCommand,
  GetDatabaseCommand,
  type GlueClient,
  paginateGetDatabases,
} from '@aws-sdk/client-glue';
import type { Namespace } from './catalog.ts';
import { glueErrorName } from './glue-failures.ts';
import { databaseOf, orAbsent, run } from './glue-requests.ts';

export class GlueDatabases {
  readonly #client: GlueClient;
  readonly #catalog: { CatalogId?: string };

  constructor(client: GlueClient, catalog: { CatalogId?: string }) {
    this.#client = client;
    this.#catalog = catalog;
  }

  list(): Promise<Namespace[]> {
    return run('list databases', async () => {
      const found: Namespace[] = [];
      for await (const page of paginateGetDatabases({ client: this.#client }, this.#catalog)) {
        for (const { Name } of page.DatabaseList ?? []) found.push([Name!]);
      }
      return found;
    });
  }

  async exists(namespace: Namespace): Promise<boolean> {
    const request = new GetDatabaseCommand({ ...this.#catalog, Name: databaseOf(namespace) });
    return (await orAbsent('look for a database', () => this.#client.send(request))) !== null;
  }

  create(namespace: Namespace, properties: Record<string, string>): Promise<'created' | 'exists'> {
    const DatabaseInput = { Name: databaseOf(namespace), Parameters: properties };
    return run('create a database', async () => {
      try {
        await this.#client.send(new CreateDatabaseCommand({ ...this.#catalog, DatabaseInput }));
        return 'created';
      } catch (error) {
        if (glueErrorName(error) === 'AlreadyExistsException') return 'exists';
        throw error;
      }
    });
  }

  /** With its tables: Glue asks nobody. */
  async drop(namespace: Namespace): Promise<'dropped' | 'absent'> {
    const request = new DeleteDatabaseCommand({ ...this.#catalog, Name: databaseOf(namespace) });
    const answer = await orAbsent('drop a database', () => this.#client.send(request));
    return answer === null ? 'absent' : 'dropped';
  }
}
