import { and, type I32, type I64, i64, load64, or, shl, store64, zeroExtend } from '../../wasm/expression.ts';
import type { FunctionBuilder, Local } from '../../wasm/module.ts';
import { State } from '../state.ts';

/** A set of registers: bit n for register n. */
interface Registers {
  bits: number;
}

/** Registers that have their value in a local from some point of the code on, wherever control went since. */
interface Scope {
  readonly around: Scope | undefined;
  readonly known: Registers;
  /** What surrounds the scope is a loop, in front of which registers are loaded. */
  readonly isLoop: boolean;
}

/**
 * The general registers of one region. The state block has them exactly wherever control may leave the region or a block,
 * so that the ways out, of which there are many, have nothing to do. A local has the value from where it is first read or
 * written. Scopes follow the dominator tree: what a scope knows holds in all scopes inside.
 */
export class RegisterFile {
  readonly #fn: FunctionBuilder;
  readonly #state: I32;
  readonly #locals: (Local<'i64'> | undefined)[] = [];
  #scope: Scope = { around: undefined, known: { bits: 0 }, isLoop: false };
  /** Loaded in front of the current instruction. */
  #wanted: Registers = { bits: 0 };
  #depth = 0;
  #storesAtOnce = true;
  /** Written by instructions that control cannot leave at. */
  #unstored = 0;
  #reloads = 0;
  /** Of each register, how often all had been loaded again when it was read last. */
  readonly #readSince: number[] = new Array(16).fill(-1);

  constructor(fn: FunctionBuilder, state: I32) {
    this.#fn = fn;
    this.#state = state;
  }

  /** An instruction begins here. @param mayLeave whether control may go elsewhere from it */
  begin(mayLeave: boolean): void {
    if (mayLeave) this.flush();
    this.#storesAtOnce = mayLeave;
    const wanted: Registers = { bits: 0 };
    this.#wanted = wanted;
    this.#depth = this.#fn.depth;
    this.#fn.later(() => this.#load(wanted.bits));
  }

  /** Control goes on elsewhere: the state block becomes exact. */
  flush(): void {
    for (let rest = this.#unstored; rest !== 0; rest &= rest - 1) this.#store(lowest(rest));
    this.#unstored = 0;
  }

  /** In front of a node's code, and of its loop when it is the header of one. @returns what `leave` takes */
  enter(isLoop: boolean): Scope {
    const outer = this.#scope;
    const known: Registers = { bits: 0 };
    this.#scope = { around: outer, known, isLoop };
    if (isLoop) this.#fn.later(() => this.#load(known.bits));
    return outer;
  }

  leave(outer: Scope): void {
    this.#scope = outer;
  }

  /** Everything may have been changed by others. */
  reload(): void {
    const scope = this.#scope;
    const inLoop = this.#outermostLoop() !== undefined;
    const now = ++this.#reloads;
    this.#fn.later(() => {
      let known = 0;
      for (let at: Scope | undefined = scope; at; at = at.around) known |= at.known.bits;
      // A loop reads what it reads again; what is behind here in other code was generated later.
      for (const [register, reloads] of this.#readSince.entries()) {
        if (!inLoop && reloads < now) known &= ~(1 << register);
      }
      this.#load(known);
    });
  }

  read(register: number): Local<'i64'> {
    const local = this.#local(register);
    this.#readSince[register] = this.#reloads;
    if (this.#isKnown(register)) return local;
    const loop = this.#outermostLoop();
    if (!loop) this.#wanted.bits |= 1 << register;
    (loop ?? this.#scope).known.bits |= 1 << register;
    return local;
  }

  /** Sets the low bytes; 4 clear what is above, fewer leave it. */
  write(register: number, bytes: number, value: I64): void {
    if (bytes >= 4) {
      // What an instruction writes only sometimes has to be right when it does not.
      if (this.#fn.depth > this.#depth) this.read(register);
      this.#set(register, zeroExtend(value, bytes));
      if (!this.#isKnown(register)) this.#scope.known.bits |= 1 << register;
    } else {
      const mask = bytes === 1 ? 0xff : 0xffff;
      this.#set(register, or(and(this.read(register), i64(~mask)), and(value, i64(mask))));
    }
  }

  /** Sets bits 8–15. */
  writeHighByte(register: number, value: I64): void {
    this.#set(register, or(and(this.read(register), i64(~0xff00)), shl(and(value, i64(0xff)), i64(8))));
  }

  #set(register: number, value: I64): void {
    this.#fn.set(this.#local(register), value);
    if (this.#storesAtOnce) this.#store(register);
    else this.#unstored |= 1 << register;
  }

  #store(register: number): void {
    this.#fn.store(store64(this.#state, this.#local(register), State.registers + register * 8));
  }

  #load(registers: number): void {
    for (let rest = registers; rest !== 0; rest &= rest - 1) {
      const register = lowest(rest);
      this.#fn.set(this.#local(register), load64(this.#state, State.registers + register * 8));
    }
  }

  #local(register: number): Local<'i64'> {
    const known = this.#locals[register];
    if (known) return known;
    const local = this.#fn.permanentLocal('i64');
    this.#locals[register] = local;
    return local;
  }

  #isKnown(register: number): boolean {
    for (let at: Scope | undefined = this.#scope; at; at = at.around) if (at.known.bits & (1 << register)) return true;
    return false;
  }

  #outermostLoop(): Scope | undefined {
    let loop: Scope | undefined;
    for (let at: Scope | undefined = this.#scope; at; at = at.around) if (at.isLoop) loop = at;
    return loop;
  }
}

/** The first register of a set that is not empty. */
const lowest = (bits: number): number => 31 - Math.clz32(bits & -bits);
