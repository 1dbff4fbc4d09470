/** Session settings under which a value's text is the one of a Cell (connector/sink.ts), for every connection that reads text. */
export const valueSettings = {
  datestyle: 'ISO,YMD',
  intervalstyle: 'postgres',
  timezone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  // money has no currency of its own: it prints in that of the session.
  lc_monetary: 'C',
  // The names of objects (regclass) print qualified.
  search_path: '',
} as const;

/** For a session that is open already. */
export const valueStatements = Object.entries(valueSettings).map(
  ([name, value]) => `set ${name} = '${value}'`,
);

/** As the startup packet takes them (PGOPTIONS): they hold from the first value on. */
export const valueOptions = Object.entries(valueSettings)
  .map(([name, value]) => `-c ${name}=${value}`)
  .join(' ');
