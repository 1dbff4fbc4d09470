/** What the configuration makes of an instance file: its keys, and the defaults of the rest. */
import type { OptionValues, SinkKind } from '../../src/connector/sink.ts';

export function optionValues(kind: SinkKind, own: OptionValues): OptionValues {
  const defaults = Object.entries(kind.options).flatMap(([key, field]) =>
    field.default === undefined ? [] : [[key, field.default] as const],
  );
  return { ...Object.fromEntries(defaults), ...own };
}
