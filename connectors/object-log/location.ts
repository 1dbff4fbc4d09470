/** Where a destination's objects are: the option keys that say it, and the type they are parsed into once. */
import { TidemarkError } from '../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../src/connector/sink.ts';

export interface S3Location {
  kind: 's3';
  /** The option that names the URL, for messages. */
  urlKey: string;
  bucket: string;
  /** Without slashes at either end; empty for the bucket's root. */
  prefix: string;
  endpoint: string | null;
  region: string;
  credentials: { accessKeyId: string; secretAccessKey: string } | null;
  pathStyle: boolean;
  /** Path of a PEM file. */
  tlsCa: string | null;
}

export interface DirectoryLocation {
  kind: 'file';
  urlKey: string;
  /** Absolute, without a trailing slash. */
  directory: string;
}

export type Location = S3Location | DirectoryLocation;

/** @param urlKey for example `parquet.url` */
export function locationFields(urlKey: string): Record<string, OptionField> {
  return {
    [urlKey]: {
      type: 'string',
      description:
        'Where the tables go: `s3://bucket/prefix` or `file:///absolute/directory`. One destination per URL; two must never share one.',
    },
    's3.endpoint': {
      type: 'string',
      description: 'URL of an S3-compatible server; unset for AWS.',
      default: null,
    },
    's3.region': { type: 'string', description: 'Region of the bucket.', default: 'us-east-1' },
    's3.access.key.id': {
      type: 'secret',
      description: "Access key id; unset to use the machine's own AWS identity.",
      default: null,
    },
    's3.secret.access.key': {
      type: 'secret',
      description: 'Secret of the access key id.',
      default: null,
    },
    's3.path.style': {
      type: 'boolean',
      description:
        'Put the bucket into the path instead of the host name; most S3-compatible servers need it.',
      default: false,
    },
    's3.tls.ca': {
      type: 'string',
      description: "Path of a PEM file with the authority that signed the endpoint's certificate.",
      default: null,
    },
  };
}

function refuse(key: string, why: string): never {
  throw new TidemarkError('TM101', `${key}: ${why}`);
}

/** @throws TidemarkError TM101 naming the key that does not fit. */
export function locationFrom(values: OptionValues, urlKey: string): Location {
  const text = (key: string): string | null => {
    const value = values[key];
    return typeof value === 'string' && value !== '' ? value : null;
  };
  const url = text(urlKey) ?? refuse(urlKey, 'is required');
  const file = /^file:\/\/(\/.*)$/.exec(url);
  if (file) {
    const directory = file[1]!.replace(/\/+$/, '');
    if (directory === '') refuse(urlKey, 'cannot be the root directory');
    // DuckDB would read these as glob patterns in the paths of the latest-state view.
    if (/[*?[\]]/.test(directory)) refuse(urlKey, 'the directory must not contain * ? [ or ]');
    return { kind: 'file', urlKey, directory };
  }
  const s3 = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(url);
  if (!s3) return refuse(urlKey, 'must be s3://bucket/prefix or file:///absolute/directory');
  const prefix = (s3[2] ?? '').replace(/^\/+|\/+$/g, '');
  if (!/^[A-Za-z0-9/._=-]*$/.test(prefix)) {
    refuse(urlKey, 'the prefix may hold letters, digits and / . _ = - only');
  }
  const accessKeyId = text('s3.access.key.id');
  const secretAccessKey = text('s3.secret.access.key');
  if ((accessKeyId === null) !== (secretAccessKey === null)) {
    refuse('s3.access.key.id', 'and s3.secret.access.key go together');
  }
  return {
    kind: 's3',
    urlKey,
    bucket: s3[1]!,
    prefix,
    endpoint: text('s3.endpoint'),
    region: text('s3.region') ?? 'us-east-1',
    credentials: accessKeyId && secretAccessKey ? { accessKeyId, secretAccessKey } : null,
    pathStyle: values['s3.path.style'] === true,
    tlsCa: text('s3.tls.ca'),
  };
}
