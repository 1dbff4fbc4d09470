/**
 * Versions of a destination's credentials. A version is a number in the ledger; which secrets it stands for is kept as
 * a slow hash, so that a process knows after a restart whether they are the same, and nobody can guess them from it.
 */
import { scrypt } from 'node:crypto';
import { promisify } from 'node:util';
import type { OptionField, OptionValues } from '../connector/sink.ts';

const derive = promisify<string, string, number, Buffer>(scrypt);

/** @param fields of the kind of sink; only its secrets count */
export async function credentialsFingerprint(
  fields: Readonly<Record<string, OptionField>>,
  options: OptionValues,
  salt: string,
): Promise<string> {
  const secrets = Object.keys(fields)
    .filter((name) => fields[name]!.type === 'secret')
    .sort()
    .map((name) => [name, options[name] ?? null]);
  return (await derive(JSON.stringify(secrets), salt, 16)).toString('hex');
}
