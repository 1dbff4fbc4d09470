/**
 * Proves per table that a destination equals the source at one Position, while writes go on:
 *
 * 1. The destination is held: no further Window is decided, so it stays below what comes next.
 * 2. A snapshot of the source is exported at a consistent point C, and tables are locked against truncation.
 * 3. The hold is aimed at C: the workers cut Windows up to exactly C and stop there.
 * 4. Every subscribed table is read on both sides and compared.
 * 5. The hold is confirmed, which proves that nothing moved meanwhile, and released whatever happened.
 *
 * While it runs, the snapshot keeps the source from removing dead rows (as pg_dump does), and the destination falls
 * behind by as long as the comparison takes.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pool } from 'pg';
import { formatPosition, type Position } from '../connector/position.ts';
import type { TableShape } from '../connector/shape.ts';
import { tableName } from '../connector/shape.ts';
import type { Readable, Sink, SinkKind } from '../connector/sink.ts';
import { QuarantineLedger } from '../deliver/quarantine/quarantine-ledger.ts';
import { matchTopics, unitsOf } from '../deliver/unit-topics.ts';
import { openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { Logger } from '../platform/log.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';
import { abortable, within } from '../platform/wait.ts';
import { shapeOfSchema } from '../publish/avro-schema.ts';
import { topicNames } from '../publish/record-format.ts';
import { SnapshotRequests } from '../publish/snapshot/snapshot-requests.ts';
import { SourceLedger, type SourceRow } from '../publish/source-ledger.ts';
import type { CatalogueTable } from '../replicate/catalogue.ts';
import { awaitSnapshots } from './await-snapshots.ts';
import { awaitTarget } from './await-target.ts';
import { compareTable } from './compare-table.ts';
import { defaultHoldMs, HoldKeeper } from './hold-keeper.ts';
import { type ParkedTables, parkedTablesAt } from './parked-tables.ts';
import type { TableReport, VerifyEvent, VerifyReport } from './report.ts';
import { openSourceSnapshot, type SourceSnapshot } from './source-snapshot.ts';

export interface VerifyOptions {
  config: ResolvedConfig;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  destination: string;
  log: Logger;
  /** Differing keys to name per table. */
  limit: number;
  /** For each wait: for running transactions, for the workers, for the registry and Kafka. Reading takes its time. */
  timeoutMs: number;
  onProgress?(event: VerifyEvent): void;
  /** Aborting rejects with its reason, after the hold is released. */
  signal?: AbortSignal;
  /** Tables parked at a Position, by `schema.name`; read from the progress topic where absent. */
  parkedTables?(at: Position): Promise<ParkedTables>;
  timing?: Partial<VerifyTiming>;
  /** Rows per table that the search for differing rows may remember, about 200 bytes each. */
  memoryRows?: number;
}

/** Milliseconds. */
export interface VerifyTiming {
  /** A verify that died holds its destination this long. */
  holdMs: number;
  pollMs: number;
  /** A destination without any Unit is given up after this. */
  graceMs: number;
}

const defaultTiming: VerifyTiming = { holdMs: defaultHoldMs, pollMs: 250, graceMs: 10_000 };
const defaultMemoryRows = 500_000;

interface Run extends VerifyOptions {
  pool: Pool;
  sink: Readable;
  instance: DestinationConfig;
  kind: SinkKind;
  known: SourceRow;
  hold: HoldKeeper;
  signal: AbortSignal;
  timing: VerifyTiming;
  onProgress(event: VerifyEvent): void;
}

/**
 * @throws TidemarkError TM101 for an unknown destination; TM408 when another verify holds it, nobody delivers, or
 *   transactions do not end; the worker's, the source's or the sink's own error
 */
