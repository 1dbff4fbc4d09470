/**
 * Files of a group begin in the order of how long they take, so that the last ones to end are short and no worker waits
 * for another at the end. A fresh clone knows nothing of earlier runs: what vitest goes by there, the size of the file,
 * says little of a test that waits for servers.
 */
import { relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Seconds among others on two cores, of the longest; the others by their folder. */
export const longest: Readonly<Record<string, number>> = {
  'test/conformance/iceberg.test.ts': 680,
  'test/conformance/clickhouse.test.ts': 570,
  'test/faults/random-shapes.test.ts': 530,
  'test/integration/demo.test.ts': 500,
  'test/conformance/kafka.test.ts': 490,
  'test/faults/retention-schedules.test.ts': 400,
  'test/faults/big-transaction.test.ts': 400,
  'test/integration/type-matrix.test.ts': 370,
  'test/conformance/iceberg-append.test.ts': 350,
  'test/conformance/parquet-directory.test.ts': 350,
  'test/faults/named-points.test.ts': 330,
  'test/faults/random-kills.test.ts': 320,
  'test/faults/keyless-snapshot.test.ts': 290,
  'test/faults/retention.test.ts': 260,
  'test/faults/outages.test.ts': 230,
};

const byFolder: readonly [string, number][] = [
  ['test/conformance/', 200],
  ['test/faults/', 150],
  ['test/integration/', 50],
  ['test/regression/', 10],
];

export function secondsOf(file: string): number {
  return longest[file] ?? byFolder.find(([folder]) => file.startsWith(folder))?.[1] ?? 1;
}

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const seconds = ({ moduleId }: TestSpecification) => secondsOf(relative(this.ctx.config.root, moduleId));
    return [...files].sort((a, b) => seconds(b) - seconds(a));
  }
}
