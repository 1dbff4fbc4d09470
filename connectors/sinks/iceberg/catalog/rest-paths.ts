/** Paths of the REST catalog specification. */
import type { Namespace, TableIdentifier } from './catalog.ts';

/** Between the levels of a namespace, percent-encoded; a server may name another one. */
export const unitSeparator = '%1F';

export class RestPaths {
  readonly #root: string;
  readonly #separator: string;

  /**
   * @param prefix as the server gave it: it may have several levels and hold percent-encodings
   * @param separator percent-encoded
   */
  constructor(prefix: string | null, separator: string = unitSeparator) {
    const trimmed = (prefix ?? '').replace(/^\/+|\/+$/g, '');
    this.#root = trimmed === '' ? '/v1' : `/v1/${pathSafe(trimmed)}`;
    this.#separator = separator;
  }

  namespaces(): string {
    return `${this.#root}/namespaces`;
  }

  namespace(namespace: Namespace): string {
    return `${this.namespaces()}/${this.#levels(namespace)}`;
  }

  tables(namespace: Namespace): string {
    return `${this.namespace(namespace)}/tables`;
  }

  table({ namespace, name }: TableIdentifier): string {
    return `${this.tables(namespace)}/${percentEncode(name)}`;
  }

  transactions(): string {
    return `${this.#root}/transactions/commit`;
  }

  /** As a query parameter's value, which is encoded once more when it is sent. */
  parent(namespace: Namespace): string {
    return namespace.join(decodeURIComponent(this.#separatorOf(namespace)));
  }

  #levels(namespace: Namespace): string {
    return namespace.map(percentEncode).join(this.#separatorOf(namespace));
  }

  /** Servers take the unit separator whatever they name, and no sensible name has it. */
  #separatorOf(namespace: Namespace): string {
    const text = decodeURIComponent(this.#separator);
    return namespace.some((level) => level.includes(text)) ? unitSeparator : this.#separator;
  }
}

/** Everything but RFC 3986's unreserved characters, so that a signature and the request agree. */
export function percentEncode(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

export function queryText(query: Readonly<Record<string, string>>): string {
  const parts = Object.entries(query).map(
    ([name, value]) => `${percentEncode(name)}=${percentEncode(value)}`,
  );
  return parts.length === 0 ? '' : `?${parts.join('&')}`;
}

function pathSafe(prefix: string): string {
  return prefix.replace(/[^A-Za-z0-9\-._~%/:@!$&'()*+,;=]/gu, (each) => percentEncode(each));
}
