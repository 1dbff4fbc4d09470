import { TidemarkError } from '../platform/errors.ts';

export const usage = `tidemark <command> [options]

  check                     what keeps the pipeline from working, and the line that mends it
  run                       replicate and deliver until stopped
      --roles replicate,deliver,retain      only these roles in this process (retain: where retain.enabled is set)
      --destinations a,b            only these destinations
  status                    slot, Progress, every destination: marks, lag, last error with its remedy
  verify <destination>      prove that the destination equals the source at one Position, while writes go on
      --limit 20                    differing keys to show
      --timeout 120s                give up after
  resume <schema.table>     bring a parked table back: what was parked is published in order, as a new major version
      --as evolve|text              how its change goes on: values in their new type, or that column as text
      --timeout 120s                give up waiting after
  snapshot start <table>…   read the table once more, beside the stream
      --where "…"                   only these rows
      --for destination             nobody else gets the rows
  snapshot pause|resume|cancel <table>…
  snapshot status [table]…  how far, how fast, how long still
      --watch                       until none runs any more
  destination list          every destination: paused or not, Units, last error with its remedy
  destination show <name>   and its newest deliveries with their receipts
      --limit 10
  destination pause|resume <name>
      --reason "…"                  for those who wonder why
  destination test <name>   can it be reached; a webhook gets a test event
  destination skip <name> --to now|<position> --yes       go on there; what lies between is never delivered
      --unit app.findings, --reason "…", --timeout 60s
  destination replay <name> --from held|<position> --yes  go back to what it holds, after it was restored
      --unit app.findings, --reason "…", --timeout 60s
  destination resync <name> [table]…                      read its tables again, beside its stream
  maintain <destination> [table]…   beside whoever writes: merge small files and lists of files, expire what is past,
                            remove what nothing names (iceberg)
      --only compact,manifests,expire,orphans
      --older-than 5d, --keep-last 1     snapshots that stay, besides those of tags
      --orphans-older-than 3d            files that nothing names
      --delete-ratio 0.3                 of a file's rows, from which on it is written anew
      --dry-run                          say what there is to do
      --yes                              shorter ages than are safe
  tag <destination> <name>  name the state of all its tables at one Position: it stays, whatever comes (iceberg)
      --drop                        the name goes
  tag <destination> --list          names, Positions, snapshots
  quarantine list           rows that a destination refused: where, why, how much waits behind them
      --destination name, --all     of one destination; those that are done too
  quarantine show <id>…     the rows themselves
  quarantine replay <id>…   try them again, with what came since; or --destination name
      --timeout 120s
  quarantine drop <id>… --yes       they stay away until they come whole again; or --destination name
  retain setup              tables for Tombstones, policies, holds and overrides in the source database
  retain plan               what would be evicted under the policies, and what keeps the rest
  retain run                evict rows on proof of delivery, until stopped
      --once, --timeout 120s        only what may go now
  retain status             what was evicted, what waits and why
  retain hold add [table] --reason "…" --by "…"         nothing of it goes, whatever policies and overrides say
      --tenant t, --key '["…"]', --keys file        only that organization's rows; only these, one key on each line
      --until 2027-01-31            or a duration; for ever by default
  retain hold release <id> --reason "…" --by "…"
  retain hold list          those in force; --all: those that are over too
  retain override add <name> <table> --reason "…" --by "…" --until 24h --confirm <table>
      --tenant t | --all            whose rows may go without proof; at most 30d
  retain override revoke <name> --reason "…" --by "…"
  retain override list      those in force; --all: those that are over too
  recall <table> --list     evicted rows that are at destinations alone
      --limit 100
  recall <table> [key]… --reason "…"   bring rows back, their hashes checked; run again, it goes on where it stopped
      --key '["…"]', --keys file    these rows: row_key of the Tombstone, one on each line of a file
      --where "tenant = '42' and evicted_at >= '2026-01-01'"    those; also destination, policy_version, columns of the key
      --all                         every row of the table
      --destination name            from there
  erase [table]… --tenant t --reason "…" --by "…" --confirm t       rows of a tenant, wherever they are; legal holds win
  erase <table> --key '["…"]' --reason "…" --by "…" --confirm <table>   these rows; or --keys file
      --list                        what there is of it, nothing is erased
      --timeout 120s                wait so long for destinations; what could not be reached is told
  retain evidence --from 2026-01-01 --to 2026-02-01     a signed report of what was evicted: lines of JSON, and a page
      --organization id, --out folder
  retain check-evidence <report> --public-key file      whether it is whole, and a destination has its rows; asks nothing else
      --destination name|file.json, --sample 200, --all
  teardown --yes            drop the slot and publications, so that nothing pins the source any more
      --slot                        the slot and its place in Kafka only: the next run starts a new epoch
      --topics                      also topics, subjects and the ledger of this source
      --reason "…"                  needed for either where evicted rows are at destinations alone
  demo                      the whole pipeline on this machine, with a live view
      --once                        a bounded run: verify, summary, exit 0 only if all is equal
      --transactions 2000           how much, with --once
      --rate 50                     transactions per second (0: as fast as possible)
      --seed 1
      --findings 200000             that the application has already: the first snapshot brings them
      --destination postgres,iceberg      where to: also parquet, jsonl, clickhouse, kafka, webhook

  --config FILE             tidemark.yaml in the current folder by default (or TIDEMARK_CONFIG)
  --json                    machine-readable output
  --log-level debug|info|warn|error
  --version, --help

Exit codes: 0 done, 1 the answer is no, 2 wrong usage or configuration, 3 stopped by an error that needs somebody,
4 something did not answer. docs/errors.md explains every TM code.
`;

