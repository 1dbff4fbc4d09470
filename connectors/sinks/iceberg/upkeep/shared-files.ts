import type { TableMetadata } from '../spec/table-metadata.ts';

/**
 * Why no file of the table may be deleted; null: they are its own. Spark's procedure `snapshot` marks tables so whose files
 * are those of another table, and other writers leave their files alone too.
 */
export function sharedFiles({ properties }: TableMetadata): string | null {
  return properties['gc.enabled']?.toLowerCase() === 'false'
    ? 'its property gc.enabled is false: its files may be those of another table'
    : null;
}
