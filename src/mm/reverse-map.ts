import type { Frame, HostVirtual } from '../x86/brand.ts';
import type { AddressSpace } from './address-space.ts';

/** One entry of a host page table that maps a page. */
export interface Mapping {
  readonly space: AddressSpace;
  readonly address: HostVirtual;
}

/**
 * Which entries map each page. Kept apart from the page's descriptor, whose private field belongs to the swap and the
 * page cache. Most pages have one mapping, so one is stored plain.
 */
export class ReverseMap {
  readonly #mappings: (Mapping | Mapping[] | undefined)[];

  constructor(frames: number) {
    this.#mappings = new Array<undefined>(frames).fill(undefined);
  }

  add(frame: Frame, space: AddressSpace, address: HostVirtual): void {
    const held = this.#mappings[frame];
    const mapping = { space, address };
    if (held === undefined) this.#mappings[frame] = mapping;
    else if (Array.isArray(held)) held.push(mapping);
    else this.#mappings[frame] = [held, mapping];
  }

  remove(frame: Frame, space: AddressSpace, address: HostVirtual): void {
    const rest = this.of(frame).filter((mapping) => mapping.space !== space || mapping.address !== address);
    this.#mappings[frame] = rest.length > 1 ? rest : rest[0];
  }

  /** A copy, which stays good while mappings come and go. */
  of(frame: Frame): readonly Mapping[] {
    const held = this.#mappings[frame];
    if (held === undefined) return [];
    return Array.isArray(held) ? [...held] : [held];
  }
}
