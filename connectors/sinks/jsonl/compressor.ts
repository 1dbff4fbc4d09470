import type { Transform } from 'node:stream';
import { constants, createGunzip, createGzip, createZstdCompress, createZstdDecompress } from 'node:zlib';
import type { Compression } from './options.ts';

export const extensions = { zstd: 'jsonl.zst', gzip: 'jsonl.gz' } as const;

export function compressor(compression: Compression): Transform {
  // With a checksum: gzip has one, and zstd's command line writes one.
  return compression === 'zstd'
    ? createZstdCompress({ chunkSize, params: { [constants.ZSTD_c_checksumFlag]: 1 } })
    : createGzip({ chunkSize });
}

export function decompressor(compression: Compression): Transform {
  return compression === 'zstd' ? createZstdDecompress({ chunkSize }) : createGunzip({ chunkSize });
}

const chunkSize = 256 * 1024;
