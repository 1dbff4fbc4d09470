/** The `finding.*` keys. The defaults fit app.findings of the sample application (migrations/source). */
import type { OptionValues } from '../../../src/connector/sink.ts';
import { type ColumnMapping, type FindingOptions, overlap, parseMapping } from './finding-mapping.ts';
import type { Labels } from './finding-values.ts';

export const defaultColumns = [
  'finding_info.uid=id',
  'finding_info.title=title',
  'finding_info.analytic.uid=rule_id',
  'finding_info.created_time=created_at',
  'finding_info.modified_time=updated_at',
  'finding_info.first_seen_time=first_seen_at',
  'finding_info.last_seen_time=last_seen_at',
  'metadata.tenant_uid=organization_id',
  'severity_id=severity',
  'status_id=status',
  'risk_score=risk_score',
];

export const defaultSeverities = [
  'info=1',
  'informational=1',
  'low=2',
  'medium=3',
  'moderate=3',
  'high=4',
  'critical=5',
  'fatal=6',
];

export const defaultStatuses = [
  'open=1',
  'new=1',
  'triaged=2',
  'in_progress=2',
  'suppressed=3',
  'resolved=4',
  'closed=4',
  'archived=5',
];

export function findingOptionsFrom(
  values: OptionValues,
  refuse: (key: string, why: string) => never,
): FindingOptions {
  const list = (key: string, fallback: string[]): string[] => {
    const value = values[key];
    return Array.isArray(value) && value.length > 0 ? value : fallback;
  };
  const texts = list('finding.columns', defaultColumns);
  const columns = texts.map((text, index): ColumnMapping => {
    const mapping = parseMapping(text);
    return typeof mapping === 'string' ? refuse('finding.columns', `item ${index + 1}: ${mapping}`) : mapping;
  });
  const twice = overlap(columns);
  if (twice !== null) refuse('finding.columns', `${twice} is written twice`);
  const labels = (key: string, fallback: string[], largest: number): Labels =>
    new Map(
      list(key, fallback).map((text, index) => {
        const match = /^(.+)=(\d{1,2})$/.exec(text);
        const id = Number(match?.[2]);
        if (!match || (id > largest && id !== 99)) {
          refuse(key, `item ${index + 1} must be a word, = and a number from 0 to ${largest} or 99`);
        }
        return [match![1]!.toLowerCase(), id];
      }),
    );
  const name = (key: string): string | null => {
    const value = values[key];
    return typeof value === 'string' && value !== '' ? value : null;
  };
  return {
    columns,
    named: texts.join() !== defaultColumns.join(),
    severities: labels('finding.severities', defaultSeverities, 6),
    statuses: labels('finding.statuses', defaultStatuses, 6),
    product: name('finding.product'),
    vendor: name('finding.vendor'),
  };
}
