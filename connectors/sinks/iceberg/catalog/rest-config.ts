/** What a REST catalog says about itself at the start (`GET /v1/config`). */
import { randomUUID } from 'node:crypto';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { isObject } from './exact-json.ts';
import { texts } from './rest-answers.ts';
import type { RestClient } from './rest-client.ts';
import { RestPaths, unitSeparator } from './rest-paths.ts';

export interface RestConfig {
  paths: RestPaths;
  properties: Readonly<Record<string, string>>;
  commitsTogether: boolean;
}

const transactionsEndpoint = 'POST /v1/{prefix}/transactions/commit';

/** @param own what this side sets: between the server's defaults and its overrides */
export async function askConfig(
  client: RestClient,
  warehouse: string | null,
  own: Readonly<Record<string, string>>,
): Promise<RestConfig> {
  const { body } = await client.send({
    method: 'GET',
    path: '/v1/config',
    query: warehouse === null ? {} : { warehouse },
    what: 'ask the catalog for its configuration',
    subject: 'catalog',
  });
  if (!isObject(body)) {
    throw new TidemarkError('TM101', 'the catalog answers no configuration', {
      remedy: 'Set iceberg.catalog.uri to an Iceberg REST catalog.',
    });
  }
  const properties = { ...texts(body.defaults), ...own, ...texts(body.overrides) };
  const separator = properties['namespace-separator'] ?? unitSeparator;
  const paths = new RestPaths(properties.prefix ?? null, separator);
  const commitsTogether = Array.isArray(body.endpoints)
    ? body.endpoints.includes(transactionsEndpoint)
    : await answersTransactions(client, paths);
  return { paths, properties, commitsTogether };
}

/**
 * Servers that name no endpoints are asked to change a table that is not there: who knows transactions says so, and the
 * others know no such path.
 */
async function answersTransactions(client: RestClient, paths: RestPaths): Promise<boolean> {
  const identifier = { namespace: ['tidemark'], name: `no_table_${randomUUID()}` };
  const requirements = [{ type: 'assert-table-uuid', uuid: randomUUID() }];
  const { status, errorType } = await client.send({
    method: 'POST',
    path: paths.transactions(),
    body: { 'table-changes': [{ identifier, requirements, updates: [] }] },
    what: 'ask the catalog for transactions',
    subject: 'catalog',
    expected: [400, 403, 404, 405, 406, 409, 422, 500, 501],
  });
  return status === 409 || (status === 404 && /^NoSuch(Table|Namespace)/.test(errorType ?? ''));
}
