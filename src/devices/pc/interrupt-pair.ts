import type { Archive, Archived } from '../../archive/archive.ts';
import type { InterruptLine, MmioDevice } from '../mmio.ts';
import { InterruptChip } from './interrupt-chip.ts';

/** The line of the first chip that the second one's output is. */
const CASCADE = 2;
const CASCADE_BIT = 1 << CASCADE;
const LINES = 16;

/** Ports of each chip and of the two bytes that say which lines are level-triggered (82371SB, 2.5.6). */
export const INTERRUPT_PORTS = { first: 0x20, second: 0xa0, triggers: 0x4d0, count: 2 } as const;

/** The two 8259A of a PC with their 15 lines. Their output is what `pending` says: nothing is delivered by itself. */
export class InterruptPair implements Archived {
  readonly #first = new InterruptChip();
  readonly #second = new InterruptChip();

  constructor() {
    this.#first.levelTriggered = CASCADE_BIT;
  }

  archive(archive: Archive): void {
    archive.part('first', this.#first);
    archive.part('second', this.#second);
  }

  /** @param number 0–15, not 2 */
  line(number: number): InterruptLine {
    const isFirst = number < LINES / 2;
    const chip = isFirst ? this.#first : this.#second;
    return {
      set: (level) => {
        chip.set(number % (LINES / 2), level);
        if (!isFirst) this.#cascade();
      },
    };
  }

  #cascade(): void {
    this.#first.set(CASCADE, this.#second.pending >= 0);
  }

  /** The vector that is to be delivered next, or −1. */
  get pending(): number {
    const line = this.#first.pending;
    if (line === CASCADE) return this.#second.vectorOf(this.#second.pending);
    return line < 0 ? -1 : this.#first.vectorOf(line);
  }

  /** Takes the vector that `pending` gave into service. */
  acknowledge(): void {
    const line = this.#first.pending;
    if (line < 0) return;
    this.#first.acknowledge(line);
    if (line !== CASCADE) return;
    this.#second.acknowledge(this.#second.pending);
    this.#cascade();
  }

  // Ports

  get first(): MmioDevice {
    return this.#first;
  }

  get second(): MmioDevice {
    const chip = this.#second;
    return {
      read: (offset) => {
        const value = chip.read(offset);
        this.#cascade();
        return value;
      },
      write: (offset, bytes, value) => {
        chip.write(offset, bytes, value);
        this.#cascade();
      },
    };
  }

  get triggers(): MmioDevice {
    const chips = [this.#first, this.#second] as const;
    return {
      // The cascade is not the guest's to see or change.
      read: (offset) => (offset === 0 ? chips[0].levelTriggered & ~CASCADE_BIT : chips[1].levelTriggered),
      write: (offset, _bytes, value) => {
        if (offset === 0) chips[0].levelTriggered = (value & 0xff) | CASCADE_BIT;
        else chips[1].levelTriggered = value & 0xff;
        this.#cascade();
      },
    };
  }
}
