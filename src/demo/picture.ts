/** The flow as boxes and arrows: a column for the source, one for Kafka, one with a box for each destination. */
import { exactly } from './text.ts';

export interface Box {
  title: string;
  lines: string[];
}

export interface Picture {
  source: Box;
  kafka: Box;
  destinations: Box[];
}

/** Narrower than this the boxes would hold nothing. */
export const narrowestPicture = 76;

const sideWidth = 22;
const firstGap = 5;
const secondGap = 4;
/** Lines of a destination's box with its frame. */
const boxHeight = 5;

/** @param paint colours a box's title @returns lines of at most `width` visible characters */
export function drawPicture(picture: Picture, width: number, paint: (title: string) => string): string[] {
  const { source, kafka, destinations } = picture;
  const height = Math.max(2, destinations.length) * boxHeight;
  const side = Math.min(sideWidth + Math.max(0, Math.floor((width - 100) / 4)), 26);
  const last = Math.min(width - 1 - 2 * side - firstGap - secondGap, 48);
  const columns = [
    drawBox(source, side, height, paint),
    arrowToKafka(height),
    drawBox(kafka, side, height, paint),
    branch(destinations.length, height),
    destinations.flatMap((box) => drawBox(box, last, boxHeight, paint)),
  ];
  return Array.from({ length: height }, (_, row) =>
    ` ${columns.map((column) => column[row] ?? '').join('')}`.trimEnd(),
  );
}

function drawBox({ title, lines }: Box, width: number, height: number, paint: (title: string) => string) {
  const name = ` ${title} `;
  const top = `┌─${paint(name)}${'─'.repeat(Math.max(0, width - 3 - name.length))}┐`;
  const body = Array.from({ length: height - 2 }, (_, i) => `│ ${exactly(lines[i] ?? '', width - 4)} │`);
  return [top, ...body, `└${'─'.repeat(width - 2)}┘`];
}

function arrowToKafka(height: number): string[] {
  const middle = Math.floor(height / 2) - 1;
  return Array.from({ length: height }, (_, row) => {
    if (row === middle) return ' WAL ';
    return row === middle + 1 ? ' ──▶ ' : '     ';
  });
}

/** From Kafka's column to the second line of every destination's box. */
function branch(count: number, height: number): string[] {
  const ends = Array.from({ length: count }, (_, i) => i * boxHeight + 1);
  const first = ends[0] ?? 0;
  const last = ends.at(-1) ?? 0;
  return Array.from({ length: height }, (_, row) => {
    if (row === first) return count > 1 ? '─┬─▶' : '───▶';
    if (row === last) return ' └─▶';
    if (ends.includes(row)) return ' ├─▶';
    return row > first && row < last ? ' │  ' : '    ';
  });
}
