/** What an endpoint's answer, or the lack of one, means for the pipeline: the one table. Bodies are never looked at. */
import { TidemarkError } from '../../../src/connector/failure.ts';

export interface Answer {
  status: number;
  retryAfterMs: number | null;
  /** Until the head of the answer was there. */
  durationMs: number;
}

export function accepted({ status }: Answer): boolean {
  return status >= 200 && status < 300;
}

/** The endpoint has something against what is in the request, so that a part of it may pass. */
export function refusesContent({ status }: Answer): boolean {
  return status === 400 || status === 413 || status === 422;
}

/** 409 is an answer to a request that is still being worked on (the same id, sent again after a timeout). */
const passing = new Set([408, 409, 421, 425, 429]);

const remedies: Record<number, string> = {
  401: 'Renew the credentials in headers, or give the receiver the key that secret has.',
  403: 'Renew the credentials in headers, or give the receiver the key that secret has.',
  404: 'Correct url: the endpoint knows no such path.',
  405: 'Correct url: the endpoint takes no POST there.',
  407: 'Put the credentials into the proxy’s URL (HTTPS_PROXY, HTTP_PROXY).',
  410: 'The endpoint is gone for good, it says: correct url, or remove this destination.',
  411: 'The endpoint, or a proxy before it, cannot take this kind of request: look at its log.',
  415: 'Choose another format or compression, or set content-type in headers.',
};

/** An answer that is neither acceptance nor about the content. */
export function failureOf({ status, retryAfterMs }: Answer): TidemarkError {
  const message = `the endpoint answered HTTP ${status}`;
  if (status >= 500 || passing.has(status)) {
    return new TidemarkError('TM401', message, retryAfterMs === null ? {} : { retryAfterMs });
  }
  if (status >= 300 && status < 400) {
    return new TidemarkError('TM402', `${message}: a redirect that is not followed`, {
      remedy:
        'Set url to where the events belong. Only a redirect within one host is followed, so that signed events and credentials go nowhere else.',
    });
  }
  return new TidemarkError('TM402', message, {
    remedy:
      remedies[status] ?? 'Look at the endpoint’s log; `tidemark check` and a test delivery try it again.',
  });
}

/** Hours of silence would hide that the endpoint is back: whatever it asks for, it is tried again after this. */
const longestWaitMs = 3_600_000;

/** Seconds or an HTTP date; null for anything else, also for a moment that is over. */
export function retryAfterOf(value: string | string[] | undefined, now: number): number | null {
  if (typeof value !== 'string') return null;
  const text = value.trim();
  const wait = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : httpDate(text) - now;
  return wait > 0 ? Math.min(wait, longestWaitMs) : null;
}

/** RFC 9110, 5.6.7. Its oldest form names no zone and is in UTC like the others. */
function httpDate(text: string): number {
  return Date.parse(/GMT$/.test(text) ? text : `${text} GMT`);
}

/** Failures on our side of an answer. The HTTP library's own messages may quote a header: only its codes are used. */
export function networkFailure(error: unknown): TidemarkError {
  const chain = causesOf(error);
  const ours = chain.find((each) => each instanceof TidemarkError);
  if (ours) return ours as TidemarkError;
  const codes = chain
    .map((each) => (each as { code?: unknown }).code)
    .filter((code) => typeof code === 'string');
  const code = codes.find((each) => !each.startsWith('UND_ERR_')) ?? codes[0] ?? 'unknown';
  const tls = codes.find((each) =>
    /CERT|SELF_SIGNED|UNABLE_TO_|^ERR_(?:TLS|SSL|OSSL)|HOSTNAME|^EPROTO$/.test(each),
  );
  if (tls !== undefined) {
    return new TidemarkError('TM402', `TLS with the endpoint failed: ${tls}`, {
      remedy:
        'Set tls.ca to the authority of the endpoint’s certificate, tls.cert and tls.key if it asks for one, or correct url.',
    });
  }
  return new TidemarkError('TM401', `the endpoint does not answer: ${code}`);
}

/** The error, what caused it, and the single failures of a connection that was tried at several addresses. */
function causesOf(error: unknown): Error[] {
  const found: Error[] = [];
  const open: unknown[] = [error];
  while (open.length > 0 && found.length < 20) {
    const each = open.shift();
    if (!(each instanceof Error) || found.includes(each)) continue;
    found.push(each);
    open.push(each.cause, ...((each as { errors?: unknown[] }).errors ?? []));
  }
  return found;
}

/** The connection broke before an answer: typically one that the endpoint had closed while it was idle. */
export function connectionLost(error: unknown): boolean {
  return causesOf(error).some((each) =>
    ['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'].includes(String((each as { code?: unknown }).code)),
  );
}
