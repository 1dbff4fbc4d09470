/**
 * A row in the form in which it travels, for sinks that store values natively: its values go to receivers, one for each
 * column, without a text in between. What a row says this way and what it says in cells is the same.
 */

/**
 * Takes the values of one column. A sink gives a receiver the methods of the forms that it can use; a value that has
 * none of these forms comes as a cell. Bytes are valid until the method returns.
 */
export interface CellReceiver {
  nothing(): void;
  /** Postgres' own text, as in a Row. */
  text(cell: string): void;
  boolean?(value: boolean): void;
  /** Of smallint, integer, bigint and oid, as far as a number holds it exactly. */
  integer?(value: number): void;
  /** Of real, widened. */
  real?(value: number): void;
  double?(value: number): void;
  /** A numeric: value × 10^-scale. @param value an exact integer; scale zero or more */
  decimal?(value: number, scale: number): void;
  /** Days since 1970, of a finite date. */
  date?(days: number): void;
  /** Microseconds since midnight. */
  time?(micros: number): void;
  /** Of a finite timestamp with or without time zone: microseconds since 1970 (UTC), an exact integer. */
  timestamp?(micros: number): void;
  /** Postgres' own text in UTF-8: of text, json, enum, uuid, inet and whatever else travels as its text. */
  utf8?(bytes: Buffer, start: number, end: number): void;
  /** Of bytea. */
  binary?(bytes: Buffer, start: number, end: number): void;
}

export interface NativeRow {
  /**
   * Hands every column's value to its receiver, in the shape's order. A column whose receiver is null is passed over; those
   * behind the last receiver are not even looked at.
   */
  pass(to: readonly (CellReceiver | null)[]): void;
  /** All of the row, as it travels: equal bytes of one shape are equal rows. */
  readonly bytes: Buffer;
}
