/** What `tidemark retain evidence` and `check-evidence` print for a person. */
import type { CheckedDestination, EvidenceVerdict } from '../retain/evidence/check.ts';
import type { WrittenEvidence } from '../retain/evidence/write.ts';

export function writtenText({ file, page, rows, recalled, keyId, digest }: WrittenEvidence): string {
  return `${rows} rows${recalled > 0 ? ` (${recalled} recalled since)` : ''}: ${file}, to read: ${page}
signed by key ${keyId}, digest ${digest}
`;
}

export function verdictText(verdict: EvidenceVerdict): string {
  const { ok, report, rows, signedBy, problems, destination } = verdict;
  const lines = [
    ...(report
      ? [
          `report of ${report.source}, ${report.organization ?? 'every organization'}, ${report.from} to ${report.to}, made ${report.madeAt}: ${rows} rows`,
        ]
      : []),
    ...(problems.length === 0
      ? [`whole, and signed by the trusted key ${signedBy}`]
      : problems.map((problem) => `NOT TO BE RELIED UPON: ${problem}`)),
    ...(destination ? destinationLines(destination) : []),
    ...(!destination && ok ? ['no destination was asked: --destination compares its rows'] : []),
    ok ? (destination ? 'PROVEN' : 'GENUINE') : 'NOT PROVEN',
  ];
  return `${lines.join('\n')}\n`;
}

function destinationLines({
  destination,
  compared,
  matching,
  differing,
  differingRows,
  passedOver,
  behind,
}: CheckedDestination): string[] {
  return [
    `${destination}: ${matching} of ${compared} rows that were compared are as they were let go of`,
    ...Object.entries(passedOver).map(([reason, count]) => `  ${count} not compared: ${reason}`),
    ...differing.map(({ table, key, reason }) => `  ${table} ${key}: ${reason}`),
    ...(differingRows > differing.length ? [`  and ${differingRows - differing.length} more`] : []),
    ...behind.map((text) => `  ${text}`),
  ];
}
