import type { Archive, Archived } from '../../archive/archive.ts';
import { Alarm, Cycles } from './abi.ts';
import { CycleAlarm, type CycleCounters } from './alarm.ts';

/** The cycle counters and alarms of one processor. Cycles are nanoseconds of system time. */
export class VcpuClock implements CycleCounters, Archived {
  readonly #now: () => number;
  /** System time since which the processor could have run and did not; −1 while it runs or has nothing to do. */
  #waitsSince = -1;
  #stolen = 0;
  readonly #alarms: readonly CycleAlarm[];

  constructor(now: () => number) {
    this.#now = now;
    this.#alarms = [Cycles.real, Cycles.available].map((kind) => new CycleAlarm(kind, this));
  }

  archive(archive: Archive): void {
    this.#waitsSince = archive.value('waitsSince', this.#waitsSince);
    this.#stolen = archive.value('stolen', this.#stolen);
    archive.parts('alarms', this.#alarms);
  }

  /** 0 for a kind that there is not. */
  read(kind: Cycles): number {
    const now = this.#now();
    const stolen = this.#stolen + (this.#waitsSince < 0 ? 0 : now - this.#waitsSince);
    switch (kind) {
      case Cycles.real:
        return now;
      case Cycles.available:
        return now - stolen;
      case Cycles.stolen:
        return stolen;
      default:
        return 0;
    }
  }

  resume(): void {
    if (this.#waitsSince >= 0) this.#stolen += this.#now() - this.#waitsSince;
    this.#waitsSince = -1;
  }

  /** @param waits whether the processor has more to do */
  suspend(waits: boolean): void {
    if (waits) this.#waitsSince = this.#now();
  }

  // Alarms

  setAlarm(flags: number, expiry: number, period: number): void {
    this.#alarms[flags & Alarm.counter]?.set(flags, expiry, period);
  }

  cancelAlarm(flags: number): void {
    this.#alarms[flags & Alarm.counter]?.cancel();
  }

  cancelAll(): void {
    for (const alarm of this.#alarms) alarm.cancel();
  }

  get deadline(): number {
    return Math.min(...this.#alarms.map((alarm) => alarm.deadline));
  }

  /** The alarms that come. */
  expire(): readonly CycleAlarm[] {
    return this.#alarms.filter((alarm) => alarm.expire());
  }
}
