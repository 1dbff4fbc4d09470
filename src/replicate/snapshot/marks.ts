/**
 * The watermarks that bracket a chunk's read: transactional logical messages, so that each stands in the stream in
 * commit order and has a commit LSN of its own. A chunk's rows take Positions under its high mark's commit.
 */
import pg, { type ClientBase } from 'pg';

const markPrefix = 'tidemark.snapshot';

export interface Mark {
  sourceId: string;
  /** Names one attempt at one chunk; nothing else is ever marked with it. */
  chunk: string;
  kind: 'low' | 'high';
}

/** Written when a snapshot begins: a transaction that ends, so that later ids count as begun (see visibility.ts). */
export async function writeBarrier(client: ClientBase): Promise<void> {
  await client.query(`select pg_logical_emit_message(true, '${markPrefix}', '{}')`);
}

export async function writeMark(client: ClientBase, mark: Mark): Promise<void> {
  await client.query(markStatement(mark));
}

export function markStatement(mark: Mark): string {
  return `select pg_logical_emit_message(true, '${markPrefix}', ${pg.escapeLiteral(JSON.stringify(mark))})`;
}

/** Null for everybody else's messages, other sources' marks included. */
export function readMark(sourceId: string, prefix: string, content: Buffer): Mark | null {
  if (prefix !== markPrefix) return null;
  let mark: Partial<Mark>;
  try {
    mark = JSON.parse(content.toString('utf8')) as Partial<Mark>;
  } catch {
    // Anybody may emit a message under this prefix; what is no mark of ours means nothing.
    return null;
  }
  const { chunk, kind } = mark;
  if (mark.sourceId !== sourceId || typeof chunk !== 'string' || (kind !== 'low' && kind !== 'high'))
    return null;
  return { sourceId, chunk, kind };
}
