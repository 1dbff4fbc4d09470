/** Configuration keys of connectors: declared by each sink, read by the configuration, documented from here. */

/** One configuration key. The reference page is generated from these. */
export interface OptionField {
  type: 'string' | 'integer' | 'boolean' | 'duration' | 'bytes' | 'list' | 'secret';
  description: string;
  /** Absent: the key is required. `null`: optional without a default. */
  default?: string | number | boolean | string[] | null;
  /** Allowed values, where they are few. */
  oneOf?: readonly string[];
}

/** Durations in milliseconds, bytes in bytes, lists as arrays of strings, absent optional keys as null. */
export type OptionValues = Record<string, string | number | boolean | string[] | null>;

/** What the configuration needs to know of a connector. */
export interface ConnectorOptions {
  /** The value of `connector.class`. */
  name: string;
  options: Record<string, OptionField>;
  /** What `pause.after` is where an instance file does not say; absent: never. */
  pauseAfterMs?: number;
}
