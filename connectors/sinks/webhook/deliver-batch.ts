/** One batch to the endpoint; one that it refuses for its content is halved until single events are refused. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type Answer, accepted } from './answers.ts';
import { bodyBytes } from './batch.ts';
import type { OutgoingEvent } from './event.ts';

/**
 * So many events refused, and none accepted in between, are no bad rows but an endpoint that does not understand us:
 * naming them would move whole tables to Quarantine.
 */
const suspicious = 50;

/** What this process knows of the endpoint, whichever table it learned it from. */
export interface EndpointMemory {
  refusedInARow: number;
  /** Bodies of this size were too large (413); smaller ones are not known to be. */
  tooLargeBytes: number;
}

export interface BatchOutcome {
  /** Acceptance, or a refusal of the content. @throws TidemarkError for anything else */
  post(events: readonly OutgoingEvent[]): Promise<Answer>;
  accept(events: readonly OutgoingEvent[]): void;
  refuse(event: OutgoingEvent, answer: Answer): void;
  tooLarge(bytes: number): void;
  /** Something failed elsewhere: nothing new is to be sent. */
  stopped(): boolean;
}

/**
 * Halves are always the same halves, so that their ids are too: of a batch that is known to be too large they are sent
 * at once, which is where a process without that knowledge arrives by asking.
 *
 * Later events of a refused key stay unsent with everything behind them; what becomes of them is not decided here.
 * @throws what posting throws, and TM402 for an endpoint that refuses everything
 */
export async function deliverBatch(
  events: readonly OutgoingEvent[],
  memory: EndpointMemory,
  outcome: BatchOutcome,
): Promise<void> {
  let pieces: (readonly OutgoingEvent[])[] = [events];
  const refusedKeys = new Set<string>();
  while (pieces.length > 0 && !outcome.stopped()) {
    let [piece, ...rest] = pieces as [readonly OutgoingEvent[], ...typeof pieces];
    const blocked = piece.findIndex(({ key }) => refusedKeys.has(key));
    if (blocked === 0) return;
    if (blocked > 0) [piece, rest] = [piece.slice(0, blocked), []];
    pieces = rest;
    if (piece.length > 1 && bodyBytes(piece) >= memory.tooLargeBytes) {
      pieces = [...halves(piece), ...pieces];
      continue;
    }
    const answer = await outcome.post(piece);
    if (accepted(answer)) {
      memory.refusedInARow = 0;
      outcome.accept(piece);
    } else if (piece.length > 1) {
      if (answer.status === 413) outcome.tooLarge(bodyBytes(piece));
      pieces = [...halves(piece), ...pieces];
    } else {
      memory.refusedInARow += 1;
      if (memory.refusedInARow > suspicious) throw refusesEverything(answer);
      const [event] = piece as [OutgoingEvent];
      outcome.refuse(event, answer);
      if (event.key !== '') refusedKeys.add(event.key);
    }
  }
}

function halves(piece: readonly OutgoingEvent[]): (readonly OutgoingEvent[])[] {
  const middle = Math.ceil(piece.length / 2);
  return [piece.slice(0, middle), piece.slice(middle)];
}

function refusesEverything({ status }: Answer): TidemarkError {
  return new TidemarkError('TM402', `the endpoint refuses event after event with HTTP ${status}`, {
    remedy:
      'Make shape, format and headers what the endpoint understands, or mend the endpoint: see its log.',
  });
}
