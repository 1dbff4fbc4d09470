/**
 * JSON whose whole numbers keep all 64 bits: snapshot ids are random and mostly lie beyond 2^53, where JSON.parse rounds
 * them to the id of another snapshot.
 */
export type Json = null | boolean | number | bigint | string | Json[] | JsonObject;

export interface JsonObject {
  [key: string]: Json;
}

/** Digits in a string lead here too; that costs time only. */
const mayBeLarge = /\d{16}/;

/** A whole number beyond 2^53 is a bigint, every other one a number. @throws SyntaxError */
export function parseJson(text: string): Json {
  if (!mayBeLarge.test(text)) return JSON.parse(text) as Json;
  return JSON.parse(text, (_key, value: unknown, context?: { source?: string }) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
      ? BigInt(context!.source!)
      : value,
  ) as Json;
}

/** Takes `undefined` for a key that is absent. */
export function printJson(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) =>
    typeof each === 'bigint' ? rawJson(each.toString()) : each,
  );
}

/** In Node since 22, in no type library yet. */
const rawJson = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Equal as 64-bit numbers, however each of them was read. */
export function sameLong(one: number | bigint, other: number | bigint): boolean {
  return BigInt(one) === BigInt(other);
}
