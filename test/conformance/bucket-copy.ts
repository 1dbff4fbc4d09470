/** What a bucket holds under a prefix, as files: readers of the tests read files. */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { GetObjectCommand, ListObjectsV2Command, type S3Client } from '@aws-sdk/client-s3';

/** A copy of what is under the prefix now. What was copied before is not again: only `_latest.sql` is written twice. */
export async function download(
  client: S3Client,
  bucket: string,
  prefix: string,
  folder: string,
): Promise<void> {
  const copied = new Set(await readdir(folder, { recursive: true }).catch(() => []));
  for (let token: string | undefined; ; ) {
    const page = await client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ContinuationToken: token }),
    );
    for (const { Key: key } of page.Contents ?? []) {
      const name = key!.slice(prefix.length);
      const target = join(folder, name);
      if (copied.has(name) && !name.endsWith('_latest.sql')) continue;
      await mkdir(dirname(target), { recursive: true });
      const { Body: body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
      await writeFile(target, await body!.transformToByteArray());
    }
    token = page.NextContinuationToken;
    if (token === undefined) return;
  }
}
