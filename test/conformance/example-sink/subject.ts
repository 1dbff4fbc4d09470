import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Row } from '../../../src/connector/sink.ts';
import type { Subject } from '../subject.ts';
import { sqliteSink } from './sink.ts';

export const sqliteSubject: Subject = {
  kind: sqliteSink,
  mode: 'merge',
  refuses: {},
  readme: 'connectors/README.md',
  unproven: {
    'refused credentials': 'A file has no credentials and asks nobody to slow down',
    throttling: 'A file has no credentials and asks nobody to slow down',
    'no room': 'a full disk is not tried with it',
  },
  failpoints: ['sqlite:staged', 'sqlite:committed'],
  refusedRow: null,
  async start(folder) {
    const disk = join(folder, 'disk');
    await mkdir(disk);
    let places = 0;
    return {
      async place() {
        places += 1;
        const path = join(disk, `${places}.sqlite`);
        return {
          options: { 'sqlite.path': path },
          async rows({ schema, name }) {
            const database = new DatabaseSync(path);
            const found = database
              .prepare('SELECT cells FROM rows WHERE tbl = ?')
              .all(JSON.stringify([schema, name]));
            database.close();
            return found.map(({ cells }) => JSON.parse(String(cells)) as Row);
          },
        };
      },
      async whileDown(work) {
        await rename(disk, `${disk}.away`);
        await writeFile(disk, '');
        await work().finally(() => rm(disk).then(() => rename(`${disk}.away`, disk)));
      },
      stop: async () => undefined,
    };
  },
};
