/** A bucket in a local folder, which counts what is read of it: as far from DuckDB as a real one. */
import { LocalFileStore } from '../../connectors/sinks/iceberg/local-file-store.ts';

const scheme = 's3://bucket/';

export class DirectoryStore extends LocalFileStore {
  readonly #folder: string;
  requests = 0;
  bytesRead = 0;

  constructor(folder: string) {
    super();
    this.#folder = folder;
  }

  /** `file:` locations are those of a test that has no bucket. */
  at(location: string): string {
    return location.startsWith(scheme) ? `file://${this.#folder}/${location.slice(scheme.length)}` : location;
  }

  override async get(location: string): Promise<Buffer | null> {
    return this.#count(await super.get(this.at(location)));
  }

  override async getRange(location: string, start: number, length: number): Promise<Buffer | null> {
    return this.#count(await super.getRange(this.at(location), start, length));
  }

  override put(location: string, body: Buffer): Promise<void> {
    return super.put(this.at(location), body);
  }

  override putFile(location: string, localPath: string): Promise<void> {
    return super.putFile(this.at(location), localPath);
  }

  override delete(locations: readonly string[]): Promise<void> {
    return super.delete(locations.map((each) => this.at(each)));
  }

  #count(bytes: Buffer | null): Buffer | null {
    this.requests += 1;
    this.bytesRead += bytes?.length ?? 0;
    return bytes;
  }
}