export async function verifyDestination(options: VerifyOptions): Promise<VerifyReport> {
  const { config, log, sinkKinds } = options;
  const instance = config.destinations.find(({ name }) => name === options.destination);
  const kind = instance && sinkKinds.get(instance.kind);
  if (!instance || !kind) {
    const known = config.destinations.map(({ name }) => name).join(', ') || '(none)';
    throw new TidemarkError('TM101', `destination ${options.destination} is not one of ${known}`);
  }
  const timing = { ...defaultTiming, ...options.timing };
  const place = { sourceId: config.source.id, destination: instance.name };
  const pool = openControl(config.control, log);
  try {
    options.signal?.throwIfAborted();
    const known = await readSource(pool, config.source.id);
    const { topicPrefix } = config.kafka;
    const names = topicNames(topicPrefix);
    await awaitSnapshots({
      requests: new SnapshotRequests(pool, config.source.id),
      chosen: (table) => {
        const dot = table.indexOf('.');
        const topic = names.table({ schema: table.slice(0, dot), name: table.slice(dot + 1) });
        return matchTopics(topicPrefix, instance.tables, [topic]).length > 0;
      },
      timeoutMs: options.timeoutMs,
      pollMs: timing.pollMs,
      signal: options.signal ?? new AbortController().signal,
      onProgress: options.onProgress ?? (() => {}),
    });
    return await withSink(options, { instance, kind }, async (sink) => {
      const hold = await HoldKeeper.take(pool, place, timing.holdMs, log);
      try {
        const signal = AbortSignal.any([hold.lost, ...(options.signal ? [options.signal] : [])]);
        const onProgress = options.onProgress ?? (() => {});
        const run = { pool, sink, instance, kind, known, hold, signal, timing, onProgress };
        return await verifyHeld({ ...options, ...run });
      } finally {
        await hold.release();
      }
    });
  } finally {
    await pool.end();
  }
}

async function readSource(pool: Pool, sourceId: string): Promise<SourceRow> {
  const known = await new SourceLedger(pool, sourceId).read();
  if (known?.state === 'streaming') return known;
  throw new TidemarkError(
    'TM408',
    `no reader has streamed source ${sourceId} yet: there is nothing to compare with`,
  );
}

async function verifyHeld(run: Run): Promise<VerifyReport> {
  const { config, instance, signal, hold, known } = run;
  const { topicPrefix } = config.kafka;
  const names = topicNames(topicPrefix);
  const clock = stopwatch();
  const snapshot = await openSourceSnapshot({
    source: config.source,
    known,
    chosen: (table) => matchTopics(topicPrefix, instance.tables, [names.table(table)]).length > 0,
    timeoutMs: run.timeoutMs,
    pollMs: Math.max(run.timing.pollMs, 100),
    signal,
    onProgress: run.onProgress,
  });
  try {
    const position = formatPosition({ epoch: known.epoch, lsn: snapshot.lsn, ordinal: 0 });
    const snapshotMs = clock.lap();
    await hold.aim(position);
    const { shapes, parked } = await awaitDelivered(run, snapshot.tables, position);
    const deliverMs = clock.lap();
    const tables = await compareTables(run, snapshot, position, shapes, parked);
    const report: VerifyReport = {
      sourceId: config.source.id,
      destination: instance.name,
      position,
      equal: tables.every(({ status }) => status === 'equal'),
      tables,
      durations: { snapshotMs, deliverMs, compareMs: clock.lap(), totalMs: clock.total() },
    };
    run.log.info('verified', {
      destination: instance.name,
      position,
      equal: report.equal,
      tables: tables.length,
      ...report.durations,
    });
    return report;
  } finally {
    await snapshot.close();
  }
}

/** Returns when the destination stands at `position`, with what was published of each table until then. */
async function awaitDelivered(run: Run, tables: readonly CatalogueTable[], position: Position) {
  const { config, pool, instance, kind, signal, timeoutMs, timing, onProgress, log } = run;
  const { topicPrefix } = config.kafka;
  const names = topicNames(topicPrefix);
  const units = (chosen: readonly CatalogueTable[]) => [
    ...unitsOf(
      kind.unit,
      topicPrefix,
      chosen.map((table) => names.table(table)),
    ).keys(),
  ];
  const reached = (required: readonly string[]) =>
    awaitTarget({
      pool,
      sourceId: config.source.id,
      destination: instance.name,
      target: position,
      candidates: units(tables),
      required,
      timeoutMs,
      graceMs: timing.graceMs,
      pollMs: timing.pollMs,
      signal,
      onProgress,
    });
  // Asked for meanwhile: joining a consumer group takes Kafka seconds.
  const over = new AbortController();
  const limits = { timeoutMs, signal: AbortSignal.any([signal, over.signal]), log };
  const reading = run.parkedTables?.(position) ?? parkedTablesAt(config, position, limits);
  reading.catch(() => {});
  try {
    await reached([]);
    // Not earlier: until then a Change below the Position may still be published, with a newer schema.
    const shapes = await readShapes(run, tables);
    await reached(units(tables.filter((table) => shapes.has(tableName(table)))));
    return { shapes, parked: await abortable(reading, signal) };
  } finally {
    over.abort();
  }
}

