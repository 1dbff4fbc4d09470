/**
 * Values of columns that leave Postgres hashed or masked. Both start from Postgres' own text (connector/sink.ts, Cell),
 * so that the stream, a snapshot and verify give the same text for the same value.
 *
 * hash: lowercase hexadecimal HMAC-SHA-256(K, text as UTF-8), where K = HMAC-SHA-256(privacy.hash.key,
 * "tenant" NUL tenant text) in a table with a tenant, and HMAC-SHA-256(privacy.hash.key, "no tenant") otherwise. Column
 * and table take no part: equal values of one tenant join, those of two tenants do not.
 */
import { createHmac } from 'node:crypto';
import type { ColumnProtection } from '../connector/shape.ts';
import { isMask, type MaskForm, type ProtectingPolicy } from '../platform/column-policy.ts';
import { TidemarkError } from '../platform/errors.ts';
import { KeyedHash } from './keyed-hash.ts';
import { mask } from './masks.ts';

/** What a key is called in schemas: enough to see a rotation, and nothing of the key. */
export function hashKeyId(hashKey: string): string {
  return createHmac('sha256', hashKey).update('key id').digest('hex').slice(0, 8);
}

/** @throws TidemarkError TM101 where the policy is hash and no key is configured */
export function protectionOf(
  policy: ProtectingPolicy,
  type: string,
  hashKey: string | null,
): ColumnProtection {
  if (policy !== 'hash') return { policy, of: type };
  return { policy, of: type, key: hashKeyId(requireKey(hashKey)) };
}

/** The policy with its key: two values with the same label and tenant can be compared. */
export function protectionLabel({ policy, key }: Pick<ColumnProtection, 'policy' | 'key'>): string {
  return key === undefined ? policy : `${policy}:${key}`;
}

/** Tenants repeat in every row: their keys are kept, with a bound on how many. */
const mostTenants = 10_000;

export class ColumnProtector {
  readonly #hashKey: string | null;
  readonly #tenantKeys = new Map<string, KeyedHash>();
  #commonKey: KeyedHash | null = null;

  constructor(hashKey: string | null) {
    this.#hashKey = hashKey;
  }

  /** @param tenant text of the row's tenant; null where its table has none, or the row has NULL */
  protect(policy: ProtectingPolicy, text: string, tenant: string | null): string {
    if (isMask(policy)) return mask(policy.slice('mask:'.length) as MaskForm, text);
    return this.#keyOf(tenant).hex(text);
  }

  #keyOf(tenant: string | null): KeyedHash {
    if (tenant === null) {
      this.#commonKey ??= this.#derive('no tenant');
      return this.#commonKey;
    }
    const known = this.#tenantKeys.get(tenant);
    if (known) return known;
    const key = this.#derive(`tenant\0${tenant}`);
    if (this.#tenantKeys.size >= mostTenants) this.#tenantKeys.clear();
    this.#tenantKeys.set(tenant, key);
    return key;
  }

  #derive(purpose: string): KeyedHash {
    return new KeyedHash(createHmac('sha256', requireKey(this.#hashKey)).update(purpose).digest());
  }
}

function requireKey(hashKey: string | null): string {
  if (hashKey !== null) return hashKey;
  throw new TidemarkError('TM101', 'a column is to be hashed, and privacy.hash.key is not set');
}
