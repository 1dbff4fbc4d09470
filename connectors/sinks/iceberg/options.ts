/** The instance file's keys, and what they resolve to. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../../src/connector/sink.ts';
import { type DateChoice, dateField } from '../../object-log/partition.ts';
import { type CatalogSettings, catalogFields, catalogFrom } from './catalog/options.ts';
import type { DeleteGranularity } from './files/write-position-deletes.ts';
import type { S3Access } from './s3-access.ts';

const optional = { default: null } as const;

export const memoryKey = 'iceberg.memory.bytes';

export const optionFields = {
  ...catalogFields,
  'iceberg.namespace': {
    type: 'string',
    description:
      'Namespace of a table, levels between dots; `{schema}` stands for the schema that it has in Postgres. One destination per namespace.',
    default: '{schema}',
  },
  'iceberg.mode': {
    type: 'string',
    description:
      '`merge`: a table holds its current rows; `append`: every Change, partitioned by the day of ingest. It stays what it was when the destination began.',
    default: 'merge',
    oneOf: ['merge', 'append'],
  },
  'iceberg.partition.tenant': {
    type: 'boolean',
    description: 'Partition new tables by their tenant column, where they have one in the replica identity.',
    default: true,
  },
  'iceberg.partition.date': {
    ...dateField(),
    description:
      'Partition new tables by the day of a date or timestamp column of their key. `auto`: the first one; `none`: none; else its name. Tables that are there keep the partition spec that they have.',
  },
  history: {
    type: 'boolean',
    description: 'Also keep every Change, append-only, in the table `<table>_changes`.',
    default: false,
  },
  'iceberg.target.file.bytes': {
    type: 'bytes',
    description: 'A data file is ended at about this size.',
    default: 64 * 1024 * 1024,
  },
  'iceberg.row.group.rows': { type: 'integer', description: 'Rows per row group.', default: 20_000 },
  'iceberg.delete.granularity': {
    type: 'string',
    description:
      '`partition`: a position delete file for each partition and Window; `file`: one for each data file, of which readers open fewer.',
    default: 'partition',
    oneOf: ['partition', 'file'],
  },
  'iceberg.memory.bytes': {
    type: 'bytes',
    description: 'Cap of DuckDB’s memory per destination; what does not fit goes to the scratch directory.',
    default: 512 * 1024 * 1024,
  },
  'iceberg.cache.bytes': {
    type: 'bytes',
    description:
      'Room in the scratch directory for what is kept from one Window to the next: indexes of keys (20 bytes a row), and copies of what was read of a bucket’s files.',
    default: 2 * 1024 * 1024 * 1024,
  },
  'iceberg.compact.files': {
    type: 'integer',
    description:
      'Once a partition has so many small data files, or so many files of deletes, they are merged, between Windows; 0 never merges.',
    default: 16,
  },
  'iceberg.keep.snapshots': {
    type: 'integer',
    description:
      'A table keeps so many snapshots, those of the last hour, and what tags and branches name; older ones go by themselves. Table properties `history.expire.*` come first; 0 keeps all.',
    default: 1000,
  },
  's3.endpoint': {
    type: 'string',
    description: 'URL of an S3-compatible server, where the catalog does not say it; unset for AWS.',
    ...optional,
  },
  's3.region': { type: 'string', description: 'Region of the bucket.', default: 'us-east-1' },
  's3.access.key.id': {
    type: 'secret',
    description: "Access key id; unset to use the catalog's credentials or the machine's own AWS identity.",
    ...optional,
  },
  's3.secret.access.key': { type: 'secret', description: 'Secret of the access key id.', ...optional },
  's3.path.style': {
    type: 'boolean',
    description: 'Address buckets in the path instead of the host name.',
    default: false,
  },
  's3.tls.ca': {
    type: 'string',
    description: 'Path of the authority’s certificate of the object store (PEM); unset: the system’s.',
    ...optional,
  },
} as const satisfies Record<string, OptionField>;

export interface IcebergSettings {
  mode: 'merge' | 'append';
  catalog: CatalogSettings;
  s3: S3Access;
  namespace: string;
  partitionByTenant: boolean;
  dates: DateChoice;
  history: boolean;
  targetFileBytes: number;
  rowGroupRows: number;
  deleteGranularity: DeleteGranularity;
  memoryBytes: number;
  cacheBytes: number;
  /** 0: never. */
  compactFiles: number;
  /** 0: all. */
  keepSnapshots: number;
}

/** @throws TidemarkError TM101 naming the key that does not fit; never a value */
export function resolveSettings(values: OptionValues): IcebergSettings {
  const text = (key: keyof typeof optionFields): string | null => {
    const value = values[key];
    return typeof value === 'string' && value !== '' ? value : null;
  };
  const number = (key: keyof typeof optionFields, least: number): number => {
    const value = Number(values[key] ?? optionFields[key].default);
    if (!(value >= least)) throw new TidemarkError('TM101', `${key}: needs at least ${least}`);
    return value;
  };
  const compactFiles = number('iceberg.compact.files', 0);
  if (compactFiles > 0 && compactFiles < 4)
    throw new TidemarkError('TM101', 'iceberg.compact.files: needs 0 or at least 4');
  const [accessKeyId, secretAccessKey] = [text('s3.access.key.id'), text('s3.secret.access.key')];
  if ((accessKeyId === null) !== (secretAccessKey === null))
    throw new TidemarkError('TM101', 's3.access.key.id: and its secret go together');
  const namespace = text('iceberg.namespace') ?? '{schema}';
  if (namespace.split('.').some((level) => level === ''))
    throw new TidemarkError('TM101', 'iceberg.namespace: has an empty level');
  const dates = text('iceberg.partition.date') ?? 'auto';
  const mode = text('iceberg.mode') === 'append' ? 'append' : 'merge';
  if (mode === 'append' && values.history === true)
    throw new TidemarkError('TM101', 'history: tables of iceberg.mode append have every Change already');
  return {
    mode,
    catalog: catalogFrom(values),
    s3: {
      endpoint: text('s3.endpoint'),
      region: text('s3.region') ?? 'us-east-1',
      pathStyle: values['s3.path.style'] === true,
      tlsCa: text('s3.tls.ca'),
      credentials: accessKeyId && secretAccessKey ? async () => ({ accessKeyId, secretAccessKey }) : null,
    },
    namespace,
    partitionByTenant: values['iceberg.partition.tenant'] !== false,
    dates: dates === 'none' ? 'commit' : dates,
    history: values.history === true,
    targetFileBytes: number('iceberg.target.file.bytes', 1),
    rowGroupRows: number('iceberg.row.group.rows', 1),
    deleteGranularity: text('iceberg.delete.granularity') === 'file' ? 'file' : 'partition',
    memoryBytes: number('iceberg.memory.bytes', 64 * 1024 * 1024),
    cacheBytes: number('iceberg.cache.bytes', 0),
    compactFiles,
    keepSnapshots: number('iceberg.keep.snapshots', 0),
  };
}
