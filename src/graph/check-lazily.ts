/** {@link checkAgainstReference} for embedders: a tool for development, so it is loaded when it is called. */
import type { checkAgainstReference as check } from './check.ts';

export const checkAgainstReference: typeof check = async (...args) => (await import('./check.ts')).checkAgainstReference(...args);
