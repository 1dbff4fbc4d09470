/** Sends Windows: encode → choose a lane → cut a batch → post it → note what was acknowledged. */
import { type RefusedRow, RefusedRows } from '../../../src/connector/failure.ts';
import { RowHash } from '../../../src/connector/row-hash.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type { AppendWindow, Receipt, RowEvent, SendSink, SinkContext } from '../../../src/connector/sink.ts';
import { type Answer, accepted, failureOf, refusesContent } from './answers.ts';
import { batchId, bodyOf, contentTypes, windowId } from './batch.ts';
import { deliverBatch, type EndpointMemory } from './deliver-batch.ts';
import { Endpoint } from './endpoint.ts';
import { concernsWholeTable, type EncodeEvent, type OutgoingEvent, placeOf } from './event.ts';
import { encodeFinding } from './finding-event.ts';
import { Lane, laneOf } from './lane.ts';
import type { WebhookOptions } from './options.ts';
import { Patience } from './patience.ts';
import { WindowProgress } from './progress.ts';
import { encodeRaw } from './raw-event.ts';

export class WebhookSink implements SendSink {
  readonly mode = 'send' as const;
  readonly #context: SinkContext;
  readonly #options: WebhookOptions;
  readonly #endpoint: Endpoint;
  readonly #encode: EncodeEvent;
  readonly #memory: EndpointMemory = { refusedInARow: 0, tooLargeBytes: Number.POSITIVE_INFINITY };
  /** Of Windows that failed on the way, by Unit. */
  readonly #progress = new Map<string, WindowProgress>();

  constructor(context: SinkContext, options: WebhookOptions) {
    this.#context = context;
    this.#options = options;
    this.#endpoint = new Endpoint(options.endpoint);
    this.#encode = encoderFor(options, context);
  }

  async sendWindow(window: AppendWindow): Promise<Receipt> {
    const { lanes, snapshotRows } = this.#options;
    const progress = this.#progressOf(window);
    const refused: RefusedRow[] = [];
    let failed = false;
    const wholeTable = lanes;
    const queues = Array.from({ length: lanes + 1 }, (_, lane) => {
      const run = { lane, progress, refused, patience: new Patience(), stopped: () => failed };
      return new Lane(this.#options, (events) => this.#deliver(window, run, events));
    });
    const hash = new RowHash();
    try {
      for await (const { event, shape } of changesOf(window)) {
        if (!snapshotRows && (event.op === 'r' || event.op === 's')) continue;
        hash.add([event.op, event.position, ...event.key, ...event.values]);
        const place = placeOf(event);
        const key = event.key.length === 0 ? '' : JSON.stringify(event.key);
        const barrier = concernsWholeTable(event);
        const lane = barrier ? wholeTable : laneOf(key, lanes);
        if (progress.hasSettled(lane, place)) continue;
        const outgoing = this.#outgoing(event, shape, key, place);
        if (barrier) await Promise.all(queues.map((queue) => queue.finish()));
        await queues[lane]!.add(outgoing);
        if (barrier) await queues[lane]!.finish();
        if (refused.length > 0) break;
      }
      if (refused.length === 0) await Promise.all(queues.map((queue) => queue.finish()));
    } catch (error) {
      failed = true;
      // What was refused has to be put away in any case; the failure will be back if it is still there.
      await Promise.all(queues.map((queue) => queue.ended()));
      if (refused.length === 0) throw error;
    }
    await Promise.all(queues.map((queue) => queue.ended()));
    if (refused.length > 0) throw new RefusedRows(refused);
    this.#progress.delete(window.unit);
    return {
      position: window.to,
      rows: { upserted: 0, deleted: 0, appended: hash.count },
      bytes: progress.bytes,
      contentHash: hash.hex,
      commitId: windowId(window),
      alreadyHeld: false,
    };
  }

  async close(): Promise<void> {
    await this.#endpoint.close();
  }

  #progressOf(window: AppendWindow): WindowProgress {
    let progress = this.#progress.get(window.unit);
    if (!progress?.isOf(window)) {
      progress = new WindowProgress(window, this.#options.lanes + 1);
      this.#progress.set(window.unit, progress);
    }
    return progress;
  }

  #outgoing(event: RowEvent, shape: TableShape, key: string, place: string): OutgoingEvent {
    const json = this.#encode(event, shape);
    return { json, bytes: Buffer.byteLength(json), key, place, position: event.position, shape };
  }

  async #deliver(
    window: AppendWindow,
    { lane, progress, refused, patience, stopped }: LaneRun,
    events: readonly OutgoingEvent[],
  ): Promise<void> {
    const { format } = this.#options;
    // The batch before this one may have left events unsent behind a refused one.
    if (refused.length > 0) return;
    await deliverBatch(events, this.#memory, {
      stopped,
      post: (piece) => {
        const body = bodyOf(piece, format);
        const id = batchId(window, piece);
        return patience.try(() => this.#post(id, body, progress), stopped);
      },
      accept: (piece) => {
        patience.earn();
        const places = piece.map(({ place }) => place);
        progress.accept(lane, places);
      },
      refuse: ({ place, position, shape }, { status }) => {
        progress.refuse(lane, place);
        refused.push({
          table: { schema: shape.schema, name: shape.name },
          position,
          reason: `HTTP ${status}`,
        });
      },
      tooLarge: (bytes) => this.#tooLarge(bytes),
    });
  }

  /** @throws TidemarkError for whatever is neither acceptance nor about the content */
  async #post(id: string, body: Buffer, progress: WindowProgress): Promise<Answer> {
    await this.#context.failpoint('webhook:before-request');
    const answer = await this.#endpoint.post(id, body, contentTypes[this.#options.format]);
    await this.#context.failpoint('webhook:after-request');
    if (accepted(answer)) progress.bytes += body.length;
    else if (!refusesContent(answer)) throw failureOf(answer);
    return answer;
  }

  #tooLarge(bytes: number): void {
    if (bytes >= this.#memory.tooLargeBytes) return;
    this.#memory.tooLargeBytes = bytes;
    this.#context.log(
      'warn',
      'the endpoint refuses requests of this size (HTTP 413): smaller ones from now on',
      {
        bytes,
        remedy: 'Set batch.max.bytes below it.',
      },
    );
  }
}

interface LaneRun {
  lane: number;
  progress: WindowProgress;
  refused: RefusedRow[];
  patience: Patience;
  stopped: () => boolean;
}

export function encoderFor({ shape, finding }: WebhookOptions, { sourceId, log }: SinkContext): EncodeEvent {
  if (shape === 'raw') return encodeRaw(sourceId);
  return encodeFinding(finding, {
    sourceId,
    onMissing: (table, columns) =>
      log('warn', 'finding.columns names columns that the table does not have', { table, columns }),
  });
}

async function* changesOf({ tables }: AppendWindow): AsyncIterable<{ event: RowEvent; shape: TableShape }> {
  for (const { shape, events } of tables) {
    for await (const batch of events()) for (const event of batch) yield { event, shape };
  }
}
