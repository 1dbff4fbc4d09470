/** The REST catalog client against Iceberg's own server and against SeaweedFS's, which wants its requests signed. */
import { rm } from 'node:fs/promises';
import { afterAll, beforeAll } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { configuration } from '../iceberg/catalog-cases/configuration.ts';
import { credentials } from '../iceberg/catalog-cases/credentials.ts';
import { lostOutcomes } from '../iceberg/catalog-cases/lost-outcomes.ts';
import { operations } from '../iceberg/catalog-cases/operations.ts';
import { patience } from '../iceberg/catalog-cases/patience.ts';
import { useStack } from '../iceberg/catalog-cases/world.ts';
import { createTableBucket } from '../iceberg/catalogs.ts';

const directory = new URL('../../.tidemark/test-stacks/iceberg-catalog', import.meta.url).pathname;
let stack: Stack;

beforeAll(async () => {
  await rm(directory, { recursive: true, force: true });
  stack = await startStack({ directory, parts: ['s3', 'iceberg'] });
  await createTableBucket(stack.environment, 'tables');
  useStack(stack);
});
afterAll(async () => {
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

operations();
lostOutcomes();
patience();
credentials();
configuration();
