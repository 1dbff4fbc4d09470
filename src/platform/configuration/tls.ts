/** tls.* keys into options for node:tls. */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { checkServerIdentity, createSecureContext } from 'node:tls';
import type { ResolvedTls } from '../resolved-config.ts';
import { describeFileFailure } from './file-failure.ts';

export type TlsMode = 'disable' | 'require' | 'verify-ca' | 'verify-full';

/** Paths are absolute. */
export interface TlsSettings {
  mode: TlsMode;
  ca: string | null;
  cert: string | null;
  key: string | null;
  passphrase: string | null;
  serverName: string | null;
}

/**
 * Reads the files and tries them out. `report(setting, text)` is told what is wrong (`mode`, `ca`, `cert`, `key`,
 * `key.passphrase`, `server.name`); the result is false then. Never repeats a file's content.
 */
export async function resolveTls(
  settings: TlsSettings,
  report: (setting: string, text: string) => void,
): Promise<ResolvedTls> {
  const { mode, passphrase, serverName } = settings;
  if (mode === 'disable') {
    const useless = { ca: settings.ca, cert: settings.cert, key: settings.key, 'key.passphrase': passphrase };
    for (const [setting, value] of Object.entries({ ...useless, 'server.name': serverName })) {
      if (value !== null) report(setting, 'is set, but tls.mode is disable, so nothing would use it');
    }
    return false;
  }
  if ((settings.cert === null) !== (settings.key === null)) {
    report(settings.cert === null ? 'cert' : 'key', 'is missing: tls.cert and tls.key belong together');
    return false;
  }
  if (passphrase !== null && settings.key === null) {
    report('key.passphrase', 'is set without tls.key');
    return false;
  }
  const ca = await readPem(settings.ca, 'CERTIFICATE', (text) => report('ca', text));
  const cert = await readPem(settings.cert, 'CERTIFICATE', (text) => report('cert', text));
  const key = await readPem(settings.key, 'PRIVATE KEY', (text) => report('key', text));
  if (ca === false || cert === false || key === false) return false;

  const material = {
    ...(ca === null ? {} : { ca }),
    ...(cert === null ? {} : { cert }),
    ...(key === null ? {} : { key }),
    ...(passphrase === null ? {} : { passphrase }),
  };
  try {
    createSecureContext(material);
  } catch {
    report(
      key === null ? 'ca' : 'key',
      key === null ? 'is not usable' : 'does not fit tls.cert, or tls.key.passphrase is wrong',
    );
    return false;
  }
  // As libpq: `require` with authorities to check against does check against them.
  const checksChain = mode !== 'require' || ca !== null;
  const checksName = mode === 'verify-full';
  return {
    ...material,
    rejectUnauthorized: checksChain,
    // pg sets servername to the host whatever it is given, so the expected name has to go into the check itself.
    ...(serverName === null ? {} : { servername: serverName }),
    ...(checksName && serverName !== null
      ? { checkServerIdentity: (_host, certificate) => checkServerIdentity(serverName, certificate) }
      : {}),
    ...(checksName ? {} : { checkServerIdentity: () => undefined }),
  };
}

/** The file's text, null for no path, false after reporting. */
async function readPem(
  path: string | null,
  label: string,
  report: (text: string) => void,
): Promise<string | null | false> {
  if (path === null) return null;
  try {
    const text = await readFile(path, 'utf8');
    const blocks =
      text.match(new RegExp(`-----BEGIN ([A-Z0-9 ]*${label})-----[^]*?-----END \\1-----`, 'g')) ?? [];
    if (blocks.length === 0) report(`the file has no PEM block "${label}"`);
    // Node passes over a certificate that it cannot read, and only the handshake would fail.
    else if (label === 'CERTIFICATE' && !blocks.every(isCertificate))
      report('the file has a broken certificate');
    else return text;
  } catch (error) {
    report(`the file cannot be read: ${describeFileFailure(error)}`);
  }
  return false;
}

function isCertificate(block: string): boolean {
  try {
    new X509Certificate(block);
    return true;
  } catch {
    return false;
  }
}
