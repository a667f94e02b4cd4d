import type { Archive, Archived } from '../../archive/archive.ts';
import type { ProcessorGroup } from '../../cpu/processor.ts';
import type { NestedPaging } from '../../paging/nested/nested-paging.ts';
import { type Gfn, type GuestPhysical, type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import { type DataLayout, RING_SLOTS, SLOT_FREE } from './abi.ts';

/** What the shared data needs of its domain. */
export interface DataOwner {
  readonly paging: NestedPaging;
  readonly group: ProcessorGroup;
  readonly layout: DataLayout;
}

/**
 * The structure that guest and host share (`struct lguest_data`). Its pages stay where they are: both sides look at it
 * all the time. The guest can write anything there at any time; each read is checked where it is used.
 */
export class GuestData implements Archived {
  readonly #owner: DataOwner;
  /** −1 until the guest has named it. */
  #physical = -1;

  constructor(owner: DataOwner) {
    this.#owner = owner;
  }

  /** The pages' pins are the pager's to restore. */
  archive(archive: Archive): void {
    this.#physical = archive.value('physical', this.#physical);
  }

  get isNamed(): boolean {
    return this.#physical >= 0;
  }

  /** @returns false when it is not all RAM. @throws PageAbsent with nothing changed */
  name(physical: number, ramPages: number): boolean {
    const { paging, layout } = this.#owner;
    const end = physical + layout.size;
    if (end > ramPages * PAGE_SIZE) return false;
    const first = Math.floor(physical / PAGE_SIZE);
    const last = Math.floor((end - 1) / PAGE_SIZE);
    // Both are there before one is pinned.
    for (const page of [first, last]) paging.addressOf((page * PAGE_SIZE) as GuestPhysical);
    for (let page = first; page <= last; page++) paging.pin(page as Gfn);
    this.#physical = physical;
    return true;
  }

  #at(field: number): HostAddress {
    return this.#owner.paging.addressOf((this.#physical + field) as GuestPhysical);
  }

  /** Unsigned. */
  read(field: number): number {
    let value = 0;
    // Kernels align it to words, but nothing makes them do so.
    for (let byte = 3; byte >= 0; byte--) value = value * 256 + this.readByte(field + byte);
    return value;
  }

  readByte(field: number): number {
    return this.#owner.group.parts.memory.u8[this.#at(field)] as number;
  }

  write(field: number, value: number): void {
    for (let byte = 0; byte < 4; byte++) this.writeByte(field + byte, (value >>> (8 * byte)) & 0xff);
  }

  writeByte(field: number, value: number): void {
    const { parts } = this.#owner.group;
    const address = this.#at(field);
    parts.memory.u8[address] = value;
    this.#owner.group.frameWritten(parts.pool.frameAt(address), address % PAGE_SIZE, 1);
  }

  // Words that are used at each entry

  get irqEnabled(): number {
    return this.read(this.#owner.layout.irqEnabled);
  }

  set irqEnabled(value: number) {
    this.write(this.#owner.layout.irqEnabled, value);
  }

  get blockedInterrupts(): number {
    return this.read(this.#owner.layout.blockedInterrupts);
  }

  /** Whether an interrupt waits until the guest lets it in; guests of the first era do not ask. */
  set irqPending(value: number) {
    const { irqPending } = this.#owner.layout;
    if (irqPending !== undefined && this.read(irqPending) !== value) this.write(irqPending, value);
  }

  set cr2(address: number) {
    this.write(this.#owner.layout.cr2, address);
  }

  setTime(seconds: number, nanoseconds: number): void {
    const { time } = this.#owner.layout;
    this.write(time, seconds);
    this.write(time + 4, nanoseconds);
  }

  /** The guest's code at which no interrupt may come. */
  mayInterrupt(eip: number): boolean {
    const { noInterruptsStart, noInterruptsEnd } = this.#owner.layout;
    return eip < this.read(noInterruptsStart) || eip >= this.read(noInterruptsEnd);
  }

  // The ring for calls that may wait

  /** @param slot below RING_SLOTS */
  isWaiting(slot: number): boolean {
    return this.readByte(this.#owner.layout.slotStates + slot) !== SLOT_FREE;
  }

  freeSlot(slot: number): void {
    this.writeByte(this.#owner.layout.slotStates + slot, SLOT_FREE);
  }

  /** A word of a slot; the first is the call's number. */
  slotWord(slot: number, word: number): number {
    const { slots, slotBytes } = this.#owner.layout;
    return this.read(slots + (slot % RING_SLOTS) * slotBytes + 4 * word);
  }
}
