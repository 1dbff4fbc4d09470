/** The command line is held to its own help: what that does not name is refused, and never ignored. */
import { expect, test } from 'vitest';
import { requireKnown, usage, usageOf } from '../../src/command/usage.ts';
import { options } from '../../src/main.ts';

test.each([
  [['teardown', 'replica'], ['yes'], '"replica"'],
  [['teardown'], ['yes', 'dry-run'], '--dry-run'],
  [['retain', 'run', 'app.findings'], ['once'], '"app.findings"'],
  [['retain', 'run'], ['once', 'tenant'], '--tenant'],
  [['erase'], ['tenant', 'dry-run'], '--dry-run'],
  [['destination', 'pause', 'lake', 'replica'], [], '"replica"'],
  [['quarantine', 'list', 'replica'], [], '"replica"'],
  [['verify', 'lake', 'replica'], ['json'], '"replica"'],
])('%j with %j is refused for %s', (words, given, what) => {
  expect(() => requireKnown(words, given)).toThrowError(
    expect.objectContaining({ code: 'TM101', message: expect.stringContaining(what) }),
  );
});

test.each([
  [
    ['verify', 'lake'],
    ['config', 'json', 'limit', 'timeout'],
  ],
  [
    ['maintain', 'lake', 'app.a', 'app.b'],
    ['only', 'older-than', 'dry-run', 'yes'],
  ],
  [
    ['destination', 'replay', 'lake'],
    ['from', 'yes', 'unit'],
  ],
  [
    ['destination', 'skip', 'lake'],
    ['to', 'yes', 'unit', 'reason', 'timeout'],
  ],
  [['destination', 'resync', 'lake', 'app.a', 'app.b'], []],
  [
    ['quarantine', 'drop'],
    ['destination', 'yes'],
  ],
  [
    ['recall', 'app.a'],
    ['list', 'where', 'limit'],
  ],
  [['retain', 'recall', 'app.a', '["1"]', '["2"]'], ['reason']],
  [['retain', 'hold', 'list'], ['all']],
  [['retain', 'sing'], ['all']],
  [['tag', 'lake', 'q3'], ['drop']],
])('%j with %j is for the command to judge', (words, given) => {
  expect(() => requireKnown(words, given)).not.toThrow();
});

test('the help names every option, and of one command all of its forms', () => {
  for (const name of Object.keys(options)) expect(usage).toContain(`--${name}`);
  expect(usageOf('tag').split('\n').slice(0, 3)).toEqual([
    expect.stringMatching(/^ {2}tag <d/),
    expect.stringContaining('--drop'),
    expect.stringMatching(/^ {2}tag .*--list/),
  ]);
  expect(usageOf('tag')).not.toContain('quarantine');
  expect(usageOf('nothing')).toBe(usage);
});
