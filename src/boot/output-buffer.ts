import { InputError } from './input-error.ts';

/**
 * The largest kernel that is unpacked. Linux's kernel text mapping is 1 GiB at most and half of it is left to modules
 * (KERNEL_IMAGE_SIZE), so anything larger is a damaged or hostile file.
 */
export const MAXIMUM_UNPACKED_SIZE = 512 * 1024 * 1024;

/** Grows while a decoder writes, up to a limit. Decoders write to `bytes` directly after `reserve`. */
export class OutputBuffer {
  bytes: Uint8Array;
  length = 0;

  /** @param expected size to begin with, where the format tells one; it need not be right. */
  constructor(
    expected: number,
    readonly limit: number = MAXIMUM_UNPACKED_SIZE,
  ) {
    this.bytes = new Uint8Array(Math.min(Math.max(expected, 4096), limit));
  }

  /** Makes room for `count` bytes at `length`. Replaces `bytes` when it has to grow. */
  reserve(count: number): void {
    const needed = this.length + count;
    if (needed <= this.bytes.length) return;
    if (needed > this.limit) {
      throw new InputError(`the file unpacks to more than ${this.limit} bytes, which no kernel does; it is damaged`);
    }
    const larger = new Uint8Array(Math.min(Math.max(needed, this.bytes.length * 2), this.limit));
    larger.set(this.bytes.subarray(0, this.length));
    this.bytes = larger;
  }

  finish(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }
}
