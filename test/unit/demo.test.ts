/** The demo's view and figures. */
import { describe, expect, test } from 'vitest';
import { formatPosition } from '../../src/connector/position.ts';
import { chosenDestinations } from '../../src/demo/destinations.ts';
import { CommitLatency, Histogram } from '../../src/demo/latency.ts';
import {
  clock,
  cut,
  shortCommit,
  shortPosition,
  size,
  sparkline,
  visibleLength,
} from '../../src/demo/text.ts';
import { tryNext } from '../../src/demo/try-next.ts';
import { renderLine, renderView, type ViewState } from '../../src/demo/view.ts';

const at = (lsn: number, ordinal = 0) => formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal });

const state: ViewState = {
  seconds: 83,
  commitsPerSecond: Array.from({ length: 60 }, (_, i) => i),
  rowsPerSecond: 1410,
  transactions: 2075,
  source: { tables: 9, lsn: '0/1A2B3C4', retainedBytes: 3 << 20 },
  kafka: { lagSeconds: 0.04, lagBytes: 312, records: 18_203, bytes: 12 << 20, snapshot: null },
  destinations: [
    {
      name: 'replica',
      kind: 'Postgres',
      rhythm: 'at every commit',
      lagSeconds: 0.2,
      lagBytes: 2048,
      windows: 1204,
      rows: 18_203,
      p50Ms: 41,
      p99Ms: 130,
      receipt: { position: at(0x1a2b3c4, 12), rows: 12, commitId: '8123', secondsAgo: 0.3 },
      marks: [{ unit: '*', position: at(0x1a2b3c4) }],
      error: null,
    },
    {
      name: 'lake',
      kind: 'Parquet files',
      rhythm: 'every 5 s',
      lagSeconds: 3.1,
      lagBytes: 420_000,
      windows: 42,
      rows: 18_100,
      p50Ms: 2900,
      p99Ms: 5600,
      receipt: {
        position: at(0x1a2a000),
        rows: 120,
        commitId: 'app.events/_manifests/0000000000000042.json',
        secondsAgo: 3,
      },
      marks: ['findings', 'events', 'rule_runs', 'audit_log'].map((table) => ({
        unit: `app.${table}`,
        position: at(0x1a2a000),
      })),
      error: null,
    },
  ],
  letGo: { table: 'app.rule_runs', rows: 1234 },
  memoryBytes: 200 << 20,
  notice: null,
  remark: null,
  tryNext: tryNext(
    {
      folder: '.tidemark/demo',
      configFile: '.tidemark/demo/tidemark.yaml',
      destinations: chosenDestinations(undefined),
    },
    '',
  ),
};

describe('a frame', () => {
  const sizes = [20, 60, 80, 120, 250].flatMap((columns) =>
    [8, 24, 60].map((rows) => [columns, rows] as const),
  );

  test.each(sizes)('fits a terminal of %i columns and %i rows, in colour and without', (columns, rows) => {
    for (const colour of [true, false]) {
      const lines = renderView(state, { columns, rows, colour });
      expect(lines.length).toBeLessThanOrEqual(rows);
      for (const line of lines) expect(visibleLength(line)).toBeLessThanOrEqual(columns);
      if (!colour) expect(lines.join('')).not.toContain('\u001b');
    }
  });

  test('80 columns hold the whole picture, lags, Receipts and commands', () => {
    const text = renderView(state, { columns: 80, rows: 40, colour: false }).join('\n');
    for (const part of [
      '┌─ Postgres ',
      '┌─ Kafka ',
      '┌─ replica: Postgres ',
      '┌─ lake: Parquet files ',
      '59 commits/s',
      '1,410 rows/s',
      '0.2 s behind',
      '2.0 KiB of WAL',
      'at every commit',
      '12 rows to 0/1A2B3C4, 8123, 0 s ago',
      'rule_runs 0/1A2A000',
      'Cold storage: 1,234 rows of app.rule_runs left Postgres on proof of delivery',
      'npx tidemark verify replica --config .tidemark/demo/tidemark.yaml',
    ])
      expect(text).toContain(part);
  });

  test('60 columns hold every stage too', () => {
    const text = renderView(state, { columns: 60, rows: 24, colour: false }).join('\n');
    for (const part of ['Postgres', 'Kafka', 'replica', 'lake', '0.2 s behind', '3.1 s behind', 'Windows'])
      expect(text).toContain(part);
  });

  test('what fails is shown with its remedy, in the smallest terminal too', () => {
    const [replica, lake] = state.destinations;
    const error = { code: 'TM401', message: 'no answer', remedy: 'wait' };
    const failing = { ...state, destinations: [replica!, { ...lake!, error }] };
    const text = renderView(failing, { columns: 80, rows: 14, colour: false }).join('\n');
    expect(text).toContain('lake: TM401: no answer');
    expect(text).toContain('→ wait');
    expect(renderLine(failing)).toContain('lake TM401');
    const notice = { atMs: 0, code: 'TM301', message: 'Kafka went away', remedy: 'look' };
    const noticed = renderView({ ...state, notice }, { columns: 80, rows: 24, colour: false }).join('\n');
    expect(noticed).toContain('TM301: Kafka went away\n → look');
  });

  test('before anything flowed there is a frame as well', () => {
    const empty: ViewState = {
      ...state,
      commitsPerSecond: [],
      source: { tables: 0, lsn: null, retainedBytes: null },
      kafka: {
        lagSeconds: null,
        lagBytes: null,
        records: 0,
        bytes: 0,
        snapshot: { rows: 0, total: 200_000 },
      },
      destinations: state.destinations.map((destination) => ({
        ...destination,
        lagSeconds: null,
        lagBytes: null,
        p50Ms: null,
        p99Ms: null,
        receipt: null,
        marks: [],
      })),
    };
    expect(renderView(empty, { columns: 80, rows: 24, colour: false }).join('\n')).toContain('starting');
    expect(renderLine(empty)).toContain('replica starting');
  });
});

