/** Data without behaviour: all that an archive holds, and what can be written to a file. */
export type Plain = undefined | null | boolean | number | string | Uint8Array | readonly Plain[] | PlainRecord;

export interface PlainRecord {
  readonly [name: string]: Plain;
}

/** Checks that a value is plain data, and copies it: what it was taken from may change. @throws TypeError */
export function plainCopy(value: unknown, what: string): Plain {
  if (value === undefined || value === null || typeof value === 'boolean') return value;
  if (typeof value === 'number' || typeof value === 'string') return value;
  if (value instanceof Uint8Array) return value.slice();
  if (Array.isArray(value)) return value.map((item, index) => plainCopy(item, `${what}[${index}]`));
  if (typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype) {
    return Object.fromEntries(
      Object.entries(value).map(([name, field]) => [name, plainCopy(field, `${what}.${name}`)]),
    );
  }
  throw new TypeError(`${what} is no plain data`);
}

export function isRecord(value: Plain): value is PlainRecord {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

/** A word for what a value is, so that values of other kinds are not taken for one. */
export function kindOf(value: Plain): string {
  if (value === null || value === undefined) return 'nothing';
  if (value instanceof Uint8Array) return 'bytes';
  return Array.isArray(value) ? 'list' : typeof value;
}
