/** Kind `webhook`: an endpoint that keeps what it acknowledged in a file, a path of its own for each case. */
import { webhookSink } from '../../connectors/sinks/webhook/index.ts';
import type { Cell } from '../../src/connector/sink.ts';
import type { Json } from '../fixtures/webhook-endpoint.ts';
import { newSecret, optionValues, shapeOf } from '../integration/webhook-harness.ts';
import type { Place, Subject } from './subject.ts';
import { Receiver, stateOf, unwelcome } from './webhook-receiver.ts';

export const webhookSubject: Subject = {
  kind: webhookSink,
  mode: 'send',
  refuses: {},
  failpoints: ['webhook:before-request', 'webhook:after-request'],
  refusedRow: { shape: shapeOf('picky', ['id', 'note']), values: ['0', unwelcome] },

  async start(folder) {
    const secret = newSecret();
    const receiver = await Receiver.start(secret, folder);
    const { endpoint } = receiver;
    let places = 0;
    return {
      async place(): Promise<Place> {
        places += 1;
        const path = `/case-${places}`;
        const own = { url: endpoint.url('127.0.0.1', path), 'batch.max.events': 100 };
        const of = ({ schema, name }: { schema: string; name: string }) =>
          receiver.received(path).filter((event) => event.schema === schema && event.table === name);
        return {
          options: optionValues({ ...own, secret }),
          refusedOptions: optionValues({ ...own, secret: newSecret() }),
          rows: async (shape) => stateOf(of(shape), shape),
          events: async (shape) =>
            of(shape).map((event) => {
              const key = shape.keyColumns.map((index) => shape.columns[index]!.name);
              return seenEvent(event, key);
            }),
          whileThrottled: (work) =>
            receiver.whileAnswering({ status: 429, headers: { 'retry-after': '1' } }, work),
          // Insufficient Storage.
          whileFull: (work) => receiver.whileAnswering(507, work),
        };
      },
      stop: () => endpoint.stop(),
      async whileDown(work) {
        await endpoint.stop();
        try {
          await work();
        } finally {
          await endpoint.listen();
        }
      },
    };
  },
};

function seenEvent({ id, op, position, key, row }: Json, names: readonly string[]) {
  const cells = names.map((name) => key[name]) as Cell[];
  return {
    op,
    position,
    // A key column may have had another name then.
    key: cells.includes(undefined as never) ? (Object.values(key) as Cell[]) : cells,
    values: row as Record<string, Cell>,
    identity: id as string,
  };
}
