/**
 * Which addresses may be spoken to. The check is made on the address that the connection really goes to, at the moment
 * it is opened: a name that was looked up before may point elsewhere by then.
 */
import { lookup as systemLookup } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';
import { TidemarkError } from '../../../src/connector/failure.ts';

/** Where no collector of events can be, and cloud machines hand out their credentials. */
const never = new Set(['linkLocal', 'multicast', 'broadcast', 'unspecified']);
/** What the ranges above miss: the metadata service of one cloud lies in its private IPv6 range. */
const metadata = new Set(['fd00:ec2::254']);

export function addressAllowed(address: string, allowPrivate: boolean): boolean {
  if (!ipaddr.isValid(address)) return false;
  // IPv4 written as IPv6 counts as what it is.
  const parsed = ipaddr.process(address);
  const range = parsed.range();
  if (never.has(range) || metadata.has(parsed.toString())) return false;
  return allowPrivate || range === 'unicast';
}

/** @throws TidemarkError TM101 */
export function requireAllowed(address: string, allowPrivate: boolean): void {
  if (!addressAllowed(address, allowPrivate)) throw forbidden(allowPrivate);
}

function forbidden(allowPrivate: boolean): TidemarkError {
  return new TidemarkError('TM101', 'the host of url has an address that events must not be sent to', {
    remedy: allowPrivate
      ? 'Link-local, multicast and unspecified addresses are never spoken to; correct url.'
      : 'Point url at a public address, or set allow.private.addresses to true.',
  });
}

/** Resolves as the system does, and fails unless all addresses are allowed: the connection may try any of them. */
export function guardedLookup(allowPrivate: boolean): LookupFunction {
  return (hostname, options, callback) => {
    systemLookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, '', 0);
      if (!addresses.every(({ address }) => addressAllowed(address, allowPrivate))) {
        return callback(forbidden(allowPrivate), '', 0);
      }
      if (options.all) return callback(null, addresses);
      callback(null, addresses[0]!.address, addresses[0]!.family);
    });
  };
}

/** The host of a URL where it is an address already, for which nothing is looked up; else null. */
export function literalAddress(url: URL): string | null {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return isIP(host) === 0 ? null : host;
}
