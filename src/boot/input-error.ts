/**
 * Something the user gave cannot be used. The message is one line for a person: what was wrong, with the value, and
 * what to do. Whoever talks to the user prints the message alone; a stack trace is never part of it.
 */
export class InputError extends Error {
  override readonly name = 'InputError';
}
