/** The demo's view and figures. */
import { expect, test } from 'vitest';
import { CommitLatency, percentile } from '../../src/demo/latency.ts';
import { renderLine, renderView, sparkline, type ViewState } from '../../src/demo/view.ts';

const state: ViewState = {
  seconds: 83,
  commitsPerSecond: [10, 40, 52],
  rowsPerSecond: 410,
  transactions: 2075,
  source: { lagBytes: 2048, lagSeconds: 0.12, retainedBytes: 1 << 20 },
  destinations: [
    {
      name: 'replica',
      lagSeconds: 0.2,
      windows: 80,
      rows: 5000,
      p50Ms: 41,
      p99Ms: 130,
      receipt: '12 changes to P as 77',
      error: null,
    },
    {
      name: 'lake',
      lagSeconds: null,
      windows: 0,
      rows: 0,
      p50Ms: null,
      p99Ms: null,
      receipt: null,
      error: { code: 'TM401', message: 'no answer', remedy: 'wait' },
    },
  ],
  memoryBytes: 200 << 20,
  tryNext: [['see', 'psql a-command-that-is-longer-than-any-narrow-terminal-is-wide-and-must-stay-whole']],
};

// Colour codes take no room on the terminal.
const visible = (line: string) => line.replaceAll(new RegExp(`${String.fromCharCode(27)}\\[\\d+m`, 'g'), '');

test.each([60, 80, 120])('the view fits %i columns, commands stay whole', (width) => {
  for (const colour of [true, false]) {
    const lines = renderView(state, width, colour).split('\n').map(visible);
    for (const line of lines.filter((text) => !text.startsWith('    ')))
      expect(line.length).toBeLessThanOrEqual(width);
    expect(lines.join('\n')).toContain('must-stay-whole');
  }
});

test('an error is shown with its remedy', () => {
  const text = renderView(state, 120, false);
  expect(text).toContain('TM401: no answer');
  expect(text).toContain('→ wait');
  expect(renderLine(state)).toContain('lake TM401');
});

test('a sparkline reaches from the lowest to the highest bar', () => {
  expect(sparkline([0, 50, 100])).toBe('▁▄█');
  expect(sparkline([0, 0])).toBe('▁▁');
});

test('percentiles are of the nearest rank', () => {
  const samples = Array.from({ length: 100 }, (_, i) => i + 1);
  expect(percentile(samples, 0.5)).toBe(50);
  expect(percentile(samples, 0.99)).toBe(99);
  expect(percentile([7], 0.99)).toBe(7);
  expect(percentile([], 0.5)).toBeNull();
});

test('a transaction is readable when the mark has passed its commit, and is counted once', () => {
  const latency = new CommitLatency();
  latency.committed(1000);
  latency.committed(2000);
  latency.readable(999, 1500);
  expect(latency.percentile(0.5)).toBeNull();
  latency.readable(1000, 1500);
  latency.readable(1500, 9000);
  expect(latency.percentile(1)).toBe(500);
  latency.readable(2500, 2600);
  expect(latency.percentile(1)).toBe(600);
});
