/** Why a file could not be read, in words, without its content. */
export function describeFileFailure(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  const words: Record<string, string> = {
    ENOENT: 'it does not exist',
    EACCES: 'permission denied',
    EISDIR: 'it is a folder',
    ENOTDIR: 'a part of its path is not a folder',
  };
  return typeof code === 'string' ? (words[code] ?? code) : 'unknown failure';
}
