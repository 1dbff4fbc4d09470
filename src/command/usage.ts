export const usage = `tidemark <command> [options]

  check                     what keeps the pipeline from working, and the line that mends it
  run                       replicate and deliver until stopped
      --roles replicate,deliver     only these roles in this process
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
  snapshot status [table]   how far, how fast, how long still
      --watch                       until none runs any more
  destination list          every destination: paused or not, Units, last error with its remedy
  destination show <name>   and its newest deliveries with their receipts
      --limit 10
  destination pause|resume <name>
      --reason "…"                  for those who wonder why
  destination test <name>   can it be reached; a webhook gets a test event
  destination skip <name> --to now|<position> --yes       go on there; what lies between is never delivered
  destination replay <name> --from held|<position> --yes  go back to what it holds, after it was restored
      --unit app.findings, --reason "…", --timeout 60s
  destination resync <name> [table]…                      read its tables again, beside its stream
  quarantine list           rows that a destination refused: where, why, how much waits behind them
      --destination name, --all     of one destination; those that are done too
  quarantine show <id>      the rows themselves
  quarantine replay <id>…   try them again, with what came since; or --destination name
      --timeout 120s
  quarantine drop <id>… --yes       they stay away until they come whole again
  teardown --yes            drop the slot and publications, so that nothing pins the source any more
      --slot                        the slot and its place in Kafka only: the next run starts a new epoch
      --topics                      also topics, subjects and the ledger of this source
  demo                      the whole pipeline on this machine, with a live view
      --once                        a bounded run: verify, summary, exit 0 only if all is equal
      --transactions 2000           how much, with --once
      --rate 50                     transactions per second (0: as fast as possible)
      --seed 1
      --destination postgres,parquet      where to: also jsonl, clickhouse, kafka, webhook

  --config FILE             tidemark.yaml in the current folder by default (or TIDEMARK_CONFIG)
  --json                    machine-readable output
  --log-level debug|info|warn|error
  --version, --help

Exit codes: 0 done, 1 the answer is no, 2 wrong usage or configuration, 3 stopped by an error that needs somebody,
4 something did not answer. docs/errors.md explains every TM code.
`;
