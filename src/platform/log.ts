/**
 * One JSON object per line on stderr. No cell value is ever passed to it: fields are names, counts, codes, Positions.
 */
import { TidemarkError } from './errors.ts';

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof logLevels)[number];

export function isLogLevel(text: string): text is LogLevel {
  return logLevels.some((level) => level === text);
}

export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
  child(fields: Record<string, unknown>): Logger;
}

const rank: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

export function createLogger(
  options: { level?: LogLevel; write?: (line: string) => void; fields?: Record<string, unknown> } = {},
): Logger {
  const level = options.level ?? 'info';
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const base = options.fields ?? {};
  const emit = (at: LogLevel, message: string, fields: Record<string, unknown> = {}) => {
    if (rank[at] < rank[level]) return;
    write(
      `${JSON.stringify({ time: new Date().toISOString(), level: at, message, ...base, ...fields }, replacer)}\n`,
    );
  };
  return {
    debug: (message, fields) => emit('debug', message, fields),
    info: (message, fields) => emit('info', message, fields),
    warn: (message, fields) => emit('warn', message, fields),
    error: (message, fields) => emit('error', message, fields),
    child: (fields) => createLogger({ level, write, fields: { ...base, ...fields } }),
  };
}

/** The fields of an error that may be logged. */
export function errorFields(error: unknown): Record<string, unknown> {
  if (error instanceof TidemarkError) return { code: error.code, error: error.message, remedy: error.remedy };
  return { error: error instanceof Error ? error.name : 'unknown failure' };
}

function replacer(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
