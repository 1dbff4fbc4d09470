/** Names that readers take for the same one have the same fold: some compare in lower case and some in upper case. */
export function foldCase(name: string): string {
  // Beyond a lower case alone: `ſ` and `s` meet in `S`.
  return name.toUpperCase().toLowerCase();
}
