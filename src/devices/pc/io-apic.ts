import type { Archive, Archived } from '../../archive/archive.ts';
import type { InterruptLine, MmioDevice } from '../mmio.ts';
import type { ApicBus, DeliveryMode } from './apic-bus.ts';

/** Offsets of the two registers that reach all others (Intel 82093AA, 3.0). */
const enum Window {
  select = 0x00,
  data = 0x10,
  /** Of later controllers: ends the interrupts of a vector at level-triggered pins. */
  endOfInterrupt = 0x40,
}

const enum Register {
  identifier = 0,
  version = 1,
  arbitration = 2,
  firstEntry = 0x10,
}

export const IO_APIC_PINS = 24;
export const IO_APIC_VERSION = 0x20;
const VERSION = IO_APIC_VERSION | ((IO_APIC_PINS - 1) << 16);

/** Bits of an entry's low word. */
const enum Entry {
  vector = 0xff,
  logical = 0x800,
  deliveryStatus = 0x1000,
  remoteIrr = 0x4000,
  levelTriggered = 0x8000,
  masked = 0x1_0000,
  writable = 0x1_afff,
}
const DELIVERY_MODE_SHIFT = 8;

/** The I/O APIC: turns lines of devices into messages to local APICs. */
export class IoApic implements MmioDevice, Archived {
  readonly #bus: ApicBus;
  #select = 0;
  #identifier: number;
  readonly #low = new Uint32Array(IO_APIC_PINS).fill(Entry.masked);
  readonly #high = new Uint32Array(IO_APIC_PINS);
  readonly #level = new Uint8Array(IO_APIC_PINS);

  constructor(bus: ApicBus, identifier: number) {
    this.#bus = bus;
    this.#identifier = identifier << 24;
    bus.onEndOfInterrupt = (vector) => this.#endOfInterrupt(vector);
  }

  archive(archive: Archive): void {
    this.#select = archive.value('select', this.#select);
    this.#identifier = archive.value('identifier', this.#identifier);
    archive.words('low', this.#low);
    archive.words('high', this.#high);
    archive.words('level', this.#level);
  }

  /** The line into a pin, 0–23. */
  line(pin: number): InterruptLine {
    return { set: (level) => this.#set(pin, level) };
  }

  #set(pin: number, level: boolean): void {
    const before = this.#level[pin] !== 0;
    this.#level[pin] = level ? 1 : 0;
    if (!level || before) return;
    const low = this.#low[pin] as number;
    // An edge at a masked pin is lost; a level is still there when the pin is unmasked.
    if ((low & Entry.masked) === 0) this.#send(pin);
  }

  /** Sends the message of a pin, unless it is of a level that the processor has not done with. */
  #send(pin: number): void {
    const low = this.#low[pin] as number;
    if ((low & Entry.levelTriggered) !== 0) {
      if ((low & Entry.remoteIrr) !== 0) return;
      this.#low[pin] = low | Entry.remoteIrr;
    }
    this.#bus.send({
      vector: low & Entry.vector,
      mode: ((low >>> DELIVERY_MODE_SHIFT) & 7) as DeliveryMode,
      destination: (this.#high[pin] as number) >>> 24,
      logical: (low & Entry.logical) !== 0,
      level: (low & Entry.levelTriggered) !== 0,
    });
  }

  #endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      const low = this.#low[pin] as number;
      const waiting = Entry.levelTriggered | Entry.remoteIrr;
      if ((low & Entry.vector) !== vector || (low & waiting) !== waiting) continue;
      this.#low[pin] = low & ~Entry.remoteIrr;
      if (this.#level[pin] !== 0 && (low & Entry.masked) === 0) this.#send(pin);
    }
  }

  read(offset: number): number {
    if (offset === Window.select) return this.#select;
    if (offset !== Window.data) return 0;
    switch (this.#select as Register) {
      case Register.identifier:
      case Register.arbitration:
        return this.#identifier;
      case Register.version:
        return VERSION;
      default: {
        const entry = this.#select - Register.firstEntry;
        const half = (entry & 1) === 0 ? this.#low : this.#high;
        return half[entry >> 1] ?? 0;
      }
    }
  }

  write(offset: number, _bytes: number, value: number): void {
    if (offset === Window.select) this.#select = value & 0xff;
    else if (offset === Window.endOfInterrupt) this.#endOfInterrupt(value & 0xff);
    else if (offset === Window.data) this.#writeSelected(value);
  }

  #writeSelected(value: number): void {
    if (this.#select === Register.identifier) {
      this.#identifier = value & 0x0f00_0000;
      return;
    }
    const entry = this.#select - Register.firstEntry;
    const pin = entry >> 1;
    if (entry < 0 || pin >= IO_APIC_PINS) return;
    if ((entry & 1) !== 0) {
      this.#high[pin] = value;
      return;
    }
    const kept = (this.#low[pin] as number) & Entry.remoteIrr;
    const isLevel = (value & Entry.levelTriggered) !== 0;
    this.#low[pin] = ((value & Entry.writable) | (isLevel ? kept : 0)) >>> 0;
    if (isLevel && (value & Entry.masked) === 0 && this.#level[pin] !== 0) this.#send(pin);
  }
}
