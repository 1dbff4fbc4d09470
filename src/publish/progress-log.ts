/**
 * The progress topic's records. Its end is not a number one can trust across open transactions and markers: a reader that
 * takes over writes a fence record of its own, in a transaction, and reads until it meets it. What comes before is all
 * there is, because nobody else can write any more.
 */
import type { Kafka } from 'kafkajs';
import { TidemarkError } from '../platform/errors.ts';
import type { TopicPartition } from '../platform/kafka-cluster.ts';
import { CommittedReader } from '../platform/kafka-fetch/committed-records.ts';
import { within } from '../platform/wait.ts';
import { decodeProgress, type Progress } from './progress.ts';

/** The last records may be fences and markers: within so many offsets there is a Progress, or further back. */
const stepBack = 200;
const limitMs = 60_000;

/**
 * The last Progress that covers something, or null in a topic without any.
 * @param fenceWriter the `writer` of a fence record that this process committed just now
 * @throws kafkajs' error; TidemarkError TM301 when the topic cannot be read within a minute
 */
export async function readLastProgress(
  kafka: Kafka,
  topic: string,
  fenceWriter: string,
): Promise<Progress | null> {
  const reader = new CommittedReader(kafka);
  const place = { topic, partition: 0 };
  const beforeFence = async (from: number): Promise<Progress | null> => {
    let last: Progress | null = null;
    for await (const progress of progressFrom(reader, place, from)) {
      if (progress.kind !== 'fence') last = progress;
      else if (progress.writer === fenceWriter) break;
    }
    return last;
  };
  const late = () =>
    new TidemarkError('TM301', 'the progress topic could not be read to its end within 60 s');
  const signal = new AbortController().signal;
  try {
    return await within(lookBack(reader, place, beforeFence), { limitMs, signal, late });
  } finally {
    await reader.close();
  }
}

/**
 * The newest committed Progress, or null where there is none: for those who take no part and must not fence anybody.
 * @throws kafkajs' error
 */
export async function peekProgress(kafka: Kafka, topic: string): Promise<Progress | null> {
  const reader = new CommittedReader(kafka);
  try {
    return await newestProgress(reader, { topic, partition: 0 });
  } finally {
    await reader.close();
  }
}

/** The last Progress before what is not decided in the topic, or null. @throws kafkajs' error */
export function newestProgress(reader: CommittedReader, place: TopicPartition): Promise<Progress | null> {
  return lookBack(reader, place, async (from, end) => {
    let last: Progress | null = null;
    for await (const progress of progressFrom(reader, place, from, end))
      if (progress.kind !== 'fence') last = progress;
    return last;
  });
}

/** Of the newest few hundred records on, also as they come. @throws kafkajs' error */
export async function* followProgress(
  reader: CommittedReader,
  place: TopicPartition,
): AsyncGenerator<Progress, void> {
  const { beginning, end } = await reader.boundsOf(place);
  yield* progressFrom(reader, place, Math.max(beginning, end - stepBack));
}

async function* progressFrom(
  reader: CommittedReader,
  place: TopicPartition,
  from: number,
  to?: number,
): AsyncGenerator<Progress, void> {
  for await (const { value } of reader.follow(place, from, to)) if (value) yield decodeProgress(value);
}

/** Reads from ever further back until something is found. */
async function lookBack(
  reader: CommittedReader,
  place: TopicPartition,
  read: (from: number, end: number) => Promise<Progress | null>,
): Promise<Progress | null> {
  const { beginning, end } = await reader.boundsOf(place);
  for (let span = stepBack; ; span *= 10) {
    const from = Math.max(beginning, end - span);
    const found = await read(from, end);
    if (found || from === beginning) return found;
  }
}
