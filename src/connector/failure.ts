/** The errors a connector throws, and their codes: the manual is platform/errors.ts. */
export { asTidemarkError, describeCause, TidemarkError } from '../platform/errors.ts';
