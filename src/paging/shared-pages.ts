import type { FrameInvalidator } from '../cpu/translation.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { MachineSpace } from '../memory/machine-space.ts';
import { type HostAddress, type Mfn, PAGE_SIZE } from '../x86/brand.ts';

/**
 * Pages that a guest and its host store to: event words, rings, grants. The guest may have anything else in such a page,
 * code or, where nobody examines tables, a table that is shadowed. So whoever stores there tells of it afterwards.
 */
export class SharedPages {
  readonly space: MachineSpace;
  readonly memory: HostMemory;
  readonly #invalidator: Pick<FrameInvalidator, 'frameWritten'>;

  constructor(space: MachineSpace, invalidator: Pick<FrameInvalidator, 'frameWritten'>) {
    this.space = space;
    this.memory = space.pool.memory;
    this.#invalidator = invalidator;
  }

  /** First byte of a page, or −1 for a number that names none. Not to be kept: frames change. @throws PageAbsent */
  addressOf(mfn: Mfn): HostAddress {
    return this.space.writableAddressOf(mfn);
  }

  /** The host has stored bytes, all in one page. */
  written(address: number, length: number): void {
    const frame = this.space.pool.frameAt(address as HostAddress);
    this.#invalidator.frameWritten(frame, address % PAGE_SIZE, length);
  }

  storeByte(address: number, value: number): void {
    this.memory.u8[address] = value;
    this.written(address, 1);
  }
}
