/** Reads a YAML or JSON file into a tree of texts with line numbers, refusing what a configuration never needs. */
import { readFile, stat } from 'node:fs/promises';
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { describeFileFailure } from './file-failure.ts';
import type { Report } from './problems.ts';

export interface ScalarNode {
  kind: 'scalar';
  line: number;
  /** The text as written, so that `0123` and `1e3` stay what they are; null for an empty value, `~` or `null`. */
  text: string | null;
  /** A reference in it could not be resolved; already reported. */
  broken: boolean;
}
export interface ListNode {
  kind: 'list';
  line: number;
  items: Node[];
}
export interface MapNode {
  kind: 'map';
  line: number;
  entries: { key: string; line: number; node: Node }[];
}
export type Node = ScalarNode | ListNode | MapNode;

/** A configuration beyond these is a mistake or an attack; the real ones have a hundredth of it. */
const limits = { fileBytes: 1 << 20, depth: 12, nodes: 20_000 };

/** The file's tree, or null after reporting why there is none. Reports never quote the file. */
export async function readDocument(
  file: string,
  format: 'yaml' | 'json',
  report: Report,
): Promise<MapNode | null> {
  let text: string;
  try {
    const status = await stat(file);
    if (!status.isFile() || status.size > limits.fileBytes) {
      report(null, `is not a file of at most ${limits.fileBytes} bytes`);
      return null;
    }
    text = await readFile(file, 'utf8');
  } catch (error) {
    report(null, `cannot be read: ${describeFileFailure(error)}`);
    return null;
  }
  return parseTree(text.replace(/^\uFEFF/, ''), format, report);
}

/** As readDocument, for text at hand. */
export function parseTree(text: string, format: 'yaml' | 'json', report: Report): MapNode | null {
  const lines = new LineCounter();
  const lineAt = (offset: number): number => lines.linePos(offset).line;
  // JSON goes through the YAML parser as well: it is a subset, and only so are there lines and duplicate keys.
  // Pretty errors quote the source, and the messages do in part, so only the parser's codes are shown.
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    version: '1.2',
    schema: 'core',
    // Its own check compares every key with every other: seconds for a hostile file. A Set does it below.
    uniqueKeys: false,
    // `silent` would also let a second document pass.
    logLevel: 'error',
  });
  const faults = [...document.errors, ...document.warnings];
  for (const fault of faults.slice(0, 20)) report(null, syntaxFault(fault.code), lineAt(fault.pos[0]));
  if (faults.length > 0) return null;
  if (format === 'json' && !isJson(text)) {
    report(null, 'is not valid JSON');
    return null;
  }
  if (document.contents === null && format === 'yaml') return { kind: 'map', line: 1, entries: [] };

  let count = 0;
  let sound = true;
  const refuse = (text: string, line: number): ScalarNode => {
    if (sound) report(null, text, line);
    sound = false;
    return { kind: 'scalar', line, text: null, broken: true };
  };
  const convert = (node: unknown, depth: number, fallbackLine: number): Node => {
    const range = (node as { range?: [number, number, number] | null } | null)?.range;
    const line = range ? lineAt(range[0]) : fallbackLine;
    if (!sound) return { kind: 'scalar', line, text: null, broken: true };
    if (++count > limits.nodes) return refuse(`has more than ${limits.nodes} values`, line);
    if (depth > limits.depth) return refuse(`is nested more than ${limits.depth} deep`, line);
    // An alias can multiply itself into gigabytes, and no configuration needs one.
    if (isAlias(node)) return refuse('anchors and aliases are not accepted; write the value out', line);
    if (isMap(node)) {
      const entries: MapNode['entries'] = [];
      const seen = new Set<string>();
      for (const pair of node.items) {
        if (!isScalar(pair.key)) {
          refuse('a key must be plain text', line);
          continue;
        }
        const keyLine = pair.key.range ? lineAt(pair.key.range[0]) : line;
        const key = pair.key.source ?? String(pair.key.value);
        if (seen.has(key)) refuse('the same key is there twice', keyLine);
        seen.add(key);
        entries.push({ key, line: keyLine, node: convert(pair.value, depth + 1, keyLine) });
      }
      return { kind: 'map', line, entries };
    }
    if (isSeq(node)) {
      return { kind: 'list', line, items: node.items.map((item) => convert(item, depth + 1, line)) };
    }
    const value = isScalar(node) ? node.value : null;
    const text = value === null ? null : isScalar(node) ? (node.source ?? String(value)) : null;
    return { kind: 'scalar', line, text, broken: false };
  };
  const root = convert(document.contents, 0, 1);
  if (!sound) return null;
  if (root.kind !== 'map') {
    report(null, 'must hold keys and values', root.line);
    return null;
  }
  return root;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Own words for the parser's codes, because its messages quote the text that it stumbled over. */
function syntaxFault(code: string): string {
  const words: Record<string, string> = {
    BAD_INDENT: 'the indentation is wrong',
    TAB_AS_INDENT: 'a tab is used as indentation; use spaces',
    MULTIPLE_DOCS: 'there is more than one document',
    RESOURCE_EXHAUSTION: 'the nesting is too deep',
    TAG_RESOLVE_FAILED: 'tags such as !name are not accepted',
    BAD_ALIAS: 'anchors and aliases are not accepted; write the value out',
    BAD_DQ_ESCAPE: 'a double-quoted text has an escape that does not exist',
    MISSING_CHAR: 'a closing quote, bracket or separator is missing',
  };
  return `${words[code] ?? 'the syntax is wrong'} (${code})`;
}
