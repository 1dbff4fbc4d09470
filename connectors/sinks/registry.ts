/** Every kind of sink, one line each: `connector.class` in an instance file names it. */
import type { SinkKind } from '../../src/connector/sink.ts';
import { clickhouseSink } from './clickhouse/index.ts';
import { icebergSink } from './iceberg/index.ts';
import { jsonlSink } from './jsonl/index.ts';
import { kafkaSink } from './kafka/index.ts';
import { parquetSink } from './parquet/index.ts';
import { postgresSink } from './postgres/index.ts';
import { webhookSink } from './webhook/index.ts';

const kinds: SinkKind[] = [
  clickhouseSink,
  icebergSink,
  jsonlSink,
  kafkaSink,
  parquetSink,
  postgresSink,
  webhookSink,
];

export const sinkKinds: ReadonlyMap<string, SinkKind> = new Map(kinds.map((kind) => [kind.name, kind]));
