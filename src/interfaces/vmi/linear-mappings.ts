import type { Archive, Archived } from '../../archive/archive.ts';
import { type GuestVirtual, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';

/** Mappings that a kernel can name: its direct one, two for tables in high memory, and one more. */
const SLOTS = 4;

interface Mapping {
  readonly start: number;
  readonly pages: number;
  readonly pfn: number;
}

/** Where a kernel has said that linear addresses of page tables lead, so that nothing need be walked to find them. */
export class LinearMappings implements Archived {
  #slots: (Mapping | undefined)[] = new Array<Mapping | undefined>(SLOTS).fill(undefined);

  archive(archive: Archive): void {
    this.#slots = archive.value('slots', this.#slots);
  }

  /** Any numbers; nothing happens for a slot that there is not. */
  set(slot: number, start: number, pages: number, pfn: number): void {
    if (slot < SLOTS) this.#slots[slot] = { start, pages, pfn };
  }

  /** Whether the kernel has told of its direct mapping. */
  get hasDirect(): boolean {
    return this.#slots[0] !== undefined;
  }

  /** Where the direct mapping has a page, −1 when it does not. */
  addressOf(page: Pfn): number {
    const direct = this.#slots[0];
    const index = direct ? page - direct.pfn : -1;
    return direct && index >= 0 && index < direct.pages ? direct.start + index * PAGE_SIZE : -1;
  }

  /** The page that an address leads to, −1 when no mapping has it; it need not exist. */
  pageOf(address: GuestVirtual): Pfn {
    for (const mapping of this.#slots) {
      if (!mapping) continue;
      const page = Math.floor((address - mapping.start) / PAGE_SIZE);
      if (page >= 0 && page < mapping.pages) return (mapping.pfn + page) as Pfn;
    }
    return -1 as Pfn;
  }
}
