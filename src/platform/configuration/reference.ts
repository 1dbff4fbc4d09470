/** The configuration reference: docs/configuration.md and docs/tidemark.schema.json, made from the field tables. */
import { columnPolicies } from '../column-policy.ts';
import type { SinkOptions } from './destinations.ts';
import { type Field, type FieldTable, optionAsField } from './field.ts';
import { configurationFields, destinationFields, tablePattern, tableRuleFields } from './fields.ts';
import { rangeOf } from './parse-field.ts';
import { formatBytes, formatDuration } from './scalars.ts';

const introduction = `# Configuration

<!-- Generated from src/platform/configuration/fields.ts and the sinks' own options. Do not edit by hand:
TIDEMARK_WRITE_DOCS=1 npx vitest run test/unit/config-reference.test.ts -->

Tidemark reads one \`tidemark.yaml\` and one JSON file for each destination. A key may be written nested, dotted, or
in any mixture; these three are the same:

\`\`\`yaml
source:
  tls:
    mode: verify-full
\`\`\`
\`\`\`yaml
source:
  tls.mode: verify-full
\`\`\`
\`\`\`yaml
source.tls.mode: verify-full
\`\`\`

The smallest file that works:

\`\`\`yaml
source:
  id: shop
  url: postgres://tidemark@db.internal/shop?sslmode=verify-full
  password: \${env:SOURCE_PASSWORD}
  tables: [app.*]
kafka.brokers: [kafka-1.internal:9092, kafka-2.internal:9092, kafka-3.internal:9092]
registry.url: http://registry.internal:8081
control:
  url: postgres://tidemark@control.internal/tidemark?sslmode=verify-full
  password: \${file:/run/secrets/control-password}
\`\`\`

An unknown, doubled or unfit key stops the start (TM101). All problems of all files are reported at once, with file,
line and key, and never with a value. YAML anchors, aliases and tags are not accepted. \`docs/tidemark.schema.json\`
lets an editor complete and check \`tidemark.yaml\`.

## Units

| kind | written as |
|---|---|
| duration | \`500ms\`, \`2s\`, \`15m\`, \`1h\`, \`7d\`; a cadence may also be \`continuous\` |
| bytes | \`64MiB\`, \`1GiB\` (B, KiB, MiB, GiB, TiB); a bare number is bytes |
| list | a YAML or JSON list, or one comma-separated text |
| path | absolute, or relative to the folder of the file it stands in |

An empty text or \`null\` counts as absent.

## Secrets

Any value of either kind of file may hold references; one that cannot be resolved stops the start (TM102).

| reference | becomes |
|---|---|
| \`\${env:NAME}\` | the environment variable |
| \`\${file:/path}\` | the file's text, without its last line break |
| \`\${file:/path:key}\` | one key of a JSON object or of a \`key=value\` file |
| \`$\${\` | a plain \`\${\` |

What a reference gives is put in as it is. A password with special characters would break a URL: give it in its own
key (\`source.password\`) instead. In printed configurations, secrets are \`[redacted]\`.

## Postgres URLs

\`postgres://user:password@host:port/database?parameters\`, percent-encoded where a part has special characters. One
host. Parameters: \`host\` (a folder for a Unix socket: \`postgres://user@/db?host=/var/run/postgresql\`), \`port\`,
\`dbname\`, \`user\`, \`password\`, \`sslmode\` (\`disable\`, \`require\`, \`verify-ca\`, \`verify-full\`), \`sslrootcert\`,
\`sslcert\`, \`sslkey\`, \`sslpassword\`. Environment variables such as PGPASSWORD and \`~/.pgpass\` are not read.
`;

const destinationIntroduction = `## Destinations

Each \`*.json\` in \`deliver.instances.directory\` (except \`*.example.json\`) is one destination, in the shape of a Kafka
Connect connector, with or without the \`config\` object around the keys:

\`\`\`json
{
  "name": "replica",
  "config": {
    "connector.class": "postgres",
    "tables": "app.*",
    "cadence": "continuous",
    "connection.url": "\${env:REPLICA_URL}"
  }
}
\`\`\`

\`name\` is 1 to 63 of a-z, 0-9 and -, does not begin with -, and is unique: the ledger knows the destination by it.
Keys are flat; values are texts, numbers or booleans. Beside the keys of its sink, every destination has:
`;

/** The text of docs/configuration.md. */
export function configurationReference(sinkKinds: readonly SinkOptions[]): string {
  const sections = [...new Set(Object.keys(configurationFields).map((key) => key.split('.')[0]!))];
  const parts = [introduction, '## tidemark.yaml\n'];
  for (const section of sections) {
    const fields = Object.entries(configurationFields).filter(([key]) => key.startsWith(`${section}.`));
    parts.push(`### ${section}\n`, fieldTable(Object.fromEntries(fields)));
    if (section === 'source') {
      const columns: Field = {
        type: 'string',
        unit: 'choice',
        oneOf: columnPolicies,
        default: null,
        defaultText: 'drop if personal, else keep',
        description: 'Whether, and how, this column leaves Postgres: see docs/records.md.',
      };
      const rows = { ...tableRuleFields, 'columns.<name>': columns };
      parts.push('#### Table rules\n', 'The keys of one item of `source.tables`, where it is a mapping:\n');
      parts.push(fieldTable(rows));
    }
  }
  const cadences: Field = {
    ...destinationFields.cadence,
    default: null,
    defaultText: 'cadence',
    description: 'The cadence of one table, for sinks to which each table is a Unit of its own.',
  };
  parts.push(
    destinationIntroduction,
    fieldTable({ ...destinationFields, 'cadence.<schema>.<table>': cadences }),
  );
  for (const { name, options } of sinkKinds) {
    const fields = Object.entries(options).map(([key, option]) => [key, optionAsField(option)] as const);
    parts.push(`### ${name}\n`, fieldTable(Object.fromEntries(fields)));
  }
  return `${parts.join('\n').trimEnd()}\n`;
}

