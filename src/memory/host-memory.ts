import type { HostAddress } from '../x86/brand.ts';
import { copyWords } from './words.ts';

/**
 * The one WebAssembly memory of a host and its views.
 *
 *   0                    scratch that no pointer may name (address 0 means "none")
 *   64 KiB …             control structures: vCPU state, TLBs, decoded records, hashes (bump-allocated, never freed)
 *   … end                frames of the pool, 4 KiB each (frame-pool.ts)
 *
 * So control structures lie below 2 GiB, and their addresses are positive in 32-bit arithmetic; those of frames need not
 * be, and are turned into indexes by an unsigned shift.
 *
 * The memory has its final size from the start, so views never detach; the operating system commits pages when they
 * are first touched.
 */
export class HostMemory {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly f64: Float64Array;
  readonly view: DataView;
  #next = 0x1_0000;
  #end: number;

  /** @param bytes total size, at most 4 GiB − 64 KiB, rounded up to 64 KiB. */
  constructor(bytes: number) {
    const pages = Math.ceil(bytes / 0x1_0000);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const buffer = this.memory.buffer;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.view = new DataView(buffer);
    this.#end = this.u8.length;
  }

  get size(): number {
    return this.u8.length;
  }

  /** Size in pages of WebAssembly, 64 KiB each. */
  get wasmPages(): number {
    return this.size / 0x1_0000;
  }

  /** Copies a few bytes to elsewhere, which is quickest for whole words. */
  copyFew(target: number, source: number, bytes: number): void {
    if (((target | source | bytes) & 3) === 0) copyWords(this.u32, target, source, bytes);
    else this.u8.copyWithin(target, source, source + bytes);
  }

  /** Reserves zeroed bytes for the life of the host. `alignment` is a power of two. */
  reserve(bytes: number, alignment = 64): HostAddress {
    const start = Math.ceil(this.#next / alignment) * alignment;
    if (start + bytes > this.#end) throw this.#tooSmall();
    this.#next = start + bytes;
    return start as HostAddress;
  }

  /** As `reserve`, but of the highest addresses that are left. */
  reserveHigh(bytes: number, alignment = 64): HostAddress {
    const start = Math.floor((this.#end - bytes) / alignment) * alignment;
    if (start < this.#next) throw this.#tooSmall();
    this.#end = start;
    return start as HostAddress;
  }

  #tooSmall(): RangeError {
    return new RangeError(`host memory of ${this.size} bytes is too small`);
  }

  /** Bytes not reserved yet. */
  get unreserved(): number {
    return this.#end - this.#next;
  }
}
