/** Metadata files of tables in a catalog that leaves them to its clients (Glue). */
import { randomUUID } from 'node:crypto';
import type { TableMetadata as CatalogMetadata, TableCommit } from './catalog/catalog.ts';
import { parseJson } from './catalog/exact-json.ts';
import { CommitConflict } from './catalog/failures.ts';
import type { MetadataFiles, WrittenMetadata } from './catalog/glue-catalog.ts';
import { metadataLocation } from './commit/locations.ts';
import { malformed } from './failures.ts';
import type { FileStore } from './file-store.ts';
import { applyUpdates } from './spec/apply-updates.ts';
import { parseTableMetadata, readTableMetadata } from './spec/read-table-metadata.ts';
import { formatTableMetadata } from './spec/table-metadata.ts';
import { type TableRequirement, type TableUpdate, unmetRequirement } from './spec/updates.ts';

export class StoredMetadataFiles implements MetadataFiles {
  readonly #storeOf: (location: string) => Promise<FileStore>;

  constructor(storeOf: (location: string) => Promise<FileStore>) {
    this.#storeOf = storeOf;
  }

  async readMetadata(location: string): Promise<CatalogMetadata> {
    const body = await (await this.#storeOf(location)).get(location);
    if (body === null) throw malformed(`the metadata file ${location} is gone`);
    return asJson(formatTableMetadata(readTableMetadata(body, location)));
  }

  async writeMetadata(base: WrittenMetadata | null, commit: TableCommit): Promise<WrittenMetadata> {
    const before = base && parseTableMetadata(base.metadata);
    if (unmetRequirement(before, commit.requirements as unknown as TableRequirement[]) !== null)
      throw new CommitConflict(`commit ${commit.identifier.name}`);
    const updates = commit.updates as unknown as TableUpdate[];
    const metadata = applyUpdates(before, updates, Date.now(), base?.metadataLocation);
    const text = formatTableMetadata(metadata);
    const version = String(versionOf(base?.metadataLocation) + 1).padStart(5, '0');
    const location = `${metadataLocation(metadata)}/${version}-${randomUUID()}.metadata.json`;
    await (await this.#storeOf(location)).put(location, Buffer.from(text));
    return { metadata: asJson(text), metadataLocation: location };
  }

  async removePast({ metadata: base }: WrittenMetadata, { metadata }: WrittenMetadata): Promise<void> {
    const { properties, 'metadata-log': log } = parseTableMetadata(metadata);
    if (properties['write.metadata.delete-after-commit.enabled'] !== 'true') return;
    const kept = new Set(log.map((each) => each['metadata-file']));
    const past = parseTableMetadata(base)['metadata-log'].map((each) => each['metadata-file']);
    for (const location of past)
      if (!kept.has(location)) await (await this.#storeOf(location)).delete([location]);
  }

  async removeMetadata(location: string): Promise<void> {
    await (await this.#storeOf(location)).delete([location]);
  }
}

/** By its file's name, as writers number them: `00012-….metadata.json`; -1 where there is none. */
function versionOf(location: string | undefined): number {
  const digits = /\/(\d+)-[^/]*$/.exec(location ?? '')?.[1];
  return digits === undefined ? -1 : Number(digits);
}

function asJson(text: string): CatalogMetadata {
  return parseJson(text) as CatalogMetadata;
}
