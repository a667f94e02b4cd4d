import type { Archive, Archived } from '../archive/archive.ts';
import type { Bus } from '../devices/bus.ts';
import type { InterruptLine } from '../devices/mmio.ts';
import { INTERRUPT_PORTS, InterruptPair } from '../devices/pc/interrupt-pair.ts';
import { IntervalTimer } from '../devices/pc/interval-timer.ts';
import type { IoApic } from '../devices/pc/io-apic.ts';
import { KeyboardReset } from '../devices/pc/keyboard-reset.ts';
import { PowerTimer } from '../devices/pc/power-timer.ts';
import { SystemPort } from '../devices/pc/system-port.ts';
import { Pin, PORT_COUNT, Port } from './layout.ts';

export interface LegacyDevicesOptions {
  readonly ports: Bus;
  readonly ioApic: IoApic;
  /** System time in nanoseconds. */
  readonly now: () => number;
  readonly reset: () => void;
}

/**
 * What kernels expect of any PC that are older than hardware without it: two 8259A, an 8254 with the speaker's port, ACPI's
 * timer, and the reset by the keyboard controller. Kernels that ACPI tells of hardware without a past touch only the timer.
 */
export class LegacyDevices implements Archived {
  readonly interrupts = new InterruptPair();
  readonly #timer: IntervalTimer;
  readonly #system: SystemPort;
  readonly #tick: InterruptLine;
  readonly #ioApic: IoApic;

  constructor({ ports, ioApic, now, reset }: LegacyDevicesOptions) {
    const { interrupts } = this;
    this.#ioApic = ioApic;
    this.#timer = new IntervalTimer(now);
    this.#system = new SystemPort(this.#timer.speaker, now);
    this.#tick = this.line(Pin.timer);
    ports.add(INTERRUPT_PORTS.first, INTERRUPT_PORTS.count, interrupts.first);
    ports.add(INTERRUPT_PORTS.second, INTERRUPT_PORTS.count, interrupts.second);
    ports.add(INTERRUPT_PORTS.triggers, INTERRUPT_PORTS.count, interrupts.triggers);
    ports.add(Port.timer, PORT_COUNT.timer, this.#timer);
    ports.add(Port.system, 1, this.#system);
    ports.add(Port.powerTimer, PORT_COUNT.powerTimer, new PowerTimer(now));
    ports.add(Port.keyboardCommand, 1, new KeyboardReset(reset));
  }

  archive(archive: Archive): void {
    archive.part('interrupts', this.interrupts);
    archive.part('timer', this.#timer);
    this.#system.written = archive.value('systemPort', this.#system.written);
  }

  /** A line of the PC's past, which leads to both kinds of controllers. @param number 0–15, not 2 */
  line(number: number): InterruptLine {
    const legacy = this.interrupts.line(number);
    const pin = this.#ioApic.line(number);
    return {
      set: (level) => {
        legacy.set(level);
        pin.set(level);
      },
    };
  }

  /** The timer's line rises, and falls again. */
  tick(): void {
    this.#tick.set(true);
    this.#tick.set(false);
  }

  /** When the timer ticks next; system time in nanoseconds, Infinity for never. */
  get deadline(): number {
    return this.#timer.tick.deadline;
  }

  expire(now: number): void {
    if (this.#timer.tick.expire(now)) this.tick();
  }
}
