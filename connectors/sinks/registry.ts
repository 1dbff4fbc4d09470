/** Every kind of sink, one line each: `connector.class` in an instance file names it. */
import type { SinkKind } from '../../src/connector/sink.ts';
import { kafkaSink } from './kafka/index.ts';
import { parquetSink } from './parquet/index.ts';
import { postgresSink } from './postgres/index.ts';

const kinds: SinkKind[] = [kafkaSink, parquetSink, postgresSink];

export const sinkKinds: ReadonlyMap<string, SinkKind> = new Map(kinds.map((kind) => [kind.name, kind]));
