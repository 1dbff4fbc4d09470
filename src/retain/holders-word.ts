/**
 * The ledger says what was acknowledged; here its word is held against what cannot be altered with it: what each destination
 * itself says it holds, and where the topics ended. A destination that was restored from a backup holds less. A mark
 * that somebody moved by hand has records behind it that no Window carried there.
 */
import { recordsBetween } from '../deliver/offsets.ts';
import { asTidemarkError, TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import { evictionsOf } from '../publish/record-format.ts';
import type { DeliveryMark, StayReason } from './delivery-proof.ts';
import type { OpenHolders } from './open-holders.ts';
import type { WaitingMarks } from './waiting-marks.ts';

type Reach = Pick<WaitingMarks, 'position' | 'ends'>;

/**
 * Sets `doubt` of each mark that would prove something, or that was higher than it is.
 * @returns the alarm: what needs an operator
 */
export async function askHolders(
  marks: readonly DeliveryMark[],
  topic: string,
  reach: Reach,
  { holders, log }: { holders: OpenHolders; log: Logger },
): Promise<TidemarkError | null> {
  let alarm: TidemarkError | null = null;
  for (const mark of marks) {
    // It holds nothing, and nothing is relied upon.
    if (mark.merged === null && (mark.mark === null || mark.mark < reach.position!)) continue;
    try {
      const sink = await holders.sink(mark.destination);
      const held = (await sink.held(mark.unit))?.position ?? null;
      mark.doubt = doubtOf(mark, topic, reach, held);
      if (mark.doubt) alarm ??= contradiction(mark, held);
    } catch (error) {
      mark.doubt = 'destination does not answer';
      log.warn('a destination does not say what it holds', {
        destination: mark.destination,
        code: asTidemarkError(error).code,
      });
    }
  }
  return alarm;
}

/** @param held end of the last Window that the destination has of the Unit, by its own word */
export function doubtOf(
  { mark, merged, last, tenant }: DeliveryMark,
  topic: string,
  { position, ends }: Reach,
  held: string | null,
): StayReason | null {
  if (merged && (held === null || held < merged.position)) return 'destination fell back';
  if (merged?.position !== last?.position || (merged?.sequence ?? 0) !== (last?.sequence ?? 0))
    return 'ledger is contradicted';
  // One tenant's destination passes over others' records, and nobody counts those.
  if (mark === null || position === null || mark < position || tenant !== null) return null;
  const missing = recordsBetween(last?.ends ?? {}, ends, [topic, evictionsOf(topic)]);
  return missing > 0 ? 'ledger is contradicted' : null;
}

function contradiction({ destination, unit, merged, doubt }: DeliveryMark, held: string | null) {
  if (doubt === 'destination fell back')
    return new TidemarkError(
      'TM510',
      `${destination} holds ${unit} up to ${held ?? 'nothing'}; ${merged!.position} was acknowledged: nothing is evicted on its word`,
      { remedy: `tidemark destination replay ${destination} --from held --yes` },
    );
  return new TidemarkError(
    'TM510',
    `what the ledger says of ${unit} at ${destination} does not agree with itself: nothing is evicted on its word`,
    {
      remedy: `Its rows in tidemark.units and tidemark.deliveries were changed by hand, or restored. tidemark verify ${destination} tells what is missing there; tidemark destination resync ${destination} brings it.`,
    },
  );
}
