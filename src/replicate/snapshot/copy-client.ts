/** A plain session whose COPY is handed over where the socket put it: see copy-connection.ts. */
import pg, { type ClientConfig } from 'pg';
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
   * @param statement a COPY … TO STDOUT
   */
  async copy(statement: string, take: CopyDataListener): Promise<void> {
    this.#listen(take);
    try {
      await this.query(statement);
    } finally {
      this.#listen(null);
    }
  }
}
