/** A row that the destination cannot take is named; the rest of its Window goes on without it. */
import { expect, test } from 'vitest';
import { RefusedRows } from '../../../src/connector/failure.ts';
import type { Row } from '../../../src/connector/sink.ts';
import { settled } from '../gate.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';
import { withoutChanges } from '../windows.ts';

export function refusedRowCases(subject: Subject, inTrial: InTrial): void {
  const { refusedRow } = subject;
  if (!refusedRow) return;
  const { shape, values } = refusedRow;
  const withKey = (n: number, row: Row): Row =>
    row.map((cell, i) => (shape.keyColumns.includes(i) ? String(1000 + n) : cell));
  const accepted = (n: number) =>
    withKey(
      n,
      values.map(() => null),
    );
  const refused = (n: number) => withKey(n, values);

  for (const truncated of [false, true]) {
    test(
      `in a Window that ${truncated ? 'truncates' : 'changes'} its table`,
      inTrial(async (trial) => {
        const writer = await trial.open();
        const table = trial.source.keyed(shape);
        table.insert(accepted(1), accepted(2));
        const [first] = await trial.deliver(writer);
        const before = trial.source.expected();
        if (truncated) table.truncate();
        table.insert(accepted(3));
        const bad: string[] = [];
        for (const n of [4, 5]) {
          table.insert(refused(n));
          bad.push(trial.source.position);
          for (let i = 0; i < 5; i += 1) table.insert(accepted(n * 10 + i));
        }
        let plan = trial.cutOne();
        const named = new Set<string>();
        for (;;) {
          const outcome = await settled(writer.write(withoutChanges(plan, named)));
          if (!(outcome instanceof RefusedRows)) {
            expect(outcome).not.toBeInstanceOf(Error);
            break;
          }
          expect(outcome.code).toBe('TM410');
          expect(outcome.rows.length).toBeGreaterThan(0);
          for (const { table: where, position, reason } of outcome.rows) {
            expect({ schema: where.schema, name: where.name }).toEqual({
              schema: shape.schema,
              name: shape.name,
            });
            expect(bad).toContain(position);
            expect(named.has(position), 'named twice').toBe(false);
            expect(reason).not.toBe('');
            named.add(position);
          }
          for (const cell of values) {
            if (cell !== null && cell.length > 8)
              expect(`${outcome.message} ${outcome.stack}`).not.toContain(cell);
          }
          if (subject.mode !== 'send') await trial.expectSame({ expected: before });
        }
        expect([...named].sort()).toEqual(bad.sort());
        expect(first).toBeDefined();
        plan = withoutChanges(plan, named);
        const expected = trial.source.expected().map((each) => ({
          ...each,
          rows: each.rows.filter((row) => ![withKey(4, row), withKey(5, row)].some((bad) => same(bad, row))),
          events: each.events.filter(({ event }) => !named.has(event.position)),
        }));
        await trial.expectSame({ expected });
      }),
    );
  }
}

function same(left: Row, right: Row): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}
