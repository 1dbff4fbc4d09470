/** The keys that say when small files are merged, and the type they are parsed into once. */
import { TidemarkError } from '../../src/connector/failure.ts';
import type { OptionField, OptionValues } from '../../src/connector/sink.ts';

export interface CompactionChoice {
  /** So many small files of a closed partition are merged; 0: never. */
  files: number;
  /** How long a merged file stays for readers of older lists. */
  graceMs: number;
}

const defaults: CompactionChoice = { files: 32, graceMs: 24 * 60 * 60 * 1000 };

export function compactionFields(): Record<string, OptionField> {
  return {
    'compact.files': {
      type: 'integer',
      description:
        'Once a partition whose date is over has so many files of less than 16 MiB, they are merged into few, between Windows; 0 never merges.',
      default: defaults.files,
    },
    'compact.grace': {
      type: 'duration',
      description:
        'How long files stay after they were merged into others: readers that listed them before can finish.',
      default: defaults.graceMs,
    },
  };
}

/** @throws TidemarkError TM101 naming the key that does not fit. */
export function compactionFrom(values: OptionValues): CompactionChoice {
  const files = Number(values['compact.files'] ?? defaults.files);
  if (!Number.isInteger(files) || files < 0 || files === 1) {
    throw new TidemarkError('TM101', 'compact.files: needs 0 or at least 2');
  }
  return { files, graceMs: Number(values['compact.grace'] ?? defaults.graceMs) };
}
