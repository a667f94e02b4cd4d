import { InputError } from '../boot/input-error.ts';

/** What the user is told when a guest does not fit. @param reason why no room could be made */
export function noMemory(bytes: number, reason?: string): InputError {
  const why = reason === undefined ? '' : ` (${reason})`;
  return new InputError(`the host has no memory left for a guest of ${bytes >> 20}M${why}; raise --host-memory`);
}

/** What the user is told when a guest cannot go on because pages that it always needs cannot be brought in. */
export function pagesMissing(reason: string): InputError {
  return new InputError(`the guest cannot go on: ${reason}`);
}
