import { InputError } from './input-error.ts';

/**
 * Little-endian reads from bytes that nobody vouches for. Every offset is checked; reading outside is an InputError
 * that names the thing being read. Offsets may be any number, NaN and negative ones included.
 */
export class ByteReader {
  readonly #view: DataView;

  /** @param subject what the bytes are, as the message shall call them: "the kernel's ELF header". */
  constructor(
    readonly bytes: Uint8Array,
    readonly subject: string,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.length;
  }

  has(offset: number, length: number): boolean {
    return offset >= 0 && length >= 0 && offset + length <= this.bytes.length;
  }

  u8(offset: number): number {
    this.#check(offset, 1);
    return this.#view.getUint8(offset);
  }

  u16(offset: number): number {
    this.#check(offset, 2);
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number): number {
    this.#check(offset, 4);
    return this.#view.getUint32(offset, true);
  }

  u64(offset: number): bigint {
    this.#check(offset, 8);
    return this.#view.getBigUint64(offset, true);
  }

  /** The bytes themselves, not a copy. */
  slice(offset: number, length: number): Uint8Array {
    this.#check(offset, length);
    return this.bytes.subarray(offset, offset + length);
  }

  /** ASCII up to a NUL or `limit` bytes or the end, whichever comes first. */
  text(offset: number, limit: number): string {
    this.#check(offset, 0);
    const end = Math.min(offset + limit, this.bytes.length);
    let text = '';
    for (let at = offset; at < end; at++) {
      const byte = this.#view.getUint8(at);
      if (byte === 0) break;
      text += String.fromCharCode(byte);
    }
    return text;
  }

  #check(offset: number, length: number): void {
    if (!this.has(offset, length)) {
      throw new InputError(
        `${this.subject} is cut short: ${length} bytes at offset ${offset} lie outside its ${this.bytes.length} bytes; give a whole file`,
      );
    }
  }
}
