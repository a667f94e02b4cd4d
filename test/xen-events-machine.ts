import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import { SharedPages } from '../src/paging/shared-pages.ts';
import { type Frame, type Mfn, PAGE_SIZE } from '../src/x86/brand.ts';

/** A small machine whose frame numbers are permuted, so that a forgotten translation shows. */
export class TestMachine {
  readonly memory = new HostMemory(4 << 20);
  readonly pool = new FramePool(this.memory, 256);
  readonly space = new MachineSpace(this.pool, 0x2000);
  readonly shared = new SharedPages(this.space, {
    frameWritten: (frame, offset, length) => this.#note(frame, offset, length),
  });
  /** The pages as whoever watches them knows them: with what the guest has stored, and the host has told of. */
  readonly #known = new Map<Frame, Uint8Array>();
  #next = 0;

  /** Attaches a zeroed page and gives its number. */
  page(): Mfn {
    const mfn = (0x1000 + ((this.#next++ * 37) & 0xff)) as Mfn;
    const frame = this.pool.allocate();
    this.space.attach(mfn, frame);
    this.#known.set(frame, new Uint8Array(PAGE_SIZE));
    return mfn;
  }

  #note(frame: Frame, offset: number, length: number): void {
    const start = this.pool.addressOf(frame) + offset;
    this.#known.get(frame)?.set(this.memory.u8.subarray(start, start + length), offset);
  }

  /** Bytes that the host has stored and not told of: frame and offset of each. */
  untold(): readonly (readonly [Frame, number])[] {
    return [...this.#known].flatMap(([frame, known]) => {
      const start = this.pool.addressOf(frame);
      const offsets = [...known.keys()].filter((offset) => known[offset] !== this.memory.u8[start + offset]);
      return offsets.map((offset) => [frame, offset] as const);
    });
  }

  u8(mfn: Mfn, offset: number): number {
    return this.memory.u8[this.space.addressOf(mfn) + offset]!;
  }

  u16(mfn: Mfn, offset: number): number {
    return this.memory.view.getUint16(this.space.addressOf(mfn) + offset, true);
  }

  u32(mfn: Mfn, offset: number): number {
    return this.memory.view.getUint32(this.space.addressOf(mfn) + offset, true);
  }

  bytes(mfn: Mfn, offset: number, length: number): Uint8Array {
    const start = this.space.addressOf(mfn) + offset;
    return this.memory.u8.slice(start, start + length);
  }

  setU8(mfn: Mfn, offset: number, value: number): void {
    this.setBytes(mfn, offset, Uint8Array.of(value));
  }

  setU16(mfn: Mfn, offset: number, value: number): void {
    this.setBytes(mfn, offset, Uint8Array.of(value, value >>> 8));
  }

  setU32(mfn: Mfn, offset: number, value: number): void {
    this.setBytes(mfn, offset, Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24));
  }

  setBytes(mfn: Mfn, offset: number, bytes: Uint8Array): void {
    this.memory.u8.set(bytes, this.space.addressOf(mfn) + offset);
    this.#note(this.space.frameOf(mfn), offset, bytes.length);
  }
}
