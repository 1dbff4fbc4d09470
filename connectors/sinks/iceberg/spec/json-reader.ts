/** Reading JSON of table metadata, where every complaint names what was read. */
import { type Json, type JsonObject, parseJson } from '../catalog/exact-json.ts';
import { malformed } from '../failures.ts';

/** @throws TidemarkError TM405 */
export function readJson(text: string, what: string): Json {
  try {
    return parseJson(text);
  } catch (error) {
    throw malformed(`${what} is not JSON`, error);
  }
}

/** Reads the fields of one JSON object; every complaint names the object and the field. */
export class JsonReader {
  readonly fields: JsonObject;
  readonly what: string;

  constructor(json: Json | undefined, what: string) {
    if (json === null || typeof json !== 'object' || Array.isArray(json))
      throw malformed(`${what} is no object`);
    this.fields = json;
    this.what = what;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.fields, name) && this.fields[name] !== null;
  }

  optional<T>(name: string, read: (reader: this, name: string) => T): T | undefined {
    return this.has(name) ? read(this, name) : undefined;
  }

  text(name: string): string {
    const value = this.fields[name];
    return typeof value === 'string' ? value : this.#refuse(name, 'a string');
  }

  integer(name: string): number {
    const value = this.fields[name];
    return Number.isSafeInteger(value) ? (value as number) : this.#refuse(name, 'an integer');
  }

  long(name: string): bigint {
    const value = this.fields[name];
    if (typeof value === 'bigint') return value;
    return Number.isSafeInteger(value) ? BigInt(value as number) : this.#refuse(name, 'an integer');
  }

  boolean(name: string): boolean {
    const value = this.fields[name];
    return typeof value === 'boolean' ? value : this.#refuse(name, 'true or false');
  }

  list<T>(name: string, read: (each: Json, what: string) => T): T[] {
    const value = this.fields[name];
    if (!Array.isArray(value)) return this.#refuse(name, 'a list');
    return value.map((each, index) => read(each, `${this.what}, ${name}[${index}]`));
  }

  object(name: string): JsonReader {
    return new JsonReader(this.fields[name], `${this.what}, ${name}`);
  }

  /** An object whose values are all read alike; its keys may be any text. */
  map<T>(name: string, read: (reader: JsonReader, key: string) => T): Record<string, T> {
    const inner = this.object(name);
    return Object.fromEntries(Object.keys(inner.fields).map((key) => [key, read(inner, key)]));
  }

  #refuse(name: string, expected: string): never {
    throw malformed(`${this.what}: ${name} is not ${expected}`);
  }
}

export function readInteger(json: Json, what: string): number {
  if (!Number.isSafeInteger(json)) throw malformed(`${what} is not an integer`);
  return json as number;
}

export function readText(json: Json, what: string): string {
  if (typeof json !== 'string') throw malformed(`${what} is not a string`);
  return json;
}
