/**
 * Files of a group begin in the order of how long they take, so that the last ones to end are short and no worker waits
 * for another at the end. A fresh clone knows nothing of earlier runs: what vitest goes by there, the size of the file,
 * says little of a test that waits for servers.
 */
import { relative } from 'node:path';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Seconds on two cores, of the longest; the others by their folder. */
export const longest: Readonly<Record<string, number>> = {
  'test/faults/retention.test.ts': 230,
  'test/conformance/iceberg.test.ts': 260,
  'test/faults/random-shapes.test.ts': 190,
  'test/faults/outages.test.ts': 190,
  'test/integration/demo.test.ts': 180,
  'test/conformance/kafka.test.ts': 170,
  'test/faults/random-kills.test.ts': 170,
  'test/conformance/clickhouse.test.ts': 165,
  'test/conformance/parquet-bucket.test.ts': 140,
  'test/faults/keyless-snapshot.test.ts': 130,
  'test/integration/type-matrix.test.ts': 125,
  'test/faults/named-points.test.ts': 125,
};

const byFolder: readonly [string, number][] = [
  ['test/conformance/', 100],
  ['test/faults/', 60],
  ['test/integration/', 20],
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
