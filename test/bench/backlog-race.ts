/**
 * A backlog in the WAL, read by each contender from a slot of its own: us into Kafka, pg_recvlogical to nowhere over TCP
 * and over a Unix socket, and Debezium into Kafka where it takes part.
 */
import type pg from 'pg';
import { type BenchDatabase, BenchStack, leave, publicationOf, say, settle } from './bench-stack.ts';
import { readWithDebezium } from './debezium-source.ts';
import { type Measured, raceBar, raceTable, takesPart } from './race-table.ts';
import { introduceReader, ReaderProcess } from './reader-process.ts';
import { readWithRecvlogical, requireRecvlogical } from './recvlogical.ts';
import type { BenchResult } from './run.ts';

export interface Backlog {
  /** Of the benchmark. */
  name: string;
  /** In a sentence: what is read. */
  what: string;
  rows: number;
  /** Before any slot exists: nobody reads this. */
  prepare(client: pg.Client): Promise<void>;
  /** What is read. @returns changes in it */
  write(client: pg.Client, rows: number, round: number): Promise<number>;
  /** The one table that Debezium reads; absent: it does not take part. */
  peerTable?: string;
}

const contenders = ['ours', 'tcp', 'socket', 'peer'] as const;
type Contender = (typeof contenders)[number];
const titles: Record<Contender, string> = {
  ours: 'Tidemark: WAL to Kafka, Avro, acks=all, transactions',
  tcp: 'pg_recvlogical to /dev/null, TCP, same options',
  socket: 'pg_recvlogical to /dev/null, Unix socket, same options',
  peer: 'Debezium 3.6.3 on Kafka Connect: WAL to Kafka, Avro, acks=all',
};

export async function backlogRace(backlog: Backlog): Promise<BenchResult> {
  requireRecvlogical();
  const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
  const rows = Number(process.env.BENCH_ROWS ?? backlog.rows);
  const racing = contenders.filter((one) => takesPart(one) && (one !== 'peer' || backlog.peerTable));
  const measured: Record<Contender, Measured[]> = { ours: [], tcp: [], socket: [], peer: [] };
  let changes = 0;
  await BenchStack.with(backlog.name, async (stack) => {
    for (let round = 1; round <= rounds; round++) {
      const database = await stack.database();
      const { client, name } = database;
      await backlog.prepare(client);
      const config = await stack.config(database);
      // All slots and the publication exist before the backlog.
      await introduceReader(config, client);
      for (const slot of racing.filter((one) => one !== 'ours'))
        await client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [`${name}_${slot}`]);
      say(`round ${round}: writing`);
      changes = await backlog.write(client, rows, round);
      const end = await settle(client);
      // Everybody goes first in some round: whoever comes later reads warm files.
      for (let i = 0; i < racing.length; i++) {
        const contender = racing[(i + round) % racing.length]!;
        const one = await run(contender, { stack, database, config, end, changes, backlog });
        measured[contender].push(one);
        say(
          `round ${round}: ${titles[contender]}: ${Math.round(one.rowsPerSecond)} rows/s, ` +
            `${one.cpuMicrosPerRow.toFixed(1)} µs`,
        );
      }
      await leave(database);
    }
  });
  return {
    name: backlog.name,
    rows: raceTable(racing, titles, measured),
    bar: raceBar,
    note: `${backlog.what}: ${changes} changes, ${rounds} rounds; ratios are medians of pairs`,
  };
}

interface Run {
  stack: BenchStack;
  database: BenchDatabase;
  config: string;
  end: string;
  changes: number;
  backlog: Backlog;
}

async function run(
  contender: Contender,
  { stack, database, config, end, changes, backlog }: Run,
): Promise<Measured> {
  const { client, name, url, socketUrl, folder } = database;
  if (contender === 'peer')
    return readWithDebezium({
      directory: `${folder}/connect`,
      brokers: [stack.brokers],
      registryUrl: stack.registryUrl,
      sourceUrl: url,
      prefix: `peer-${name}`,
      slot: `${name}_peer`,
      publication: publicationOf(name),
      table: backlog.peerTable!,
      rows: changes,
    });
  let cost: { seconds: number; cpuMicros: number; peakMiB: number };
  if (contender === 'ours') {
    const reader = await ReaderProcess.start(config);
    cost = await reader.confirmed(client, end);
    await reader.stop();
  } else
    cost = await readWithRecvlogical(
      contender === 'tcp' ? url : socketUrl,
      name,
      `${name}_${contender}`,
      end,
    );
  return {
    rowsPerSecond: changes / cost.seconds,
    cpuMicrosPerRow: cost.cpuMicros / changes,
    peakMiB: cost.peakMiB,
  };
}
