import type { Archive, Archived } from '../../archive/archive.ts';
import { highWord, lowWord } from '../../x86/brand.ts';
import { Preempted, StealTime } from './abi.ts';
import { type AreaOwner, GuestArea } from './guest-area.ts';

const ALIGNMENT = 64;

/**
 * What one virtual processor is told of the time that others had instead of it, and the flag by which others leave it a
 * flush of its TLB while it does not run.
 */
export class StealTimeArea implements Archived {
  readonly area: GuestArea;
  /** System time since which the processor could have run and did not; −1 while it runs or has nothing to do. */
  #waitsSince = -1;
  #stolen = 0;

  constructor(owner: AreaOwner) {
    this.area = new GuestArea(owner, StealTime.size, ALIGNMENT);
  }

  archive(archive: Archive): void {
    archive.part('area', this.area);
    this.#waitsSince = archive.value('waitsSince', this.#waitsSince);
    this.#stolen = archive.value('stolen', this.#stolen);
  }

  /**
   * The processor runs again.
   * @returns whether its translations are to be flushed first
   */
  resume(now: number): boolean {
    if (this.#waitsSince >= 0) this.#stolen += now - this.#waitsSince;
    this.#waitsSince = -1;
    const { address } = this.area;
    if (address < 0) return false;
    const { view, u8 } = this.area.memory;
    const preempted = u8[address + StealTime.preempted] as number;
    u8[address + StealTime.preempted] = 0;
    const odd = (view.getUint32(address + StealTime.version, true) | 1) >>> 0;
    view.setUint32(address + StealTime.version, odd, true);
    view.setUint32(address + StealTime.nanoseconds, lowWord(this.#stolen), true);
    view.setUint32(address + StealTime.nanoseconds + 4, highWord(this.#stolen), true);
    view.setUint32(address + StealTime.version, (odd + 1) >>> 0, true);
    this.area.written();
    return (preempted & Preempted.flushTlb) !== 0;
  }

  /** @param waits whether the processor has more to do */
  suspend(now: number, waits: boolean): void {
    if (waits) this.#waitsSince = now;
    const { address } = this.area;
    if (address < 0) return;
    this.area.memory.u8[address + StealTime.preempted] = Preempted.notRunning;
    this.area.written();
  }
}