/** Shapes by `schema.name`; a table that was never published has none. @throws TidemarkError TM304, TM206 */
async function readShapes(
  { config, log, signal, timeoutMs }: Run,
  tables: readonly CatalogueTable[],
): Promise<Map<string, TableShape>> {
  const registry = new RegistryClient(config.registry, log);
  const names = topicNames(config.kafka.topicPrefix);
  try {
    const shapes = new Map<string, TableShape>();
    for (const table of tables) {
      const latest = await within(registry.latest(`${names.table(table)}-value`), {
        limitMs: timeoutMs,
        signal,
        late: () => new TidemarkError('TM304', 'the Schema Registry did not answer in time'),
      });
      if (latest) shapes.set(tableName(table), shapeOfSchema(latest.schema));
    }
    return shapes;
  } finally {
    registry.close();
  }
}

async function compareTables(
  run: Run,
  { client, tables }: SourceSnapshot,
  position: Position,
  shapes: ReadonlyMap<string, TableShape>,
  parked: ParkedTables,
): Promise<TableReport[]> {
  const { config, sink, signal, limit, onProgress, hold } = run;
  const reports: TableReport[] = [];
  const memoryRows = run.memoryRows ?? defaultMemoryRows;
  const { source } = config;
  const quarantined = await new QuarantineLedger(run.pool).list(source.id, {
    destination: run.instance.name,
    all: false,
  });
  for (const table of tables) {
    const name = tableName(table);
    reports.push(
      await compareTable(
        {
          source,
          client,
          sink,
          position,
          tenant: run.instance.tenant,
          limit,
          memoryRows,
          signal,
          onProgress,
        },
        table,
        shapes.get(name) ?? null,
        parked[name] ?? null,
        quarantined.filter((entry) => entry.table === name).length,
      ),
    );
  }
  await hold.confirm();
  return reports;
}

/** @throws TidemarkError TM101 for a destination that cannot be read back; what opening it throws */
async function withSink<T>(
  { config, log, signal }: VerifyOptions,
  { instance, kind }: Pick<Run, 'instance' | 'kind'>,
  work: (sink: Readable) => Promise<T>,
): Promise<T> {
  // A folder of our own: a sink wipes its folder at start, and the worker's may be on this machine.
  const scratchDirectory = join(config.deliver.spillDirectory, instance.name, `verify-${randomUUID()}`);
  const named = log.child({ destination: instance.name });
  const opening = kind.open(
    {
      sourceId: config.source.id,
      destination: instance.name,
      scratchDirectory,
      log: (level, message, fields) => named[level](message, fields),
      failpoint,
    },
    instance.options,
  );
  const sink = await abortable(opening, signal ?? new AbortController().signal).catch((error) => {
    opening.then((late) => late.close()).catch(() => {});
    throw error;
  });
  try {
    if (!isReadable(sink)) {
      throw new TidemarkError('TM101', `what ${instance.name} (${kind.name}) holds cannot be read back`, {
        remedy: 'Its Receipts in the ledger say what it acknowledged: `tidemark status`.',
      });
    }
    return await work(sink);
  } finally {
    await sink.close().catch(() => {});
    await rm(scratchDirectory, { recursive: true, force: true });
  }
}

function isReadable(sink: Sink): sink is Sink & Readable {
  return 'readTable' in sink;
}

/** Whole milliseconds. */
function stopwatch() {
  const startedAt = performance.now();
  let lapAt = startedAt;
  return {
    lap(): number {
      const now = performance.now();
      const lap = Math.round(now - lapAt);
      lapAt = now;
      return lap;
    },
    total: () => Math.round(performance.now() - startedAt),
  };
}
