import type { Archive, Archived } from '../../archive/archive.ts';
import type { GuestMemory } from '../../cpu/translation.ts';
import { type GuestVirtual, highWord, lowWord } from '../../x86/brand.ts';
import { Errno } from './errno.ts';

export const enum RunState {
  running = 0,
  runnable = 1,
  blocked = 2,
  offline = 3,
}

/**
 * vcpu_runstate_info      64-bit   32-bit guest
 *   state (u32)           0        0
 *   state_entry_time      8        4
 *   time[4] (u64)         0x10     0xc
 *   size                  48       44
 */
export interface RunstateLayout {
  readonly entryTime: number;
  readonly times: number;
  readonly size: number;
}

export const RUNSTATE_64: RunstateLayout = { entryTime: 8, times: 0x10, size: 48 };
export const RUNSTATE_32: RunstateLayout = { entryTime: 4, times: 0xc, size: 44 };

const STATES = 4;
/** Bit 63 of state_entry_time: an update is under way (XEN_RUNSTATE_UPDATE). */
const UPDATE_FLAG_HIGH = 0x8000_0000;

/**
 * How long each virtual processor was in each state (public/vcpu.h, commands 4 and 5). A guest may name an area in
 * its own address space that follows every change. Times are system time in nanoseconds.
 */
export class Runstates implements Archived {
  readonly layout: RunstateLayout;
  readonly states: Uint8Array;
  readonly entryTimes: Float64Array;
  /** Nanoseconds in each state before the current one was entered, four per virtual processor. */
  readonly times: Float64Array;
  /** The guest's area, 0 for none. */
  readonly areas: Float64Array;
  /** vm_assist type 5: set the update flag in the area while it is written. */
  updateFlag = false;

  /** Virtual processor 0 starts runnable, the others offline. */
  constructor(vcpus: number, layout: RunstateLayout, now = 0) {
    this.layout = layout;
    this.states = new Uint8Array(vcpus).fill(RunState.offline);
    this.states[0] = RunState.runnable;
    this.entryTimes = new Float64Array(vcpus).fill(now);
    this.times = new Float64Array(vcpus * STATES);
    this.areas = new Float64Array(vcpus);
  }

  archive(archive: Archive): void {
    archive.words('states', this.states);
    archive.words('entryTimes', this.entryTimes);
    archive.words('times', this.times);
    archive.words('areas', this.areas);
    this.updateFlag = archive.value('updateFlag', this.updateFlag);
  }

  /** Whether the guest has an area that must be told. */
  change(vcpu: number, state: RunState, now: number): boolean {
    const old = this.states[vcpu]!;
    if (old === state) return false;
    this.times[vcpu * STATES + old]! += Math.max(0, now - this.entryTimes[vcpu]!);
    this.states[vcpu] = state;
    this.entryTimes[vcpu] = now;
    return this.areas[vcpu] !== 0;
  }

  /** VCPUOP_get_runstate_info: the time in the current state counts up to `now`. */
  info(vcpu: number, now: number): Uint8Array {
    const bytes = this.#encode(vcpu);
    const current = this.states[vcpu]!;
    const total = this.times[vcpu * STATES + current]! + Math.max(0, now - this.entryTimes[vcpu]!);
    writeLong(new DataView(bytes.buffer), this.layout.times + current * 8, total);
    return bytes;
  }

  /**
   * VCPUOP_register_runstate_memory_area: copies the state there and keeps it up to date; address 0 ends that.
   * @returns 0, or −EFAULT and no registration
   */
  register(vcpu: number, address: GuestVirtual, memory: GuestMemory): number {
    this.areas[vcpu] = 0;
    if (address === 0) return 0;
    if (!memory.write(address, this.#encode(vcpu))) return -Errno.EFAULT;
    this.areas[vcpu] = address;
    return 0;
  }

  #encode(vcpu: number): Uint8Array {
    const bytes = new Uint8Array(this.layout.size);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.states[vcpu]!, true);
    writeLong(view, this.layout.entryTime, this.entryTimes[vcpu]!);
    for (let state = 0; state < STATES; state++) {
      writeLong(view, this.layout.times + state * 8, this.times[vcpu * STATES + state]!);
    }
    return bytes;
  }

  /**
   * Copies the state into the guest's area. `memory` is the virtual processor's own, as its current tables map it; an
   * area that is not mapped is left alone. @throws PageAbsent
   */
  publish(vcpu: number, memory: GuestMemory): void {
    const area = this.areas[vcpu]! as GuestVirtual;
    const bytes = this.#encode(vcpu);
    if (!this.updateFlag) {
      memory.write(area, bytes);
      return;
    }
    // Flag, fields with the flag, then without: a reader on another processor sees a change at either border.
    const entry = this.entryTimes[vcpu]!;
    const entryAddress = (area + this.layout.entryTime) as GuestVirtual;
    const flagged = (highWord(entry) | UPDATE_FLAG_HIGH) >>> 0;
    if (!memory.writeLong(entryAddress, lowWord(entry), flagged)) return;
    new DataView(bytes.buffer).setUint32(this.layout.entryTime + 4, flagged, true);
    memory.write(area, bytes);
    memory.writeLong(entryAddress, lowWord(entry), highWord(entry));
  }
}

function writeLong(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, lowWord(value), true);
  view.setUint32(offset + 4, highWord(value), true);
}
