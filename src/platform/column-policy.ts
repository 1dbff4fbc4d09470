/** What may become of a column's values on their way out of Postgres. */
export const columnPolicies = [
  'keep',
  'drop',
  'hash',
  'mask:full',
  'mask:email',
  'mask:last4',
  'mask:year',
  'mask:network',
] as const;

export type ColumnPolicy = (typeof columnPolicies)[number];

/** Policies under which a column leaves Postgres as another text. */
export type ProtectingPolicy = Exclude<ColumnPolicy, 'keep' | 'drop'>;

export type MaskForm = ProtectingPolicy extends infer P ? (P extends `mask:${infer F}` ? F : never) : never;

export function isProtecting(policy: ColumnPolicy): policy is ProtectingPolicy {
  return policy !== 'keep' && policy !== 'drop';
}

export function isMask(policy: ColumnPolicy): policy is `mask:${MaskForm}` {
  return policy.startsWith('mask:');
}
