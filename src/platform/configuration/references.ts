/**
 * Secrets by reference: `${env:NAME}`, `${file:path}` (the file's text without its last line break) and
 * `${file:path:key}` (one key of a JSON object or of a properties file), anywhere in a value of either kind of file.
 * `$${` stands for a plain `${`. What a reference gives is put in as it is: not percent-encoded, not read again.
 */
import { readFile, stat } from 'node:fs/promises';
import { resolve as resolvePath } from 'node:path';
import type { Node } from './document.ts';
import { describeFileFailure } from './file-failure.ts';
import type { Problems } from './problems.ts';

const largestFile = 1 << 20;

export interface ReferenceContext {
  /** The configuration file, for messages. */
  file: string;
  /** Relative paths start here. */
  directory: string;
  env: NodeJS.ProcessEnv;
  problems: Problems;
}

/** Puts the values in place of the references of a tree; marks texts with an unresolved one as broken (TM102). */
export async function resolveReferences(node: Node, context: ReferenceContext, key = ''): Promise<void> {
  if (node.kind === 'map') {
    for (const entry of node.entries) {
      await resolveReferences(entry.node, context, key === '' ? entry.key : `${key}.${entry.key}`);
    }
  } else if (node.kind === 'list') {
    for (const [index, item] of node.items.entries()) {
      await resolveReferences(item, context, `${key}[${index}]`);
    }
  } else if (node.text?.includes('${')) {
    const report = (text: string): void => {
      node.broken = true;
      context.problems.add({ code: 'TM102', file: context.file, line: node.line, key, text });
    };
    node.text = await substitute(node.text, context, report);
  }
}

async function substitute(
  text: string,
  context: ReferenceContext,
  report: (text: string) => void,
): Promise<string> {
  let result = '';
  let end = 0;
  for (const match of text.matchAll(/\$\$\{|\$\{(?:([^{}]*)\})?/g)) {
    result += text.slice(end, match.index);
    end = match.index + match[0].length;
    if (match[0] === '$${') result += '${';
    else result += (await lookUp(match[1], context, report)) ?? '';
  }
  return result + text.slice(end);
}

/** @returns null after reporting. */
async function lookUp(
  reference: string | undefined,
  context: ReferenceContext,
  report: (text: string) => void,
): Promise<string | null> {
  const variable = reference?.match(/^env:([A-Za-z_][A-Za-z0-9_]{0,127})$/)?.[1];
  if (variable !== undefined) {
    const value = Object.hasOwn(context.env, variable) ? context.env[variable] : undefined;
    if (value !== undefined) return value;
    report(`\${env:${variable}} cannot be resolved: the environment variable is not set`);
    return null;
  }
  const path = reference?.match(/^file:([^\p{Cc}]{1,1024})$/u)?.[1];
  if (path !== undefined) return lookUpFile(path, context.directory, report);
  // It may be a piece of a password, so it is not repeated.
  report(
    `has a "\${" that is neither \${env:NAME} nor \${file:path}; write "$\${" where "\${" itself is meant`,
  );
  return null;
}

async function lookUpFile(
  path: string,
  directory: string,
  report: (text: string) => void,
): Promise<string | null> {
  const shown = `\${file:${path}} cannot be resolved`;
  const whole = await readSecretFile(resolvePath(directory, path));
  if (typeof whole === 'string') return whole.replace(/\r?\n$/, '');
  const colon = path.lastIndexOf(':');
  if (colon <= 0) {
    report(`${shown}: ${whole.failure}`);
    return null;
  }
  const text = await readSecretFile(resolvePath(directory, path.slice(0, colon)));
  if (typeof text !== 'string') {
    report(`${shown}: ${text.failure}`);
    return null;
  }
  const value = propertyOf(text, path.slice(colon + 1));
  if (value === null) report(`${shown}: the file has no such key`);
  return value;
}

async function readSecretFile(path: string): Promise<string | { failure: string }> {
  try {
    const status = await stat(path);
    // A pipe or device could block or never end.
    if (!status.isFile()) return { failure: 'it is not a regular file' };
    if (status.size > largestFile) return { failure: `it has more than ${largestFile} bytes` };
    return await readFile(path, 'utf8');
  } catch (error) {
    return { failure: describeFileFailure(error) };
  }
}

/** One key of a JSON object (text, number or boolean), or of `key=value` lines with # comments. */
function propertyOf(text: string, key: string): string | null {
  if (text.trimStart().startsWith('{')) {
    try {
      const object = JSON.parse(text) as Record<string, unknown>;
      const value = Object.hasOwn(object, key) ? object[key] : undefined;
      return ['string', 'number', 'boolean'].includes(typeof value) ? String(value) : null;
    } catch {
      return null;
    }
  }
  for (const line of text.split(/\r?\n/)) {
    const match = line.match(/^\s*([^#!=:\s][^=:\s]*)\s*[=:]\s*(.*)$/);
    if (match?.[1] === key) return match[2]!;
  }
  return null;
}
