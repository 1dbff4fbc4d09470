/** The live view: one picture of the flow, from a state to text. */

export interface ViewState {
  seconds: number;
  commitsPerSecond: number[];
  rowsPerSecond: number;
  transactions: number;
  source: { lagBytes: number | null; lagSeconds: number | null; retainedBytes: number | null };
  destinations: {
    name: string;
    lagSeconds: number | null;
    windows: number;
    rows: number;
    p50Ms: number | null;
    p99Ms: number | null;
    receipt: string | null;
    error: { code: string; message: string; remedy: string } | null;
  }[];
  memoryBytes: number;
  tryNext: [string, string][];
}

const bars = '▁▂▃▄▅▆▇█';

export function sparkline(values: readonly number[]): string {
  const highest = Math.max(1, ...values);
  return values.map((value) => bars[Math.min(7, Math.floor((value / highest) * 7.999))]).join('');
}

/** @param width columns of the terminal @param colour whether to use ANSI colours */
export function renderView(state: ViewState, width: number, colour: boolean): string {
  const paint = (code: number, text: string) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text);
  const { source, destinations } = state;
  const lines: string[] = [];
  lines.push(
    `${paint(1, 'Tidemark demo')}  ${state.transactions} transactions in ${clock(state.seconds)}, ${size(state.memoryBytes)} of memory    Ctrl+C ends it`,
  );
  lines.push('');
  lines.push(
    `${paint(36, 'Postgres')}   ${sparkline(state.commitsPerSecond)} ${state.commitsPerSecond.at(-1) ?? 0} commits/s, ${state.rowsPerSecond} rows/s`,
  );
  lines.push('   │ WAL');
  lines.push(
    `${paint(36, 'Kafka')}      ${lag(source.lagSeconds, source.lagBytes)} behind; the slot keeps ${source.retainedBytes === null ? '…' : size(source.retainedBytes)} of WAL`,
  );
  destinations.forEach((destination, i) => {
    const corner = i === destinations.length - 1 ? '└' : '├';
    const latency =
      destination.p50Ms === null
        ? 'nothing yet'
        : `commit to readable p50 ${milliseconds(destination.p50Ms)}, p99 ${milliseconds(destination.p99Ms)}`;
    const behind = destination.lagSeconds === null ? '…' : `${destination.lagSeconds.toFixed(1)} s`;
    lines.push(`   ${corner}─▶ ${paint(36, destination.name.padEnd(8))} ${behind} behind; ${latency}`);
    lines.push(
      `   ${corner === '├' ? '│' : ' '}            ${destination.windows} Windows, ${destination.rows} changes; last Receipt ${destination.receipt ?? '—'}`,
    );
    if (!destination.error) return;
    lines.push(paint(31, `      ${destination.error.code}: ${destination.error.message}`));
    lines.push(paint(33, `      → ${destination.error.remedy}`));
  });
  lines.push('', paint(1, 'Try next'));
  for (const [what, command] of state.tryNext) lines.push(`  ${what}`, `    ${paint(32, command)}`);
  // Commands are to be copied whole: they wrap; everything else is cut at the edge.
  return lines.map((line) => (line.startsWith('    ') ? line : cut(line, width))).join('\n');
}

/** One line for terminals that are none. */
export function renderLine(state: ViewState): string {
  const parts = state.destinations.map(({ name, lagSeconds, windows, error }) =>
    error
      ? `${name} ${error.code}`
      : `${name} ${lagSeconds === null ? '…' : `${lagSeconds.toFixed(1)} s`} behind, ${windows} Windows`,
  );
  return `${clock(state.seconds)}  ${state.transactions} transactions, ${state.commitsPerSecond.at(-1) ?? 0}/s; Kafka ${lag(state.source.lagSeconds, state.source.lagBytes)} behind; ${parts.join('; ')}`;
}

/** Cuts to a number of visible characters; colour codes take no room. */
function cut(line: string, width: number): string {
  let visible = 0;
  for (let at = 0; at < line.length; at++) {
    if (line[at] === '\u001b') {
      at = line.indexOf('m', at);
      continue;
    }
    visible++;
    if (visible > width) return `${line.slice(0, at - 1)}…${line.includes('\u001b') ? '\u001b[0m' : ''}`;
  }
  return line;
}

function lag(seconds: number | null, bytes: number | null): string {
  return `${seconds === null ? '…' : `${seconds.toFixed(1)} s`}${bytes === null ? '' : `, ${size(bytes)}`}`;
}

function milliseconds(value: number | null): string {
  return value === null ? '…' : value < 10000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

function clock(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return minutes > 0 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

export function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1 << 20) return `${(bytes / 1024).toFixed(0)} KiB`;
  if (bytes < 1 << 30) return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
