import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import type { SinkKind } from '../../src/connector/sink.ts';
import { configurationFields } from '../../src/platform/configuration/fields.ts';
import { configurationReference, configurationSchema } from '../../src/platform/configuration/reference.ts';

const pageFile = new URL('../../docs/configuration.md', import.meta.url);
const schemaFile = new URL('../../docs/tidemark.schema.json', import.meta.url);

/** The sinks that the registry exports, in whatever collection; none while there is no registry. */
async function registeredSinks(): Promise<SinkKind[]> {
  const registry = new URL('../../connectors/sinks/registry.ts', import.meta.url);
  if (!existsSync(registry)) return [];
  const module = (await import(registry.href)) as Record<string, unknown>;
  const kinds = new Map<string, SinkKind>();
  const collect = (value: unknown): void => {
    if (value instanceof Map || Array.isArray(value)) for (const item of value.values()) collect(item);
    else if (isSinkKind(value)) kinds.set(value.name, value);
  };
  for (const value of Object.values(module)) collect(value);
  return [...kinds.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function isSinkKind(value: unknown): value is SinkKind {
  const candidate = value as Partial<SinkKind> | null;
  return typeof candidate?.name === 'string' && typeof candidate.open === 'function' && !!candidate.options;
}

test('the committed reference page and schema are what the field tables say', async () => {
  const page = configurationReference(await registeredSinks());
  const schema = `${JSON.stringify(configurationSchema(), null, 2)}\n`;
  if (process.env.TIDEMARK_WRITE_DOCS) {
    await writeFile(pageFile, page);
    await writeFile(schemaFile, schema);
  }
  const hint = 'run TIDEMARK_WRITE_DOCS=1 npx vitest run test/unit/config-reference.test.ts';
  expect(await readFile(pageFile, 'utf8'), hint).toBe(page);
  expect(await readFile(schemaFile, 'utf8'), hint).toBe(schema);
});

test('every key has a description, a unit and a default or is required, and is on the page', () => {
  const page = configurationReference([]);
  for (const [key, field] of Object.entries(configurationFields)) {
    expect(field.description.length, key).toBeGreaterThan(10);
    expect(field.unit, key).not.toBe('');
    expect(page).toContain(`| \`${key}\` |`);
  }
});

test("a sink's own options are on the page, with units and defaults in their own words", () => {
  const page = configurationReference([
    {
      name: 'sample',
      options: {
        'sample.pause': { type: 'duration', description: 'How long to wait.', default: 90_000 },
        'sample.mode': { type: 'string', description: 'Either|or.', oneOf: ['a', 'b'] },
      },
    },
  ]);
  expect(page).toContain('### sample');
  expect(page).toContain('| `sample.pause` | duration | `90s` | How long to wait.');
  expect(page).toContain('| `sample.mode` | text: `a`, `b` | **required** | Either\\|or. |');
});

test('the schema knows nested, dotted and mixed spellings of a key', () => {
  type Node = { properties: Record<string, Node>; $ref?: string };
  const schema = configurationSchema() as unknown as Node;
  expect(schema.properties['source.tls.mode']?.$ref).toBe('#/$defs/source.tls.mode');
  expect(schema.properties.source?.properties['tls.mode']?.$ref).toBe('#/$defs/source.tls.mode');
  expect(schema.properties.source?.properties.tls?.properties.mode?.$ref).toBe('#/$defs/source.tls.mode');
  expect(schema.properties['source.tls']?.properties.mode?.$ref).toBe('#/$defs/source.tls.mode');
  expect(schema.properties.source?.properties.tls?.properties.key?.$ref).toBe('#/$defs/source.tls.key');
});
