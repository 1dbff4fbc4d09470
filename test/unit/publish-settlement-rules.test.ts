/** What a transaction without its markers is taken for. */
import { describe, expect, it } from 'vitest';
import { judgeHidden, judgePartition } from '../../src/publish/settlement-rules.ts';

describe('a transaction whose Progress is not decided', () => {
  it.each([
    // Any marker tells what the coordinator decided.
    { traces: { commits: 2, aborts: 0, short: 0 }, decision: 'commit', doubtful: false },
    { traces: { commits: 0, aborts: 1, short: 0 }, decision: 'abort', doubtful: false },
    // Nobody saw anything of it, it is whole, and the slot may be confirmed up to it.
    { traces: { commits: 0, aborts: 0, short: 0 }, decision: 'commit', doubtful: false },
    // Records of it are gone: what Progress would say is not true, and nobody saw the rest.
    { traces: { commits: 0, aborts: 0, short: 1 }, decision: 'abort', doubtful: false },
    // Records that consumers saw are gone: compareEnds says so.
    { traces: { commits: 1, aborts: 0, short: 1 }, decision: 'commit', doubtful: false },
    { traces: { commits: 0, aborts: 1, short: 1 }, decision: 'abort', doubtful: false },
    // Cannot be: rather twice than lost.
    { traces: { commits: 1, aborts: 1, short: 0 }, decision: 'abort', doubtful: true },
  ])('$traces: $decision', ({ traces, decision, doubtful }) => {
    expect(judgeHidden(traces)).toEqual({ decision, doubtful });
  });
});

describe('a partition against the last Progress', () => {
  const judge = (stable: number, high: number, end: number | null) =>
    judgePartition({ stable: BigInt(stable), high: BigInt(high) }, end === null ? null : BigInt(end));

  it.each([
    ['decided to its end, with a marker behind it', 156, 156, 155],
    ['decided to its end', 155, 155, 155],
    ['decided, but records are gone: for compareEnds', 150, 150, 155],
    ['open, and records are gone: for compareEnds', 150, 153, 155],
    ['new and empty', 0, 0, null],
  ])('%s: nothing to decide', (_, stable, high, end) => {
    expect(judge(stable, high, end)).toBeNull();
  });

  it.each([
    ['what Progress covers is open', 154, 155, 155, { decision: 'commit', beyond: false }],
    ['all of it', 0, 155, 155, { decision: 'commit', beyond: false }],
    ['and more than it says', 154, 160, 155, { decision: 'commit', beyond: true }],
    ['only what comes behind it is open', 155, 160, 155, { decision: 'abort', beyond: false }],
    ['behind a marker', 156, 160, 155, { decision: 'abort', beyond: false }],
    ['Progress does not name it', 0, 3, null, { decision: 'abort', beyond: false }],
    ['nor knew of records', 0, 3, 0, { decision: 'abort', beyond: false }],
  ])('%s', (_, stable, high, end, judged) => {
    expect(judge(stable, high, end)).toEqual(judged);
  });
});
