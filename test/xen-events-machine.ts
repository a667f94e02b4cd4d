import { FramePool } from '../src/memory/frame-pool.ts';
import { HostMemory } from '../src/memory/host-memory.ts';
import { MachineSpace } from '../src/memory/machine-space.ts';
import type { Mfn } from '../src/x86/brand.ts';

/** A small machine whose frame numbers are permuted, so that a forgotten translation shows. */
export class TestMachine {
  readonly memory = new HostMemory(4 << 20);
  readonly pool = new FramePool(this.memory, 256);
  readonly space = new MachineSpace(this.pool, 0x2000);
  #next = 0;

  /** Attaches a zeroed page and gives its number. */
  page(): Mfn {
    const mfn = (0x1000 + ((this.#next++ * 37) & 0xff)) as Mfn;
    this.space.attach(mfn, this.pool.allocate());
    return mfn;
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
    this.memory.u8[this.space.addressOf(mfn) + offset] = value;
  }

  setU16(mfn: Mfn, offset: number, value: number): void {
    this.memory.view.setUint16(this.space.addressOf(mfn) + offset, value, true);
  }

  setU32(mfn: Mfn, offset: number, value: number): void {
    this.memory.view.setUint32(this.space.addressOf(mfn) + offset, value, true);
  }

  setBytes(mfn: Mfn, offset: number, bytes: Uint8Array): void {
    this.memory.u8.set(bytes, this.space.addressOf(mfn) + offset);
  }
}