function fieldTable(fields: FieldTable): string {
  const rows = Object.entries(fields).map(([key, field]) => {
    return `| \`${key}\` | ${cell(showUnit(field))} | ${showDefault(field)} | ${cell(field.description)} |`;
  });
  return `${['| key | unit | default | meaning |', '|---|---|---|---|', ...rows].join('\n')}\n`;
}

/** The unit, and what narrows it: choices, form, range. */
function showUnit(field: Field): string {
  if (field.oneOf) return `${field.unit}: ${field.oneOf.map((choice) => `\`${choice}\``).join(', ')}`;
  const form = field.form && field.form.says !== field.unit ? `: ${field.form.says}` : '';
  return `${field.unit}${form}${rangeOf(field)}`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}

function showDefault(field: Field): string {
  const { default: value, type } = field;
  if (value === undefined) return '**required**';
  if (value === null) return cell(field.defaultText ?? 'none');
  if (Array.isArray(value))
    return value.length === 0 ? 'empty' : cell(value.map((item) => `\`${item}\``).join(', '));
  if (typeof value === 'number' && type === 'duration') return `\`${formatDuration(value)}\``;
  if (typeof value === 'number' && type === 'bytes') return `\`${formatBytes(value)}\``;
  return `\`${cell(String(value))}\``;
}

type Json = Record<string, unknown>;

/**
 * JSON Schema (2020-12) of tidemark.yaml, in every mixture of nested and dotted keys. Which keys are required is in
 * their descriptions only: a schema cannot ask for a key that may be spelled in several ways.
 */
export function configurationSchema(): Json {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'tidemark.yaml',
    ...group('', configurationFields),
    $defs: {
      ...Object.fromEntries(Object.entries(configurationFields).map(([key, field]) => [key, leaf(field)])),
      reference: {
        description: 'A text with a reference in it: ${' + 'env:NAME}, ${' + 'file:path}.',
        type: 'string',
        pattern: '\\$\\{(env|file):[^{}]+\\}',
      },
      tableRule: {
        anyOf: [
          { type: 'string', pattern: tablePattern.pattern.source },
          {
            ...tableRule,
            patternProperties: { '^columns\\..': columnsSchema.additionalProperties },
          },
        ],
      },
    },
  };
}

const columnsSchema = {
  description: 'Whether, and how, a column leaves Postgres, by column name.',
  type: 'object',
  additionalProperties: { enum: columnPolicies },
};

const tenantColumn = leaf(tableRuleFields['tenant.column']);
const tableRule = {
  type: 'object',
  properties: {
    pattern: leaf(tableRuleFields.pattern),
    'tenant.column': tenantColumn,
    tenant: { type: 'object', properties: { column: tenantColumn }, additionalProperties: false },
    columns: columnsSchema,
  },
  required: ['pattern'],
  additionalProperties: false,
};

/** All keys under a prefix: dotted to their end, and nested one step with the rest within. */
function group(prefix: string, fields: FieldTable): Json {
  const properties: Json = {};
  for (const key of Object.keys(fields)) {
    if (!key.startsWith(prefix)) continue;
    const segments = key.slice(prefix.length).split('.');
    for (let length = 1; length < segments.length; length++) {
      const head = segments.slice(0, length).join('.');
      properties[head] ??= group(`${prefix}${head}.`, fields);
    }
    properties[segments.join('.')] = { $ref: `#/$defs/${key}` };
  }
  return { type: ['object', 'null'], properties, additionalProperties: false };
}

function leaf(field: Field): Json {
  const description = `${field.description} Unit: ${field.unit}. ${field.default === undefined ? 'Required.' : `Default: ${showDefault(field)}.`}`;
  const isDefault = field.default !== undefined && field.default !== null;
  return {
    description,
    ...(isDefault ? { default: field.default } : {}),
    anyOf: [...accepted(field), { type: 'null' }],
  };
}

function accepted(field: Field): Json[] {
  const reference = { $ref: '#/$defs/reference' };
  if (field.oneOf) return [{ enum: field.oneOf }, reference];
  const limits = {
    ...(field.min === undefined ? {} : { minimum: field.min }),
    ...(field.max === undefined ? {} : { maximum: field.max }),
  };
  const form = field.form ? { pattern: field.form.pattern.source } : {};
  switch (field.type) {
    case 'integer':
      return [{ type: 'integer', ...limits }, { type: 'string', pattern: '^-?[0-9]+$' }, reference];
    case 'duration':
    case 'cadence': {
      const pattern = `^([0-9]+(ms|s|m|h|d)${field.type === 'cadence' ? '|continuous' : ''})$`;
      return [{ type: 'string', pattern }, reference];
    }
    case 'bytes':
      return [
        { type: 'integer', ...limits },
        { type: 'string', pattern: '^[0-9]+ ?(|B|KiB|MiB|GiB|TiB)$' },
        reference,
      ];
    case 'boolean':
      return [{ type: 'boolean' }, { enum: ['true', 'false'] }, reference];
    case 'list':
      return [
        { type: 'array', items: { anyOf: [{ type: 'string', ...form }, reference] } },
        { type: 'string' },
      ];
    case 'tables':
      return [{ type: 'array', items: { $ref: '#/$defs/tableRule' } }, { type: 'string' }];
    default:
      // A bare number or boolean is read as its text.
      return [
        { type: 'string', ...form },
        { type: ['number', 'boolean'] },
        ...(field.form ? [reference] : []),
      ];
  }
}