test('without psql and duckdb the commands use what the checkout has', () => {
  expect(state.tryNext[0]).toMatch(/^npx node src\/demo\/query\.ts source "/);
  for (const command of state.tryNext) expect(command.length).toBeLessThanOrEqual(78);
});

describe('text', () => {
  test('sizes, times, Positions', () => {
    expect([0, 999, 1000, 1024, 312_000, 5 << 20, 3 * 2 ** 30].map(size)).toEqual([
      '0 B',
      '999 B',
      '1.0 KiB',
      '1.0 KiB',
      '305 KiB',
      '5.0 MiB',
      '3.0 GiB',
    ]);
    expect([5, 83, 3723].map(clock)).toEqual(['0:05', '1:23', '1:02:03']);
    expect(shortPosition(at(0x1a2b3c4))).toBe('0/1A2B3C4');
    expect(shortPosition(formatPosition({ epoch: 2, lsn: 1n << 32n, ordinal: 3 }))).toBe('epoch 2 1/0');
    expect(shortCommit('app.events/_manifests/0000000000000042.json')).toBe('42.json');
    expect(shortCommit('0')).toBe('0');
  });

  test('a sparkline reaches from the lowest to the highest bar', () => {
    expect(sparkline([0, 50, 100])).toBe('▁▄█');
    expect(sparkline([0, 0])).toBe('▁▁');
    expect(sparkline([])).toBe('');
  });

  test('colour codes take no room and are closed where a line is cut', () => {
    const line = '\u001b[36mtitle\u001b[0m rest';
    expect(visibleLength(line)).toBe(10);
    expect(cut(line, 10)).toBe(line);
    expect(cut(line, 4)).toBe('\u001b[36mtit…\u001b[0m');
  });
});

describe('percentiles', () => {
  test('are of the nearest rank, at most one per cent too high', () => {
    const histogram = new Histogram();
    for (let i = 1; i <= 1000; i++) histogram.add(i);
    for (const [fraction, exact] of [
      [0.5, 500],
      [0.99, 990],
      [1, 1000],
    ] as const) {
      const found = histogram.percentile(fraction)!;
      expect(found).toBeGreaterThanOrEqual(exact * (1 - 1e-9));
      expect(found).toBeLessThanOrEqual(exact * 1.0101);
    }
    expect(new Histogram().percentile(0.5)).toBeNull();
  });

  test('weigh a sample as often as it stands for', () => {
    const histogram = new Histogram();
    histogram.add(10, 98);
    histogram.add(5000, 2);
    expect(histogram.percentile(0.98)).toBeCloseTo(10, 0);
    expect(histogram.percentile(0.99)).toBe(5000);
  });
});

describe('commit latency', () => {
  test('a transaction counts once, from its commit to the mark that passed it', () => {
    const latency = new CommitLatency();
    latency.published(at(100, 3), 1000, 1);
    latency.published(at(200, 3), 2000, 1);
    latency.readable(at(100, 2), 1400);
    expect(latency.percentile(0.5)).toBeNull();
    latency.readable(at(100, 3), 1500);
    latency.readable(at(150), 9000);
    expect(latency.percentile(1)).toBe(500);
  });

  test('the live view forgets what is older than two turns', () => {
    const latency = new CommitLatency();
    latency.published(at(1), 1000, 1);
    latency.readable(at(1), 5000);
    latency.turn();
    latency.published(at(2), 6000, 1);
    latency.readable(at(2), 6100);
    expect(latency.percentile(1)).toBe(4000);
    latency.turn();
    expect(latency.percentile(1)).toBe(100);
    latency.turn();
    expect(latency.percentile(1)).toBeNull();
  });

  test('transactions of one batch are spread over the time since the batch before', () => {
    const latency = new CommitLatency();
    latency.published(at(1), 0, 0);
    latency.published(at(2), 1000, 10);
    latency.readable(at(2), 1000);
    expect(latency.percentile(1)).toBeCloseTo(900, -1);
    expect(latency.percentile(0.5)! / 400).toBeCloseTo(1, 1);
  });

  test('a destination that is down costs bounded memory and no transaction', () => {
    const latency = new CommitLatency();
    for (let i = 1; i <= 100_000; i++) latency.published(at(i), i, 1);
    latency.readable(at(100_000), 100_000);
    expect(latency.percentile(0.5)! / 50_000).toBeCloseTo(1, 1);
    expect(latency.percentile(1)! / 100_000).toBeCloseTo(1, 1);
  });
});
