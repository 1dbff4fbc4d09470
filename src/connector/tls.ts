/** The `tls.*` keys of a connector mean what those of tidemark.yaml mean. */
export { resolveTls, type TlsMode } from '../platform/configuration/tls.ts';
export { defaultTlsMode } from '../platform/postgres-endpoint.ts';
export type { ResolvedTls } from '../platform/resolved-config.ts';
