/** The table of Tombstones in the source database (migrations/retention): read by publish, written by retain. */
import type { TableId } from './table-name.ts';

export const retentionSchema = 'tidemark_retention';

export const archiveTable: TableId = { schema: retentionSchema, name: 'cold_storage_archive' };

/** It stays in the source: whoever erases it there has erased it. */
export const saltColumn = 'salt';
