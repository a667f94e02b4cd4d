import type { Archive, Archived } from '../../archive/archive.ts';
import type { LocalApic } from '../../devices/pc/local-apic.ts';
import { type AreaOwner, GuestArea } from './guest-area.ts';

const WORD_BYTES = 4;

/**
 * The end of an interrupt without a write to the APIC: the host sets a bit in the guest's memory when it delivers one
 * whose end matters to nobody else; the guest clears the bit, and the host finds it cleared later.
 */
export class EndOfInterruptArea implements Archived {
  readonly area: GuestArea;
  /** The bit was set for the interrupt in service. */
  #isSet = false;

  constructor(owner: AreaOwner) {
    this.area = new GuestArea(owner, WORD_BYTES, WORD_BYTES);
  }

  archive(archive: Archive): void {
    archive.part('area', this.area);
    this.#isSet = archive.value('isSet', this.#isSet);
  }

  forget(): void {
    this.area.forget();
    this.#isSet = false;
  }

  /** Carries out what the guest has said, and takes the bit back when the APIC must hear of the end itself. */
  refresh(apic: LocalApic): void {
    if (!this.#isSet) return;
    const { address } = this.area;
    const stillSet = address >= 0 && ((this.area.memory.u32[address >>> 2] as number) & 1) !== 0;
    if (!stillSet) {
      this.#isSet = false;
      apic.endOfInterrupt();
    } else if (apic.hasRequests) {
      this.#isSet = false;
      this.#store(0);
    }
  }

  /** An interrupt was taken into service. */
  acknowledged(apic: LocalApic, vector: number): void {
    this.#isSet = this.area.address >= 0 && apic.isEdgeTriggered(vector) && !apic.hasRequests;
    if (this.area.isNamed) this.#store(this.#isSet ? 1 : 0);
  }

  #store(bit: 0 | 1): void {
    const { address } = this.area;
    if (address < 0) return;
    const { u32 } = this.area.memory;
    const word = u32[address >>> 2] as number;
    u32[address >>> 2] = (word & ~1) | bit;
    this.area.written();
  }
}
