/** Room that nobody writes to: much less is allocated so, all of it outside of the engine's heap. */
const spare: Uint8Array<ArrayBuffer>[] = [];
const MOST_SPARE = 8;
/** Longer ones are needed seldom. */
const LONGEST_SPARE = 0x1_0000;

/** Up to so many bytes are quicker copied one by one than by the engine. */
const FEW = 32;

/** Growable bytes with the encodings of the WebAssembly binary format (core specification, 5.2). */
export class ByteWriter {
  #bytes = spare.pop() ?? new Uint8Array(4096);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  byte(value: number): void {
    if (this.#length === this.#bytes.length) this.#grow(1);
    this.#bytes[this.#length++] = value;
  }

  bytes(values: ArrayLike<number>): void {
    if (this.#length + values.length > this.#bytes.length) this.#grow(values.length);
    if (values.length > FEW) this.#bytes.set(values, this.#length);
    else
      for (let index = 0; index < values.length; index++) this.#bytes[this.#length + index] = values[index] as number;
    this.#length += values.length;
  }

  /** Replaces what was written at an offset. */
  overwrite(offset: number, values: ArrayLike<number>): void {
    this.#bytes.set(values, offset);
  }

  /** Appends what another writer has from one offset to another. */
  copy(from: ByteWriter, start: number, end: number): void {
    if (end - start > FEW) this.bytes(from.#bytes.subarray(start, end));
    else for (let index = start; index < end; index++) this.byte(from.#bytes[index] as number);
  }

  unsigned(value: number): void {
    let rest = value;
    while (rest > 0x7f) {
      this.byte((rest & 0x7f) | 0x80);
      rest = Math.floor(rest / 128);
    }
    this.byte(rest);
  }

  signed32(value: number): void {
    let rest = value | 0;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) {
        this.byte(low);
        return;
      }
      this.byte(low | 0x80);
    }
  }

  /** Of up to 64 bits; a number is to be exact. */
  signed(value: number | bigint): void {
    if (typeof value === 'bigint') this.#signedBig(value);
    else if (value === (value | 0)) this.signed32(value);
    else {
      // Of more than 32 bits, so that the last byte is not among the first four.
      const high = Math.floor(value / 0x1000_0000);
      const low = value - high * 0x1000_0000;
      for (let shift = 0; shift < 28; shift += 7) this.byte(((low >> shift) & 0x7f) | 0x80);
      this.signed32(high);
    }
  }

  #signedBig(value: bigint): void {
    for (let rest = value; ; rest >>= 7n) {
      const low = Number(rest & 0x7fn);
      if (rest >= -0x40n && rest < 0x40n) {
        this.byte(low);
        return;
      }
      this.byte(low | 0x80);
    }
  }

  string(text: string): void {
    this.unsigned(text.length);
    for (let index = 0; index < text.length; index++) this.byte(text.charCodeAt(index));
  }

  /** A view of what was written; valid until the next write. */
  result(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  /** What was written is no longer needed, nor the writer. */
  release(): void {
    if (spare.length < MOST_SPARE && this.#bytes.length <= LONGEST_SPARE) spare.push(this.#bytes);
    this.#bytes = new Uint8Array(0);
    this.#length = 0;
  }

  #grow(needed: number): void {
    const bytes = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + needed));
    bytes.set(this.#bytes);
    this.#bytes = bytes;
  }
}
