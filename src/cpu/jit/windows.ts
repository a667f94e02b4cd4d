import type { Relative } from '../../wasm/expression.ts';
import type { Local } from '../../wasm/module.ts';

/**
 * A page that an access of the region went to, kept in locals: what else lies in it needs no look at the TLB. That is so as
 * long as the region runs, because whatever changes translations leaves all regions.
 */
export interface Window {
  /** Of the access, from the value that it is filed under. */
  readonly distance: number;
  readonly bytes: number;
  readonly writable: boolean;
  /** Host address of the page. */
  readonly page: Local<'i32'>;
  /** Where in the page the access was. */
  readonly offset: Local<'i32'>;
  /** Its locals may be another one's by now. */
  isOver: boolean;
}

/**
 * What is known at a place of the code about addresses: which registers are a constant apart from what they, or others, were
 * before, and which pages accesses have gone to; in 64-bit code only. Values have no names but objects that stand for them.
 */
export class Windows {
  readonly #registers: Relative[];
  readonly #windows: Map<object, Window>;

  constructor(registers: Relative[] = Array.from({ length: 16 }, unknown), windows = new Map<object, Window>()) {
    this.#registers = registers;
    this.#windows = windows;
  }

  /** What a register is relative to. */
  register(register: number): Relative {
    return this.#registers[register] as Relative;
  }

  /** A register was set. @param relative undefined when nothing is known about the value */
  setRegister(register: number, relative: Relative | undefined): void {
    this.#registers[register] = relative ?? unknown();
  }

  /** The window that an access may lie in, filed under what its address is relative to. */
  find({ base, distance }: Relative, bytes: number, write: boolean): Window | undefined {
    const window = this.#windows.get(base);
    if (!window || window.isOver || (write && !window.writable)) return undefined;
    return Math.abs(distance - window.distance) <= REACH - bytes ? window : undefined;
  }

  add({ base }: Relative, window: Window): void {
    this.#windows.set(base, window);
  }

  /** The host did something for the region that is not followed here. */
  closeAll(): void {
    this.#windows.clear();
  }

  copy(): Windows {
    return new Windows([...this.#registers], new Map(this.#windows));
  }

  /** What is known whether control comes from here or from there. */
  meet(other: Windows): Windows {
    const registers = this.#registers.map((mine, register) => {
      const { base, distance } = other.register(register);
      return mine.base === base && mine.distance === distance ? mine : unknown();
    });
    const windows = [...this.#windows].filter(([base, window]) => other.#windows.get(base) === window);
    return new Windows(registers, new Map(windows));
  }
}

const unknown = (): Relative => ({ base: {}, distance: 0 });

/** Bytes on either side of an access that others probably are in the same page. */
const REACH = 2048;
