/** A result as a picture for the docs: one bar per line of its table, with date, versions and machine below. */
import type { BenchResult } from './run.ts';

const width = 860;
const barHeight = 26;
const rowHeight = 58;
const left = 16;
const top = 64;

export interface Circumstances {
  /** ISO date. */
  date: string;
  versions: string;
  machine: string;
}

/** @returns SVG, or null where the result has nothing to draw */
export function chart(result: BenchResult, { date, versions, machine }: Circumstances): string | null {
  const { bar } = result;
  if (!bar) return null;
  const values = result.rows.map((row) => Number(row[bar]));
  const most = Math.max(...values);
  const height = top + values.length * rowHeight + 64;
  const bars = result.rows.map((row, i) => {
    const y = top + i * rowHeight;
    const length = Math.max(2, (values[i]! / most) * (width - left * 2 - 120));
    return [
      `<text x="${left}" y="${y}" class="what">${escaped(String(row.what))}</text>`,
      `<rect x="${left}" y="${y + 8}" width="${length.toFixed(1)}" height="${barHeight}" class="${i === 0 ? 'own' : 'other'}"/>`,
      `<text x="${left + length + 8}" y="${y + 27}" class="value">${values[i]!.toLocaleString('en')}</text>`,
    ].join('\n');
  });
  const foot = height - 36;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif">
<title>${escaped(result.name)}: ${escaped(bar)}</title>
<style>
.title { font-size: 18px; font-weight: 600; fill: #1b2733 }
.what, .value { font-size: 14px; fill: #1b2733 }
.foot { font-size: 12px; fill: #5b6875 }
.own { fill: #0b7a75 }
.other { fill: #b8c4ce }
</style>
<rect width="${width}" height="${height}" fill="#ffffff"/>
<text x="${left}" y="30" class="title">${escaped(result.name)}: ${escaped(bar)}</text>
${bars.join('\n')}
<text x="${left}" y="${foot}" class="foot">${escaped(result.note)}</text>
<text x="${left}" y="${foot + 18}" class="foot">${escaped(`${date}, ${versions}, ${machine}`)}</text>
</svg>
`;
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
