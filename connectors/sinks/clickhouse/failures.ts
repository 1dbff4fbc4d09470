/** What an error of the server means for the pipeline, in one table. Its text may quote rows, so only its code is kept. */
import { TidemarkError } from '../../../src/connector/failure.ts';

type Code = 'TM401' | 'TM402' | 'TM404' | 'TM405';

const classes: { codes: number[]; code: Code; meaning: string; remedy?: string }[] = [
  {
    codes: [192, 193, 194, 516],
    code: 'TM402',
    meaning: 'the server refused the user or its password',
    remedy: 'Set clickhouse.user and clickhouse.password.',
  },
  {
    codes: [164, 291, 497],
    code: 'TM402',
    meaning: 'a right is missing',
    remedy: 'Run the GRANT of connectors/sinks/clickhouse/README.md for the user.',
  },
  {
    codes: [81],
    code: 'TM402',
    meaning: 'the database is missing',
    remedy: 'CREATE DATABASE it, or grant CREATE DATABASE to the user.',
  },
  {
    codes: [243, 253, 258, 1001],
    code: 'TM401',
    meaning: 'the server has no room or a broken disk',
    remedy: 'Make room on the server’s disks; delivery goes on by itself.',
  },
  {
    codes: [241],
    code: 'TM401',
    meaning: 'a statement needed more memory than the server allows',
    remedy: 'Raise max_memory_usage of the user; delivery goes on by itself.',
  },
  {
    codes: [60, 218, 226, 228, 233, 234, 235, 236],
    code: 'TM401',
    meaning: 'a table changed while it was written to',
  },
  {
    codes: [159, 160, 201, 202, 203, 209, 210, 252, 285, 286, 319, 364, 394, 425, 439, 473, 999, 225, 242],
    code: 'TM401',
    meaning: 'the server is busy',
  },
  {
    codes: [6, 26, 27, 33, 38, 41, 43, 44, 47, 50, 53, 69, 70, 72, 117, 131, 321, 349, 407, 441, 676],
    code: 'TM405',
    meaning: 'the server refused a value or a type',
  },
];

/** The server's own code, or null where there is none. */
export function serverCode(error: unknown): number | null {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' && /^\d+$/.test(code) ? Number(code) : null;
}

/** @param what the statement's purpose and table */
export function asFailure(error: unknown, what: string): unknown {
  if (error instanceof TidemarkError) return error;
  const code = serverCode(error);
  if (code === null) {
    const reason = (error as { code?: unknown } | null)?.code;
    const name =
      typeof reason === 'string' ? reason : error instanceof Error ? error.name : 'unknown failure';
    if (/CERT|^ERR_(TLS|SSL|OSSL)|^EPROTO$|SELF_SIGNED|UNABLE_TO/.test(name)) {
      return new TidemarkError('TM402', `${what}: TLS failed: ${name}`, {
        cause: redact(error, name),
        remedy: 'Set tls.ca to the authority of the server’s certificate, or change tls.mode.',
      });
    }
    return new TidemarkError('TM401', `${what}: the connection failed: ${name}`, {
      cause: redact(error, name),
    });
  }
  const type = (error as { type?: unknown }).type;
  const label = `code ${code}${typeof type === 'string' && /^[A-Z_0-9]+$/.test(type) ? ` ${type}` : ''}`;
  const found = classes.find(({ codes }) => codes.includes(code));
  return new TidemarkError(
    found?.code ?? 'TM901',
    `${what}: ${found?.meaning ?? 'the server failed'}, ${label}`,
    { cause: redact(error, label), ...(found?.remedy === undefined ? {} : { remedy: found.remedy }) },
  );
}

/** What may stand as `cause`: whoever prints it must not meet a value. */
function redact(error: unknown, label: string): Error {
  const kept = new Error(label);
  if (error instanceof Error && error.stack)
    kept.stack = error.stack.slice(Math.max(0, error.stack.indexOf('\n    at ')));
  return kept;
}
