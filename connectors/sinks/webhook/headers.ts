/** The `headers` option: lines of `Name: value`, checked here so that no HTTP library's error quotes one. */

/** What the sink itself says of a request. */
const own =
  /^(?:webhook-.*|host|connection|keep-alive|transfer-encoding|content-length|content-encoding|expect|upgrade|te|trailer|proxy-.*)$/;

/** @returns lower-case names; never repeats a line, which may be a credential */
export function parseHeaders(text: string, refuse: (why: string) => never): Record<string, string> {
  const headers: Record<string, string> = {};
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  for (const [index, line] of lines.entries()) {
    const match = /^\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*(\S|\S[\t\x20-\x7e]*\S)\s*$/.exec(line);
    if (!match || !/^[\t\x20-\x7e]*$/.test(match[2]!)) {
      return refuse(`line ${index + 1} is not "Name: value" in ASCII`);
    }
    const name = match[1]!.toLowerCase();
    if (own.test(name)) return refuse(`${name} is set by Tidemark`);
    if (name in headers) return refuse(`${name} is there twice`);
    headers[name] = match[2]!;
  }
  return headers;
}
