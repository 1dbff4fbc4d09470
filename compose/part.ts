/** What a server of the stack has to say for itself; one file per server implements it. */
import type { PartName, StackLayout } from './layout.ts';
import type { Prerequisites } from './prerequisites.ts';

export interface ServerCommand {
  file: string;
  args: string[];
  cwd: string;
  env?: NodeJS.ProcessEnv;
  uid?: number;
  gid?: number;
}

export interface Part {
  readonly name: PartName;
  /** Name and version as people know it. */
  readonly title: string;
  /** A path in the server's command line that belongs to this stack alone. */
  readonly mark: string;
  readonly stopSignal: NodeJS.Signals;
  /** Milliseconds from the stop signal to SIGKILL. */
  readonly stopTimeoutMs: number;
  /** Downloads, data folder, configuration files. Called before every start; does only what is missing. */
  prepare(): Promise<ServerCommand>;
  /** Resolves once a client gets real work done; throws while it does not yet. Creates what clients expect. */
  ready(): Promise<void>;
  /** True when this end of the log describes something that passes by itself, so that the start is tried again. */
  startMayBeRetried?(log: string): boolean;
  /** Called after a clean stop. */
  afterStop?(): Promise<void>;
  /** What clients need to know. */
  environment(): Record<string, string>;
}

/** Chosen once per stack folder. */
export interface StackSettings {
  ports: Record<PortName, number>;
  postgresPassword: string;
  s3SecretKey: string;
  clickhousePassword: string;
}

export const portNames = [
  'postgres',
  'kafka',
  'kafkaController',
  'registry',
  's3',
  's3Grpc',
  's3Iceberg',
  's3Master',
  's3MasterGrpc',
  's3Volume',
  's3VolumeGrpc',
  's3Filer',
  's3FilerGrpc',
  'clickhouse',
  'iceberg',
] as const;
export type PortName = (typeof portNames)[number];

export interface PartContext {
  layout: StackLayout;
  settings: StackSettings;
  prerequisites: Prerequisites;
  /** Speed and memory as in production, for measurements. */
  fullSpeed: boolean;
  /** The Iceberg catalog keeps tables in the object store. */
  bucketWarehouse: boolean;
  /** One progress line for the person who waits. */
  log: (line: string) => void;
}
