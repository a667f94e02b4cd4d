/**
 * ACPI machine language, the little of it that a description of fixed devices needs (ACPI 6.4, chapter 20): names, numbers,
 * packages, buffers of resources, devices, methods that notify. Each function gives the bytes of one term.
 */
export type Aml = readonly number[];

const enum Op {
  zero = 0x00,
  one = 0x01,
  name = 0x08,
  byte = 0x0a,
  word = 0x0b,
  doubleWord = 0x0c,
  string = 0x0d,
  scope = 0x10,
  buffer = 0x11,
  package = 0x12,
  method = 0x14,
  extended = 0x5b,
  device = 0x82,
  notify = 0x86,
}

const ROOT = 0x5c;

function ascii(text: string): number[] {
  return Array.from(text, (character) => character.charCodeAt(0));
}

export function littleEndian(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, index) => Math.floor(value / 2 ** (index * 8)) & 0xff);
}

/** A name of up to four characters, filled up with underscores; a leading backslash names the root. */
function nameString(text: string): number[] {
  const isAbsolute = text.startsWith('\\');
  const segment = (isAbsolute ? text.slice(1) : text).padEnd(4, '_');
  return [...(isAbsolute ? [ROOT] : []), ...ascii(segment)];
}

/** A length that counts itself: one byte up to 63, else the low four bits and one byte more, or two. */
function withLength(content: Aml): number[] {
  if (content.length + 1 <= 0x3f) return [content.length + 1, ...content];
  const bytes = content.length + 2 <= 0xfff ? 2 : 3;
  const length = content.length + bytes;
  return [((bytes - 1) << 6) | (length & 0xf), ...littleEndian(length >> 4, bytes - 1), ...content];
}

/** @param value below 2^32 */
export function number(value: number): Aml {
  if (value === 0) return [Op.zero];
  if (value === 1) return [Op.one];
  if (value <= 0xff) return [Op.byte, value];
  return value <= 0xffff ? [Op.word, ...littleEndian(value, 2)] : [Op.doubleWord, ...littleEndian(value, 4)];
}

export function text(value: string): Aml {
  return [Op.string, ...ascii(value), 0];
}

/** A compressed identifier as in "PNP0501". */
export function identifier(value: string): Aml {
  const letters = ascii(value.slice(0, 3)).map((code) => code - 0x40);
  const [first = 0, second = 0, third = 0] = letters;
  const vendor = (first << 10) | (second << 5) | third;
  const product = Number.parseInt(value.slice(3), 16);
  return [Op.doubleWord, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

export function name(of: string, value: Aml): Aml {
  return [Op.name, ...nameString(of), ...value];
}

export function packageOf(...elements: Aml[]): Aml {
  return [Op.package, ...withLength([elements.length, ...elements.flat()])];
}

export function scope(of: string, ...terms: Aml[]): Aml {
  return [Op.scope, ...withLength([...nameString(of), ...terms.flat()])];
}

export function device(of: string, ...terms: Aml[]): Aml {
  return [Op.extended, Op.device, ...withLength([...nameString(of), ...terms.flat()])];
}

/** @param parameters 0 to 7 */
export function method(of: string, parameters: number, ...terms: Aml[]): Aml {
  return [Op.method, ...withLength([...nameString(of), parameters, ...terms.flat()])];
}

export function notify(object: string, value: number): Aml {
  return [Op.notify, ...nameString(object), ...number(value)];
}

// Resources (ACPI 6.4, 6.4.2 and 6.4.3)

export function resources(...descriptors: Aml[]): Aml {
  const END_TAG = [0x79, 0];
  const bytes = [...descriptors.flat(), ...END_TAG];
  return [Op.buffer, ...withLength([...number(bytes.length), ...bytes])];
}

/** Ports that are decoded with 16 bits. */
export function ports(first: number, count: number): Aml {
  return [0x47, 1, ...littleEndian(first, 2), ...littleEndian(first, 2), 1, count];
}

/** A memory range of fixed place that can be written. */
export function memory(first: number, bytes: number): Aml {
  return [0x86, 9, 0, 1, ...littleEndian(first, 4), ...littleEndian(bytes, 4)];
}

/** An interrupt that no other device has, active high. */
export function interrupt(line: number, edgeTriggered: boolean): Aml {
  const CONSUMER = 1;
  const EDGE = 2;
  return [0x89, 6, 0, CONSUMER | (edgeTriggered ? EDGE : 0), 1, ...littleEndian(line, 4)];
}