const [, commands = '', common = ''] = usage.split('\n\n');
/** Of each form of a command its line, and those below it with its options. */
const forms = commands.split(/\n(?= {2}\S)/).map((text) => {
  const [head = ''] = text.trim().split('  ');
  const words = head.split(' --')[0]!.split(' ');
  const names = words.filter((word) => /^[a-z]/.test(word)).map((word) => word.split('|'));
  const others = words.slice(names.length);
  const most = others.some((word) => word.endsWith('…')) ? Number.POSITIVE_INFINITY : others.length;
  return { text, names, most: names.length + most };
});

/** @returns the part that is about one command, or all of it where there is none of the name */
export function usageOf(command: string | undefined): string {
  const found = forms.filter(({ names }) => names[0]!.includes(command ?? ''));
  if (found.length === 0) return usage;
  return `${found.map(({ text }) => text).join('\n')}\n\n${common}\n`;
}

/**
 * What a command's help does not name is refused: whoever gave a table to `retain run`, or `--dry-run` to `teardown`, would
 * get something else than was meant.
 * @param words the command, its action, and what follows
 * @param options names of those that were given
 * @throws TidemarkError TM101
 */
export function requireKnown(words: readonly string[], options: readonly string[]): void {
  // The same by another name.
  const said = words[0] === 'retain' && words[1] === 'recall' ? words.slice(1) : words;
  const fitting = forms.filter(({ names }) => names.every((choice, i) => choice.includes(said[i] ?? '')));
  // An action that there is none of is the command's to refuse.
  if (fitting.length === 0) return;
  const { names } = fitting[0]!;
  const command = said.slice(0, names.length).join(' ');
  const named = new Set([...fitting.map(({ text }) => text), common].flatMap(optionsIn));
  const unknown =
    options.find((option) => !named.has(option)) ?? said[Math.max(...fitting.map(({ most }) => most))];
  if (unknown === undefined) return;
  const given = options.includes(unknown) ? `--${unknown}` : `"${unknown}"`;
  throw new TidemarkError('TM101', `tidemark ${command} does not take ${given}`, {
    remedy: `tidemark ${said[0]} --help`,
  });
}

function optionsIn(text: string): string[] {
  return [...text.matchAll(/--([a-z][a-z-]*)/g)].map(([, name]) => name!);
}
