/** A plain session whose COPY is handed over where the socket put it: see copy-connection.ts. */
import pg, { type ClientConfig, type QueryResult } from 'pg';
import { CopyConnection, type CopyDataListener } from '../copy-connection.ts';

export class CopyClient extends pg.Client {
  readonly #listen: (listener: CopyDataListener | null) => void;

  constructor(config: ClientConfig) {
    let take: CopyDataListener | null = null;
    const connection = new CopyConnection(config, (bytes, start, end) => take?.(bytes, start, end));
    super({ ...config, connection } as ClientConfig);
    this.#listen = (listener) => {
      take = listener;
    };
  }

  /**
   * Nothing holds the server back: for as much as fits into memory.
   * @throws what `take` throws, once the server is done
   * @param statements with a COPY … TO STDOUT among them
   */
  async copy(statements: string, take: CopyDataListener): Promise<QueryResult[]> {
    let failure: { error: unknown } | null = null;
    this.#listen((bytes, start, end) => {
      if (failure) return;
      try {
        take(bytes, start, end);
      } catch (error) {
        // Not through the socket's callback: there nobody catches it.
        failure = { error };
      }
    });
    try {
      const results = await this.query(statements);
      if (failure) throw (failure as { error: unknown }).error;
      return results as unknown as QueryResult[];
    } finally {
      this.#listen(null);
    }
  }
}
