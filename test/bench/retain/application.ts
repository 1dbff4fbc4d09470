/**
 * The application beside which rows are evicted, as a process of its own: transactions like TPC-B's (an account, its
 * teller and its branch get an amount, which is written down), begun at an even pace whatever the ones before take.
 * `<url> <transactions a second>`; on standard output a line for each second: the latencies of those that were due in it, ms.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

export const branches = 20;
export const accountsOfBranch = 5000;
const connections = 12;

/** Not in schema app: nothing of it is streamed. */
export const applicationTables = `
  create schema bank;
  create table bank.branches (id int primary key, balance bigint not null default 0) with (fillfactor = 50);
  create table bank.tellers (id int primary key, branch int, balance bigint not null default 0) with (fillfactor = 50);
  create table bank.accounts (id int primary key, branch int, balance bigint not null default 0, filler char(84)) with (fillfactor = 90);
  create table bank.history (account int, teller int, branch int, amount int, at timestamptz);
  insert into bank.branches select generate_series(1, ${branches});
  insert into bank.tellers select i, 1 + i % ${branches} from generate_series(1, ${10 * branches}) i;
  insert into bank.accounts select i, 1 + i % ${branches} from generate_series(1, ${branches * accountsOfBranch}) i;`;

async function transfer(client: pg.Client): Promise<void> {
  const account = 1 + Math.floor(Math.random() * branches * accountsOfBranch);
  const teller = 1 + Math.floor(Math.random() * 10 * branches);
  const branch = 1 + Math.floor(Math.random() * branches);
  const amount = Math.floor(Math.random() * 10_000) - 5000;
  const run = (name: string, text: string, values: number[]) => client.query({ name, text, values });
  await client.query('begin');
  await run('account', 'update bank.accounts set balance = balance + $2 where id = $1', [account, amount]);
  await run('balance', 'select balance from bank.accounts where id = $1', [account]);
  await run('teller', 'update bank.tellers set balance = balance + $2 where id = $1', [teller, amount]);
  await run('branch', 'update bank.branches set balance = balance + $2 where id = $1', [branch, amount]);
  await run('history', 'insert into bank.history values ($1, $2, $3, $4, now())', [
    account,
    teller,
    branch,
    amount,
  ]);
  await client.query('commit');
}

async function main(url: string, perSecond: number): Promise<void> {
  const startedAt = performance.now();
  let next = 0;
  let second = 0;
  let seen: number[] = [];
  const each = async () => {
    const client = new pg.Client({ connectionString: url, application_name: 'bank' });
    await client.connect();
    for (;;) {
      const dueAt = startedAt + (next++ / perSecond) * 1000;
      const wait = dueAt - performance.now();
      if (wait > 0.5) await sleep(wait);
      await transfer(client);
      seen.push(performance.now() - dueAt);
      const now = Math.floor((performance.now() - startedAt) / 1000);
      if (now === second) continue;
      second = now;
      process.stdout.write(`${JSON.stringify(seen)}\n`);
      seen = [];
    }
  };
  await Promise.all(Array.from({ length: connections }, each));
}

if (process.argv[1] === import.meta.filename) await main(process.argv[2]!, Number(process.argv[3]));
