import type { Archive, Archived } from '../../archive/archive.ts';
import { TableGenerations } from '../../cpu/table-generations.ts';
import { SharedColumn } from '../../memory/shared-column.ts';
import { SparseNumbers } from '../../memory/sparse-numbers.ts';
import { type EntryNumbers, frameOfEntry, OWN_NUMBERS } from '../../x86/page-table.ts';
import { Pte } from '../../x86/registers.ts';
import { PagingError } from './errors.ts';

/**
 * What a frame is at present. Levels are their own numbers. A type has a count, and changes only when it is zero; so a
 * page-table or descriptor page never has a writable mapping, and nothing is a table of two levels.
 */
export const enum FrameType {
  none = 0,
  level1 = 1,
  level2 = 2,
  level3 = 3,
  level4 = 4,
  segmentDescriptors = 5,
  writable = 6,
}

export const FRAME_TYPE_NAMES = [
  'none',
  'level1',
  'level2',
  'level3',
  'level4',
  'segmentDescriptors',
  'writable',
] as const;

/** What may be done with a frame, whatever its type. */
export const enum FrameOwner {
  /** The number names no frame. */
  none = 0,
  /** Memory of the domain: any type. */
  domain = 1,
  /** A page of the host that the guest uses too (shared_info, grant table): mappable, never a table. */
  shared = 2,
}

export const enum FrameFlag {
  /** The guest pinned the table: one type count and one reference. */
  pinned = 1,
  /** The page holds descriptors of an LDT in use: one type count and one reference. */
  localDescriptors = 2,
  /** Root of a promotion whose call has not come back yet: one type count and one reference. */
  claimed = 4,
}

/** Bits that no present level-1 entry may have: PWT, PCD and PAT. */
const LEVEL1_REFUSED = Pte.writeThrough | Pte.cacheDisable | Pte.large;

/** What frame types tell of. */
export interface FrameTypeEvents {
  /** An LDT page lost its hold. */
  ldtFrameReleased(mfn: number): void;
  /** A frame is no table any more, or holds no descriptors. */
  leavesUse(mfn: number, type: FrameType): void;
}

/** Whether processors' walks or loads of segments depend on frames of a type. */
function isInUse(type: number): boolean {
  return type >= FrameType.level1 && type <= FrameType.segmentDescriptors;
}

/**
 * Types and counts of the frames of one domain, by machine frame number; a clone shares what neither of the two changes. Everything that uses a frame holds a
 * reference; what uses it as something holds a type count as well:
 *
 *     user                                          type count          reference
 *     level-1 entry, present, read-only             –                   1
 *     level-1 entry, present, writable              writable            1
 *     entry of level 2–4, present                   the level below     1
 *     the same, linear (to a table of its level)    that level          1    (none when it names its own table)
 *     pin, processor's root, claim                  the level           1
 *     GDT or LDT page in use                        segmentDescriptors  1
 *     the host itself (rings, vcpu_info)            writable            1
 */
export class FrameTypes implements Archived {
  readonly limit: number;
  readonly owner: SharedColumn;
  readonly type: SharedColumn;
  readonly typeCount: SharedColumn;
  readonly references: SharedColumn;
  readonly #flags: SharedColumn;
  /**
   * Of a table, how many of its leading entries hold their references. Less than all of them while it is being
   * promoted (the number grows) or demoted (it shrinks).
   */
  readonly held = new SparseNumbers();
  /**
   * Linear entries of a table that name other tables (positive), or entries of other tables that name it (negative).
   * A table is never on both sides, so a chain of linear entries has one link.
   */
  readonly linear = new SparseNumbers();
  /** Writable holds of the host. */
  readonly hostHolds = new SparseNumbers();
  /** A table's changes when a present entry changes, when it is unpinned and when it loses its type. */
  readonly generations: TableGenerations;
  /** Owned frames by type. */
  readonly framesByType = new Uint32Array(FRAME_TYPE_NAMES.length);
  readonly #events: FrameTypeEvents;
  /** Whether numbers from `limit` on are those of devices, which entries of level 1 may name. */
  readonly #hasDevices: boolean;
  readonly #numbers: EntryNumbers;

  constructor(limit: number, events: FrameTypeEvents, hasDevices = false, numbers: EntryNumbers = OWN_NUMBERS) {
    this.#hasDevices = hasDevices;
    this.#numbers = numbers;
    this.limit = limit;
    this.owner = new SharedColumn(limit);
    this.type = new SharedColumn(limit);
    this.typeCount = new SharedColumn(limit);
    this.references = new SharedColumn(limit);
    this.#flags = new SharedColumn(limit);
    this.generations = new TableGenerations(limit);
    this.#events = events;
  }

