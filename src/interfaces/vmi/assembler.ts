/** Numbers of registers in 32-bit code. */
export const enum Reg {
  eax = 0,
  ecx = 1,
  edx = 2,
  ebx = 3,
  esp = 4,
  ebp = 5,
  esi = 6,
  edi = 7,
}

/** A place in memory: a base, an index that is scaled, both or neither, and a displacement of 32 bits. */
export interface Place {
  readonly base?: Reg;
  readonly index?: Reg;
  /** 4 or 8; of an index. */
  readonly scale?: 4 | 8;
  readonly displacement?: number;
}

/** Conditions of jumps, as the opcode has them. */
export const enum Condition {
  below = 2,
  aboveOrEqual = 3,
  zero = 4,
  notZero = 5,
}

/** Opcodes of instructions with a register and a place, or a place alone and a number in the register's field. */
const enum Opcode {
  or = 0x09,
  store = 0x89,
  load = 0x8b,
  arithmetic = 0x81,
}

/** What the register's field says of `Opcode.arithmetic`. */
const enum Arithmetic {
  and = 4,
  compare = 7,
}

const SIB_BASE = 4;
const NO_INDEX = 4;
const NO_BASE = 5;

/** Writes 32-bit code that may run at any address. Branches lead to labels, and the code of others may be called. */
export class Assembler {
  readonly #bytes: number[] = [];
  readonly #labels = new Map<string, number>();
  /** Words that are distances from somewhere to a label. */
  readonly #distances: { readonly at: number; readonly from: string | number; readonly label: string }[] = [];

  get length(): number {
    return this.#bytes.length;
  }

  label(name: string): void {
    if (this.#labels.has(name)) throw new Error(`two labels ${name}`);
    this.#labels.set(name, this.length);
  }

  /** Bytes of an instruction, or data. */
  bytes(...values: readonly number[]): void {
    this.#bytes.push(...values);
  }

  word(value: number): void {
    this.bytes(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24);
  }

  align(alignment: number): void {
    while (this.length % alignment !== 0) this.bytes(0xcc);
  }

  push(register: Reg): void {
    this.bytes(0x50 + register);
  }

  pop(register: Reg): void {
    this.bytes(0x58 + register);
  }

  moveNumber(register: Reg, value: number): void {
    this.bytes(0xb8 + register);
    this.word(value);
  }

  move(to: Reg, from: Reg): void {
    this.bytes(Opcode.store, 0xc0 | (from << 3) | to);
  }

  load(register: Reg, place: Place): void {
    this.#withPlace(Opcode.load, register, place);
  }

  store(place: Place, register: Reg): void {
    this.#withPlace(Opcode.store, register, place);
  }

  or(place: Place, register: Reg): void {
    this.#withPlace(Opcode.or, register, place);
  }

  andNumber(place: Place, value: number): void {
    this.#withPlace(Opcode.arithmetic, Arithmetic.and, place);
    this.word(value);
  }

  compareNumber(place: Place, value: number): void {
    this.#withPlace(Opcode.arithmetic, Arithmetic.compare, place);
    this.word(value);
  }

  compareRegister(register: Reg, value: number): void {
    this.bytes(Opcode.arithmetic, 0xc0 | (Arithmetic.compare << 3) | register);
    this.word(value);
  }

  #withPlace(opcode: number, field: number, { base, index, scale = 4, displacement = 0 }: Place): void {
    this.bytes(opcode);
    const needsSib = index !== undefined || base === Reg.esp;
    if (base === undefined && !needsSib) {
      this.bytes((field << 3) | NO_BASE);
    } else if (needsSib) {
      this.bytes((base === undefined ? 0 : 0x80) | (field << 3) | SIB_BASE);
      this.bytes(((scale === 8 ? 3 : 2) << 6) | ((index ?? NO_INDEX) << 3) | (base ?? NO_BASE));
    } else {
      this.bytes(0x80 | (field << 3) | (base as Reg)); // without a base there would have been an index
    }
    this.word(displacement);
  }

  return(): void {
    this.bytes(0xc3);
  }

  call(label: string): void {
    this.bytes(0xe8);
    this.#branch(label);
  }

  jump(label: string): void {
    this.bytes(0xe9);
    this.#branch(label);
  }

  jumpIf(condition: Condition, label: string): void {
    this.bytes(0x0f, 0x80 + condition);
    this.#branch(label);
  }

  /** A branch counts from the byte behind it. */
  #branch(label: string): void {
    this.distance(this.length + 4, label);
  }

  /** A word with the distance of a label from another one, or from an offset. */
  distance(from: string | number, label: string): void {
    this.#distances.push({ at: this.length, from, label });
    this.word(0);
  }

  offsetOf(label: string): number {
    const offset = this.#labels.get(label);
    if (offset === undefined) throw new Error(`no label ${label}`);
    return offset;
  }

  /** The code, with all distances. */
  finish(): Uint8Array {
    const code = Uint8Array.from(this.#bytes);
    const view = new DataView(code.buffer);
    for (const { at, from, label } of this.#distances) {
      const start = typeof from === 'number' ? from : this.offsetOf(from);
      view.setInt32(at, this.offsetOf(label) - start, true);
    }
    return code;
  }
}
