/** The one place where the command takes the library from. */
export { createHost, openSnapshot } from '../index.ts';
