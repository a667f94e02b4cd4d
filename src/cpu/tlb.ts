import type { HostMemory } from '../memory/host-memory.ts';
import { type GuestVirtual, type HostAddress, joinSigned } from '../x86/brand.ts';
import { Access } from './exits.ts';
import { TlbEntry } from './tlb-layout.ts';

const WORD = 2;

/** One software TLB in host memory; tlb-layout.ts draws an entry. */
export class Tlb {
  readonly address: HostAddress;
  readonly #u32: Uint32Array;
  readonly #entries: number;
  /** Entries that may be valid, so that a flush touches only these. */
  readonly #filled: Int32Array;
  readonly #isFilled: Uint8Array;
  #filledCount = 0;
  /** Entries filled since start. */
  fills = 0;
  flushes = 0;
  pageFlushes = 0;

  /** @param entries a power of two, at least 1 */
  constructor(memory: HostMemory, entries: number) {
    this.address = memory.reserve(entries * TlbEntry.size, 64);
    this.#u32 = memory.u32;
    this.#entries = entries;
    this.#filled = new Int32Array(entries);
    this.#isFilled = new Uint8Array(entries);
    for (let index = 0; index < entries; index++) this.#clear(index);
  }

  #word(index: number): number {
    return (this.address + index * TlbEntry.size) >> WORD;
  }

  #invalidate(word: number, index: number): void {
    // A page whose number belongs to another entry; bit 62 keeps it off the canonical ones with a single entry.
    this.#u32[word] = (index ^ 1) << 12;
    this.#u32[word + 1] = 0x4000_0000;
  }

  #clear(index: number): void {
    const word = this.#word(index);
    this.#invalidate(word + TlbEntry.readTag / 4, index);
    this.#invalidate(word + TlbEntry.writeTag / 4, index);
    this.#invalidate(word + TlbEntry.executeTag / 4, index);
    this.#u32[word + TlbEntry.frame / 4] = 0;
  }

  /** Index of the entry that an address (low word) belongs to. */
  #index(low: number): number {
    return (low >>> 12) & (this.#entries - 1);
  }

  /** Host address of a byte whose page is cached for an access, or −1. */
  find(low: number, high: number, access: Access): HostAddress {
    const word = this.#word(this.#index(low)) + (access === Access.read ? 0 : access === Access.write ? 2 : 4);
    if (this.#u32[word] !== (low & ~0xfff) >>> 0 || this.#u32[word + 1] !== high) return -1 as HostAddress;
    const frame = this.#u32[this.#word(this.#index(low)) + 6] as number;
    return (frame + (low & 0xfff)) as HostAddress;
  }

  /** Caches a page given by the halves of its linear address. */
  fill(low: number, high: number, frame: HostAddress, writable: boolean, executable: boolean): void {
    const index = this.#index(low);
    const word = this.#word(index);
    const u32 = this.#u32;
    const page = low & ~0xfff;
    u32[word] = page;
    u32[word + 1] = high;
    if (writable) {
      u32[word + 2] = page;
      u32[word + 3] = high;
    } else {
      this.#invalidate(word + 2, index);
    }
    if (executable) {
      u32[word + 4] = page;
      u32[word + 5] = high;
    } else {
      this.#invalidate(word + 4, index);
    }
    u32[word + 6] = frame;
    if (this.#isFilled[index] === 0) {
      this.#isFilled[index] = 1;
      this.#filled[this.#filledCount++] = index;
    }
    this.fills++;
  }

  flush(): void {
    for (let position = 0; position < this.#filledCount; position++) {
      const index = this.#filled[position] as number;
      this.#clear(index);
      this.#isFilled[index] = 0;
    }
    this.#filledCount = 0;
    this.flushes++;
  }

  invalidatePage(low: number): void {
    this.#clear(this.#index(low));
    this.pageFlushes++;
  }

  /** Each cached translation that leads to a frame: its page's address, and whether a store goes through it. */
  visitFrame(frame: HostAddress, visit: (address: GuestVirtual, writable: boolean) => void): void {
    const u32 = this.#u32;
    for (let position = 0; position < this.#filledCount; position++) {
      const word = this.#word(this.#filled[position] as number);
      if (u32[word + 6] !== frame) continue;
      const low = u32[word] as number;
      const high = u32[word + 1] as number;
      visit(joinSigned(low, high) as GuestVirtual, u32[word + 2] === low && u32[word + 3] === high);
    }
  }

  /** Drops every entry of a frame, or only its permission to write. */
  invalidateFrame(frame: HostAddress, writableOnly: boolean): void {
    for (let position = 0; position < this.#filledCount; position++) {
      const index = this.#filled[position] as number;
      const word = this.#word(index);
      if (this.#u32[word + 6] !== frame) continue;
      if (writableOnly) this.#invalidate(word + 2, index);
      else this.#clear(index);
    }
  }
}
