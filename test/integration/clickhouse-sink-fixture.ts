/** ClickHouse for the sink's tests, and a stranger's look at it: through its HTTP interface, never through the sink. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { clickhouseSink } from '../../connectors/sinks/clickhouse/index.ts';
import type { MergeSink, OptionValues, Readable, SinkContext } from '../../src/connector/sink.ts';
import { context } from './postgres-sink-fixture.ts';

export interface ClickHouse {
  stack: Stack;
  /** Options of a database that no other call has given. */
  place(more?: OptionValues): OptionValues;
  /** The answer as rows of fields, unescaped; null for NULL. @throws Error with the server's words */
  query(sql: string): Promise<(string | null)[][]>;
  stop(): Promise<void>;
}

export async function startClickHouse(): Promise<ClickHouse> {
  const directory = await mkdtemp(join(tmpdir(), 'tidemark-clickhouse-'));
  const stack = await startStack({ directory, parts: ['clickhouse'] });
  const { TIDEMARK_CLICKHOUSE_URL: url } = stack.environment;
  const user = stack.environment.TIDEMARK_CLICKHOUSE_USER!;
  const password = stack.environment.TIDEMARK_CLICKHOUSE_PASSWORD!;
  let places = 0;
  return {
    stack,
    place: (more = {}) => ({
      'clickhouse.url': url!,
      'clickhouse.database': `place_${++places}`,
      'clickhouse.user': user,
      'clickhouse.password': password,
      ...more,
    }),
    async query(sql) {
      const response = await fetch(url!, {
        method: 'POST',
        headers: { 'X-ClickHouse-User': user, 'X-ClickHouse-Key': password },
        body: `${sql}\nFORMAT TabSeparated`,
      });
      const text = await response.text();
      if (!response.ok) throw new Error(text);
      const lines = text.split('\n').slice(0, -1);
      return lines.map((line) => line.split('\t').map(field));
    },
    async stop() {
      await stack.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

const letters: Record<string, string> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', 0: '\0' };

function field(text: string): string | null {
  if (text === '\\N') return null;
  return text.replace(/\\(.)/gs, (_, letter: string) => letters[letter] ?? letter);
}

export async function openClickHouse(
  options: OptionValues,
  more: Partial<SinkContext> = {},
): Promise<MergeSink & Readable> {
  return (await clickhouseSink.open(context(more), options)) as MergeSink & Readable;
}