  /** Generations are compared with those of TLBs only, which are empty in a domain that goes on. */
  archive(archive: Archive): void {
    archive.part('owner', this.owner);
    archive.part('type', this.type);
    archive.part('typeCount', this.typeCount);
    archive.part('references', this.references);
    archive.part('flags', this.#flags);
    archive.part('held', this.held);
    archive.part('linear', this.linear);
    archive.part('hostHolds', this.hostHolds);
    archive.words('framesByType', this.framesByType);
  }

  /** The number of the frame that an entry names. */
  namedBy(low: number, high: number): number {
    return this.#numbers.pageOf(frameOfEntry(low, high));
  }

  /** Brings a number into use. */
  adopt(mfn: number, owner: FrameOwner): void {
    this.owner.set(mfn, owner);
    this.framesByType[FrameType.none]!++; // a member of the enumeration is an index of the array
  }

  /** Takes a number out of use; unless the domain ends, nothing refers to it. */
  disown(mfn: number): void {
    this.owner.set(mfn, FrameOwner.none);
    this.framesByType[this.type.get(mfn)]!--; // every stored type is an index
  }

  hasFlag(mfn: number, flag: FrameFlag): boolean {
    return (this.#flags.get(mfn) & flag) !== 0;
  }

  setFlag(mfn: number, flag: FrameFlag): void {
    this.#flags.set(mfn, this.#flags.get(mfn) | flag);
  }

  clearFlag(mfn: number, flag: FrameFlag): void {
    this.#flags.set(mfn, this.#flags.get(mfn) & ~flag);
  }

  /** Whether the number names memory of the domain itself. */
  isDomains(mfn: number): boolean {
    return this.owner.get(mfn) === FrameOwner.domain;
  }

  /** Whether the guest could have the page writable. */
  isPlain(mfn: number): boolean {
    if (this.owner.get(mfn) === FrameOwner.none) return false;
    const type = this.type.get(mfn);
    return type === FrameType.none || type === FrameType.writable;
  }

  setType(mfn: number, type: FrameType): void {
    const old = this.type.get(mfn); // callers name owned numbers
    this.framesByType[old]!--; // every stored type is an index
    this.framesByType[type]!++;
    this.type.set(mfn, type);
    if (isInUse(old)) this.#events.leavesUse(mfn, old);
  }

  /** Takes one count of the writable type, without a reference. */
  takeWritable(mfn: number): boolean {
    const type = this.type.get(mfn);
    if (type === FrameType.writable) {
      this.typeCount.add(mfn, 1); // an owned number is below the limit, here and below
      return true;
    }
    if (type !== FrameType.none) return false;
    this.setType(mfn, FrameType.writable);
    this.typeCount.set(mfn, 1);
    return true;
  }

  dropWritable(mfn: number): void {
    if (this.typeCount.add(mfn, -1) === 0) this.setType(mfn, FrameType.none);
  }

  /** Takes what a present level-1 entry refers to. `busy`: not an owned frame, or not to be had writable. */
  takeMapping(low: number, high: number): number {
    if ((low & LEVEL1_REFUSED) !== 0 && !this.#hasDevices) return PagingError.invalid;
    const mfn = this.namedBy(low, high);
    // Beyond the machine's memory there is only I/O memory.
    if (mfn >= this.limit) return this.#hasDevices ? 0 : PagingError.notPermitted;
    if (this.owner.get(mfn) === FrameOwner.none) return PagingError.busy;
    if ((low & Pte.writable) !== 0 && !this.takeWritable(mfn)) return PagingError.busy;
    this.references.add(mfn, 1);
    return 0;
  }

  /** Drops what a present level-1 entry referred to. */
  dropMapping(low: number, high: number): void {
    const mfn = this.namedBy(low, high);
    if (mfn >= this.limit) return;
    if ((low & Pte.writable) !== 0) this.dropWritable(mfn);
    this.references.add(mfn, -1);
  }

  /** A level-1 entry went away because the guest wanted it so: it has done with the LDT page that was mapped there. */
  noticeUnmapping(low: number, high: number): void {
    const mfn = this.namedBy(low, high);
    if (this.hasFlag(mfn, FrameFlag.localDescriptors)) this.releaseLdtFrame(mfn);
  }

  releaseLdtFrame(mfn: number): void {
    this.clearFlag(mfn, FrameFlag.localDescriptors);
    this.dropDescriptors(mfn);
    this.#events.ldtFrameReleased(mfn);
  }

  dropDescriptors(mfn: number): void {
    this.references.add(mfn, -1);
    if (this.typeCount.add(mfn, -1) === 0) this.setType(mfn, FrameType.none);
  }
}
