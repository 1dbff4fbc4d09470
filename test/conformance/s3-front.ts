/** The way to an object store, which asks to be left alone, or has no room, when it is told to. */
import { type FrontAnswer, startHttpFront } from './http-front.ts';

export interface S3Front {
  endpoint: string;
  whileSlow(work: () => Promise<void>): Promise<void>;
  whileFull(work: () => Promise<void>): Promise<void>;
  stop(): void;
}

function s3Error(status: number, code: string, message: string): FrontAnswer {
  const body = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  return { status, headers: { 'content-type': 'application/xml' }, body };
}

/** As S3 answers too many requests, and as MinIO does when its drives are full. */
const slowDown = s3Error(503, 'SlowDown', 'Please reduce your request rate.');
const storageFull = s3Error(
  507,
  'XMinioStorageFull',
  'Storage backend has reached its minimum free drive threshold.',
);

export async function startS3Front(endpoint: string): Promise<S3Front> {
  const front = await startHttpFront(endpoint);
  return {
    endpoint: front.endpoint,
    whileSlow: (work) => front.whileAnswering(slowDown, work),
    whileFull: (work) => front.whileAnswering(storageFull, work),
    stop: () => front.stop(),
  };
}
