/** Ed25519 keys (RFC 8032) of reports: made with OpenSSL, kept in a file. */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { TidemarkError } from '../../platform/errors.ts';

const makeKey = 'openssl genpkey -algorithm ed25519 -out evidence.key';

/** @param pem of retain.evidence.key. @throws TidemarkError TM101 */
export function signingKey(pem: string | null): KeyObject {
  if (pem === null)
    throw new TidemarkError('TM101', 'retain.evidence.key is not set: nothing can be signed', {
      remedy: `${makeKey} makes a key; refer to its file in tidemark.yaml.`,
    });
  const key = parsed(() => createPrivateKey(pem));
  if (key?.asymmetricKeyType === 'ed25519') return key;
  throw new TidemarkError('TM101', 'retain.evidence.key is no Ed25519 private key in PEM', {
    remedy: `${makeKey} makes one.`,
  });
}

/** @param text PEM, or the base64 of its DER, or a private key in PEM. @throws TidemarkError TM101 */
export function trustedKey(text: string): KeyObject {
  const key = text.includes('-----BEGIN')
    ? parsed(() => createPublicKey(text))
    : parsed(() => createPublicKey({ key: Buffer.from(text.trim(), 'base64'), format: 'der', type: 'spki' }));
  if (key?.asymmetricKeyType === 'ed25519') return key;
  throw new TidemarkError('TM101', '--public-key is no Ed25519 public key', {
    remedy: 'openssl pkey -in evidence.key -pubout -out evidence.pub writes it.',
  });
}

function parsed(read: () => KeyObject): KeyObject | null {
  try {
    return read();
  } catch {
    return null;
  }
}

/** SPKI, DER, base64. */
export function publicText(key: KeyObject): string {
  const own = key.type === 'private' ? createPublicKey(key) : key;
  return own.export({ format: 'der', type: 'spki' }).toString('base64');
}

/** The first 16 digits of SHA-256 over SPKI in DER. */
export function keyId(key: KeyObject): string {
  return createHash('sha256')
    .update(Buffer.from(publicText(key), 'base64'))
    .digest('hex')
    .slice(0, 16);
}

export function signature(bytes: Buffer, key: KeyObject): string {
  return sign(null, bytes, key).toString('base64');
}

export function isSigned(bytes: Buffer, text: string, key: KeyObject): boolean {
  return verify(null, bytes, key, Buffer.from(text, 'base64'));
}
