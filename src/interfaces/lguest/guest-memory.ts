import type { HostMemory } from '../../memory/host-memory.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import { type Mfn, PAGE_SIZE } from '../../x86/brand.ts';

/** What a guest's RAM holds, by guest-physical address. */
export class GuestMemory {
  readonly #space: MachineSpace;
  readonly #host: HostMemory;
  readonly #bytes: number;

  /** @param ramPages of the space, from the first; what is behind them is its bus's */
  constructor(space: MachineSpace, host: HostMemory, ramPages: number) {
    this.#space = space;
    this.#host = host;
    this.#bytes = ramPages * PAGE_SIZE;
  }

  /** Undefined where there is no RAM. @throws PageAbsent */
  readWord(physical: number): number | undefined {
    const bytes = this.#read(physical, 4);
    return bytes.length < 4 ? undefined : new DataView(bytes.buffer).getUint32(0, true);
  }

  /** Up to a NUL, the end of RAM or `longest` bytes. @throws PageAbsent */
  readString(physical: number, longest: number): Uint8Array {
    const bytes = this.#read(physical, longest);
    const end = bytes.indexOf(0);
    return end < 0 ? bytes : bytes.subarray(0, end);
  }

  /** As many as there are, up to `length`. */
  #read(physical: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.#bytes - physical)));
    for (let done = 0; done < bytes.length; ) {
      const at = physical + done;
      const offset = at % PAGE_SIZE;
      const piece = bytes.subarray(done, done + PAGE_SIZE - offset);
      const address = this.#space.addressOf(Math.floor(at / PAGE_SIZE) as Mfn) + offset;
      piece.set(this.#host.u8.subarray(address, address + piece.length));
      done += piece.length;
    }
    return bytes;
  }
}
