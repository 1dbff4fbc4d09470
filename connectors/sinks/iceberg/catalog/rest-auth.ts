/** How requests to a REST catalog prove who sends them. */

/** A request as it goes out: what a signature covers. */
export interface OutgoingRequest {
  method: string;
  /** Without path. */
  origin: URL;
  /** Percent-encoded, without query. */
  path: string;
  query: Readonly<Record<string, string>>;
  headers: Readonly<Record<string, string>>;
  body: string;
}

export interface Authenticator {
  /** All headers to send. @throws TidemarkError where no credentials can be had */
  authenticate(request: OutgoingRequest): Promise<Record<string, string>>;
  /** The server calls the credentials of a request expired or wrong. True where others may do better. */
  renew(): Promise<boolean>;
}

export const anonymous: Authenticator = {
  authenticate: async ({ headers }) => ({ ...headers }),
  renew: async () => false,
};

export function bearerToken(token: string): Authenticator {
  return {
    authenticate: async ({ headers }) => ({ ...headers, authorization: `Bearer ${token}` }),
    renew: async () => false,
  };
}
