/** The room's entry: delivers to every destination of the configuration, until stopped. */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { Admin } from 'kafkajs';
import type { SinkKind } from '../connector/sink.ts';
import { migrateControl, openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';
import type { ParkedTable } from '../publish/progress.ts';
import { topicNames } from '../publish/record-format.ts';
import { type DestinationSnapshot, DestinationWorker } from './destination-worker.ts';
import { reactTo } from './failure-policy.ts';
import { SharedFetcher } from './fetch/shared-fetcher.ts';
import { Gates } from './gates.ts';
import { Ledger } from './ledger.ts';
import { Moves } from './moves.ts';
import { ProgressFollower } from './progress-follower.ts';
import { DeadLetters } from './quarantine/dead-letters.ts';
import { QuarantineLedger } from './quarantine/quarantine-ledger.ts';
import { retentionLeft } from './retention-left.ts';
import { RowSchemas } from './row-schemas.ts';
import { SettingsWatch } from './settings-watch.ts';
import { TenantTables } from './tenant-tables.ts';
import type { DeliveredWindow } from './unit-worker.ts';
import { Wake } from './wake.ts';

export interface DeliveryOptions {
  config: ResolvedConfig;
  /** By the value of `connector.class`. */
  sinkKinds: ReadonlyMap<string, SinkKind>;
  log: Logger;
  /** Called after a Window's Receipt is in the ledger. */
  onDelivery?: (delivery: DeliveredWindow) => void;
  /** Names; all when not given. */
  destinations?: readonly string[];
  /** Reads the instance files anew; they stay as they are where absent. @throws TidemarkError TM101, TM102 */
  reload?: () => Promise<readonly DestinationConfig[]>;
}

export interface DeliverySnapshot {
  destinations: DestinationSnapshot[];
  /** Tables whose changes go to the parked topic, by `schema.table`. */
  parked: Readonly<Record<string, ParkedTable>>;
  /** Newest Progress, or null before the first was read. */
  progress: { position: string; commitTimeUs: bigint } | null;
}

export interface Delivery {
  /** Finishes or abandons the Windows in flight, leaves the groups and closes everything. */
  stop(): Promise<void>;
  snapshot(): DeliverySnapshot;
}

/** How often the ledger sees that the owner of Units lives. */
const touchMs = 5000;
const retentionWatchMs = 30_000;
/** Of one destination: a Window of ordinary rows, and the next one. */
const mostHeldBytes = 112 << 20;

/**
 * Starts a worker per destination and returns at once; Kafka, the control database, the registry and destinations
 * may all be down meanwhile: it waits for each as long as it takes.
 * @throws TidemarkError TM101 for an unknown destination or connector
 */
export async function startDelivery(options: DeliveryOptions): Promise<Delivery> {
  const { config, sinkKinds, onDelivery = () => {} } = options;
  const log = options.log.child({ role: 'deliver' });
  const chosen = config.destinations.filter(({ name }) => options.destinations?.includes(name) ?? true);
  for (const name of options.destinations ?? []) {
    if (!chosen.some((destination) => destination.name === name))
      throw new TidemarkError('TM101', `there is no destination ${name}`);
  }
  const kinds = chosen.map(({ file, kind }) => {
    const found = sinkKinds.get(kind);
    if (!found) throw new TidemarkError('TM101', `${file}: there is no connector ${kind}`);
    return found;
  });

  const kafka = createKafka(config.kafka, log);
  const pool = openControl(config.control, log, Math.max(4, chosen.length * 2));
  const registry = new RegistryClient(config.registry, log);
  const ledger = new Ledger(pool, config.source.id);
  const gates = new Gates(pool, config.source.id, log);
  const moves = new Moves(pool);
  const quarantineLedger = new QuarantineLedger(pool);
  const deadLetters = new DeadLetters(kafka, config.kafka);
  const schemas = new RowSchemas(registry);
  const tenantTables = new TenantTables(registry);
  const watermarks = new WatermarkReader(kafka.admin());
  const fetcher = new SharedFetcher(kafka, log);
  const follower = new ProgressFollower({
    kafka,
    topic: topicNames(config.kafka.topicPrefix).progress,
    sourceId: config.source.id,
    fetcher,
    log,
  });
  const owner = `${hostname()}:${process.pid}:${randomBytes(4).toString('hex')}`;
  const workers: DestinationWorker[] = chosen.map(
    (destination, i) =>
      new DestinationWorker({
        config,
        destination,
        kind: kinds[i]!,
        owner,
        kafka,
        fetcher,
        heldBytes: Math.min(mostHeldBytes, Math.floor(config.deliver.memoryBytes / chosen.length)),
        pool,
        ledger,
        gates,
        moves,
        quarantineLedger,
        deadLetters,
        follower,
        schemas,
        registry,
        tenantTables,
        watermarks: (topic) => watermarks.of(topic),
        log,
        onDelivery,
        refused: () => settings?.look(),
      }),
  );

  const { reload } = options;
  const settings = reload
    ? new SettingsWatch({
        reload,
        changed: async (now) => workers.find(({ name }) => name === now.name)?.applySettings(now),
        log,
      })
    : null;

  const stopping = new Wake();
  let stopped = false;
  const migrated = (async () => {
    for (let attempt = 0; !stopped; attempt++) {
      try {
        const applied = await migrateControl(pool);
        if (applied.length > 0) log.info('migrated the control schema', { applied });
        break;
      } catch (error) {
        const failure = error instanceof TidemarkError ? error : new TidemarkError('TM409', 'cannot migrate');
        log.warn('the control schema is not ready', errorFields(failure));
        await stopping.wait(reactTo(failure, attempt).delayMs);
      }
    }
    if (stopped) return;
    await gates.refresh().catch((error) => log.debug('holds and pauses cannot be read', errorFields(error)));
    gates.start();
    follower.start();
    settings?.start();
    for (const worker of workers) worker.start();
  })();

  const warned = new Set<string>();
  const retentionWatch = setInterval(() => {
    for (const worker of workers) warnOfRetention(worker.snapshot(), config.kafka.retentionMs, warned, log);
  }, retentionWatchMs);

  const touching = setInterval(() => {
    ledger.touchUnits(owner).catch((error) => log.debug('the ledger was not touched', errorFields(error)));
  }, touchMs);

  return {
    async stop() {
      stopped = true;
      clearInterval(touching);
      clearInterval(retentionWatch);
      stopping.ring();
      await migrated;
      await settings?.stop();
      await Promise.all(workers.map((worker) => worker.stop()));
      await gates.stop();
      await follower.stop();
      await fetcher.close();
      await deadLetters.close();
      await watermarks.close();
      registry.close();
      await pool.end();
    },
    snapshot: () => ({
      destinations: workers.map((worker) => worker.snapshot()),
      parked: follower.parked,
      progress: follower.newest && {
        position: follower.newest.position,
        commitTimeUs: follower.newest.commitTimeUs,
      },
    }),
  };
}

/** Once per Unit, until it is out of danger again. */
function warnOfRetention(
  { destination, units }: DestinationSnapshot,
  retentionMs: number,
  warned: Set<string>,
  log: Logger,
): void {
  for (const { unit, commitTimeUs, backlogRecords } of units) {
    if (commitTimeUs === null) continue;
    const left = retentionLeft(retentionMs, { markTimeUs: commitTimeUs, pending: backlogRecords > 0 });
    const name = `${destination}/${unit}`;
    if (!left?.short) {
      warned.delete(name);
      continue;
    }
    if (warned.has(name)) continue;
    warned.add(name);
    const { code, remedy } = new TidemarkError('TM414', '');
    const leftSeconds = Math.round(left.leftMs / 1000);
    log.error('Kafka will expire what a Unit has yet to read', {
      destination,
      unit,
      leftSeconds,
      code,
      remedy,
    });
  }
}

/** First and next offsets of topics, over one connection that is made when it is first needed. */
class WatermarkReader {
  readonly #admin: Admin;
  #connected: Promise<void> | null = null;

  constructor(admin: Admin) {
    this.#admin = admin;
  }

  async of(topic: string): Promise<{ low: number; high: number }[]> {
    try {
      this.#connected ??= this.#admin.connect();
      await this.#connected;
      const found = await this.#admin.fetchTopicOffsets(topic);
      const result: { low: number; high: number }[] = [];
      for (const { partition, low, high } of found)
        result[partition] = { low: Number(low), high: Number(high) };
      return result;
    } catch (error) {
      this.#connected = null;
      throw kafkaError(error, `ask for the offsets of ${topic}`);
    }
  }

  async close(): Promise<void> {
    await this.#admin.disconnect().catch(() => {});
  }
}
