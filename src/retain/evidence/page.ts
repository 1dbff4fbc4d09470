/** A report for people: one file, nothing loaded from anywhere, whatever the rows' keys are. */
import type { EvidenceCounts, EvidenceHead, EvidenceRow, EvidenceSignature, EvidenceSum } from './format.ts';

/** Rows that are listed; browsers choke on many more, and programs read the lines. */
const mostRows = 2000;

const style = `
:root { color-scheme: light; font: 15px/1.5 system-ui, sans-serif; color: #1b1b1f; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #d8d8de; overflow-wrap: anywhere; }
th { border-bottom: 2px solid #8a8a94; } thead { display: table-header-group; } tr { break-inside: avoid; }
td, dd { unicode-bidi: isolate; } code, .mono { font: .8rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; } dt { color: #55555e; } dd { margin: 0; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } @page { margin: 14mm; } }`;

export class EvidencePage {
  readonly #head: EvidenceHead;
  #rows = 0;

  constructor(head: EvidenceHead) {
    this.#head = head;
  }

  head(): string {
    const { source, organization, from, to, madeAt, madeBy, policies, overrides } = this.#head;
    const title = `Evidence of retention: ${organization ?? 'every organization'}`;
    return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escaped(title)}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width"><style>${style}
</style></head><body>
<h1>${escaped(title)}</h1>
<p>Rows that left the source database <b>${escaped(source)}</b>, each on proof of delivery or by a named override. Destinations keep them.</p>
${pairs([
  ['Evicted', `from ${from} (inclusive) to ${to} (exclusive)`],
  ['Made', `${madeAt} by ${madeBy}`],
])}
<h2>Policies that they went under</h2>
${table(
  ['Table', 'Version', 'Since', 'By', 'Policy'],
  policies.map(({ table: of, version, changedAt, changedBy, policy }) => [
    of,
    String(version),
    changedAt,
    changedBy,
    JSON.stringify(policy),
  ]),
)}
<h2>Overrides: rows that went without proof</h2>
${table(
  ['Name', 'Table', 'Organization', 'Reason', 'Granted', 'Until'],
  overrides.map(({ name, table: of, tenant, reason, grantedAt, grantedBy, expiresAt }) => [
    name,
    of,
    tenant ?? 'every one',
    reason,
    `${grantedAt} by ${grantedBy}`,
    expiresAt,
  ]),
)}
<h2>Rows</h2>
<table><thead><tr><th>Evicted</th><th>Table</th><th>Key</th><th>Delivered to</th><th>Up to</th><th>Salted SHA-256</th><th>Remarks</th></tr></thead><tbody>
`;
  }

  /** Empty beyond what is listed. */
  row(row: EvidenceRow): string {
    if (++this.#rows > mostRows) return '';
    const cells = [
      row.evictedAt,
      `${row.schema}.${row.name}`,
      row.key,
      row.deliveredTo
        .map(({ destination, receipt }) => `${destination}${receipt ? ` (commit ${receipt.commitId})` : ''}`)
        .join(', '),
    ];
    return `<tr>${cells.map((text) => `<td>${escaped(text)}</td>`).join('')}<td class="mono">${escaped(row.position)}</td><td class="mono">${escaped(row.hash)}</td><td>${escaped(remarks(row))}</td></tr>\n`;
  }

  end(sum: EvidenceSum, seal: EvidenceSignature, file: string): string {
    const left = sum.rows - mostRows;
    const name = file.slice(file.lastIndexOf('/') + 1);
    return `</tbody></table>
${left > 0 ? `<p>${left} more rows are in ${escaped(name)}.</p>` : ''}
<h2>Counts</h2>
${pairs(countsOf(sum))}
<h2>Seal</h2>
<p>This page is for reading. What is signed is <b>${escaped(name)}</b>, which has all of this and the salts:</p>
${pairs([
  ['SHA-256 of its lines before the sum', sum.digest],
  ['Ed25519 signature', seal.signature],
  ['Key', `${seal.keyId} (${seal.publicKey})`],
])}
<p>It is checked, and compared with a destination, without the source and without Tidemark’s databases:</p>
<p><code>tidemark retain check-evidence ${escaped(name)} --public-key evidence.pub --destination lake.json</code></p>
</body></html>
`;
  }
}

function remarks(row: EvidenceRow): string {
  return [
    ...(row.pinned === null ? [] : [`relies on ${row.pinned}`]),
    `policy version ${row.policyVersion}`,
    ...(row.override === null ? [] : [`by override ${row.override}`]),
    ...(row.forfeited.length > 0 ? [`gone for good: ${row.forfeited.join(', ')}`] : []),
    ...(row.recalledAt === null
      ? []
      : [`recalled ${row.recalledAt} by ${row.recalledBy}: ${row.recallReason ?? ''}`]),
    ...(row.superseded ? ['evicted again later'] : []),
    ...(row.salt === null ? ['salt erased'] : []),
  ].join('; ');
}

function countsOf(counts: EvidenceCounts): [string, string][] {
  const { rows, recalled, superseded, saltErased, overridden, byTable, byDestination } = counts;
  return [
    ['Rows', String(rows)],
    ['By override', String(overridden)],
    ['Recalled since', String(recalled)],
    ['Evicted again later', String(superseded)],
    ['Salt erased', String(saltErased)],
    ...Object.entries(byTable).map(([name, count]): [string, string] => [`Of ${name}`, String(count)]),
    ...Object.entries(byDestination).map(([name, count]): [string, string] => [`At ${name}`, String(count)]),
  ];
}

function pairs(entries: readonly (readonly [string, string])[]): string {
  return `<dl>${entries.map(([name, text]) => `<dt>${escaped(name)}</dt><dd class="mono">${escaped(text)}</dd>`).join('\n')}</dl>`;
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '<p>None.</p>';
  return `<table><thead><tr>${heads.map((text) => `<th>${escaped(text)}</th>`).join('')}</tr></thead><tbody>
${rows.map((cells) => `<tr>${cells.map((text) => `<td>${escaped(text)}</td>`).join('')}</tr>`).join('\n')}
</tbody></table>`;
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** What would steer the text around it is shown by its code: controls, and marks that turn the direction of writing. */
function escaped(text: string): string {
  return text
    .replace(/[&<>"']/g, (found) => entities[found]!)
    .replace(
      /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu,
      (found) => `\\u${found.codePointAt(0)!.toString(16).padStart(4, '0')}`,
    );
}
