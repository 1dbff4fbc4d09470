/** What the demo can deliver to on this machine: `--destination` names kinds of sinks, one each. */
import { join } from 'node:path';
import type { PartName } from '../../compose/layout.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { DemoEndpoint } from './endpoint.ts';

/** Where destinations are, once the servers run. */
export interface DemoPlace {
  /** The demo's, absolute. */
  folder: string;
  replicaUrl: string;
  /** Of the servers. */
  environment: Readonly<Record<string, string>>;
  /** Set where events are posted to it. */
  endpoint: DemoEndpoint | null;
}

interface DemoDestination {
  /** For people. */
  title: string;
  /** Of the instance file. */
  name: string;
  cadence: string;
  /** Its own server, where it has one beside the usual ones. */
  part: PartName | null;
  /** It can be read back, and so be compared with the source. */
  verifiable: boolean;
  options(place: DemoPlace): Record<string, string>;
}

/** By `connector.class`. */
const catalogue: Readonly<Record<string, DemoDestination>> = {
  postgres: {
    title: 'Postgres',
    name: 'replica',
    cadence: 'continuous',
    part: null,
    verifiable: true,
    options: ({ replicaUrl }) => ({ 'connection.url': replicaUrl }),
  },
  parquet: {
    title: 'Parquet files',
    name: 'files',
    cadence: '5s',
    part: null,
    verifiable: true,
    options: ({ folder }) => ({ 'parquet.url': `file://${join(folder, 'files')}` }),
  },
  iceberg: {
    title: 'Iceberg tables',
    name: 'lake',
    cadence: '5s',
    part: 'iceberg',
    verifiable: true,
    // In a directory that the catalog names.
    options: ({ environment }) => ({ 'iceberg.catalog.uri': environment.TIDEMARK_ICEBERG_URL! }),
  },
  jsonl: {
    title: 'JSON Lines',
    name: 'archive',
    cadence: '5s',
    part: null,
    verifiable: true,
    options: ({ folder }) => ({ 'jsonl.url': `file://${join(folder, 'archive')}` }),
  },
  clickhouse: {
    title: 'ClickHouse',
    name: 'columns',
    cadence: '5s',
    part: 'clickhouse',
    verifiable: true,
    options: ({ environment }) => ({
      'clickhouse.url': environment.TIDEMARK_CLICKHOUSE_URL!,
      'clickhouse.database': 'demo',
      'clickhouse.user': environment.TIDEMARK_CLICKHOUSE_USER!,
      'clickhouse.password': environment.TIDEMARK_CLICKHOUSE_PASSWORD!,
    }),
  },
  kafka: {
    title: 'Kafka mirror',
    name: 'mirror',
    cadence: '5s',
    part: null,
    verifiable: false,
    // The same brokers, another layout.
    options: ({ environment }) => ({ 'kafka.brokers': environment.TIDEMARK_KAFKA_BROKERS!, format: 'json' }),
  },
  webhook: {
    title: 'webhook',
    name: 'siem',
    cadence: 'continuous',
    part: null,
    verifiable: false,
    options: ({ endpoint }) => ({ url: endpoint!.url, secret: endpoint!.secret, lanes: '2' }),
  },
};

/** Where the demo delivers to unless somebody chooses. */
const usual = ['postgres', 'iceberg'];

export interface ChosenDestination extends DemoDestination {
  kind: string;
}

/** @param text kinds, separated by commas @throws TidemarkError TM101 */
export function chosenDestinations(text: string | undefined): ChosenDestination[] {
  const kinds = text === undefined ? usual : text.split(',').map((kind) => kind.trim());
  return [...new Set(kinds)].map((kind) => {
    const found = Object.hasOwn(catalogue, kind) ? catalogue[kind] : undefined;
    if (found) return { kind, ...found };
    throw new TidemarkError('TM101', `--destination: the demo has no ${kind || 'empty name'}`, {
      remedy: `One or several of ${Object.keys(catalogue).join(', ')}, separated by commas.`,
    });
  });
}

/** @param kind `connector.class` */
export function titleOf(kind: string): string {
  return catalogue[kind]?.title ?? kind;
}
