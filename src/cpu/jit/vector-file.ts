import { type I32, load128, store128, type V128 } from '../../wasm/expression.ts';
import type { FunctionBuilder, Local } from '../../wasm/module.ts';
import { State } from '../state.ts';

/** Registers that have their value in a local from some point of the code on, as a set of bits. */
interface Scope {
  readonly around: Scope | undefined;
  known: number;
  /** Control comes back to its start with what was changed since, so nothing is known there. */
  readonly isLoop: boolean;
}

/**
 * The XMM registers of one region. The state block has them exactly at all times, since much of SSE changes parts of a
 * register there; a local has the value from where the whole register is read or written to where a part may be changed.
 * Scopes follow the dominator tree.
 */
export class VectorFile {
  readonly #fn: FunctionBuilder;
  readonly #state: I32;
  readonly #locals: (Local<'v128'> | undefined)[] = [];
  #scope: Scope = { around: undefined, known: 0, isLoop: false };
  /** What the current instruction may change in the state block. */
  #exposed = 0;

  constructor(fn: FunctionBuilder, state: I32) {
    this.#fn = fn;
    this.#state = state;
  }

  /** An instruction begins here. */
  begin(): void {
    this.#exposed = 0;
  }

  /** In front of a node's code. @returns what `leave` takes */
  enter(isLoop: boolean): Scope {
    const outer = this.#scope;
    this.#scope = { around: outer, known: 0, isLoop };
    return outer;
  }

  leave(outer: Scope): void {
    this.#scope = outer;
  }

  /** @param isStraight whether the code here is executed whenever the instruction is */
  read(register: number, isStraight: boolean): V128 {
    if (this.#isKnown(register)) return this.#local(register);
    const value = load128(this.#state, place(register));
    if (!isStraight || this.#isExposed(register)) return value;
    this.#fn.set(this.#local(register), value);
    this.#scope.known |= 1 << register;
    return this.#local(register);
  }

  /** @param isStraight as for `read` */
  write(register: number, value: V128, isStraight: boolean): void {
    if (!isStraight || this.#isExposed(register)) {
      this.#forget(1 << register);
      this.#fn.store(store128(this.#state, value, place(register)));
      return;
    }
    this.#fn.set(this.#local(register), value);
    this.#fn.store(store128(this.#state, this.#local(register), place(register)));
    this.#scope.known |= 1 << register;
  }

  /** The current instruction may change the register in the state block. */
  expose(register: number): void {
    this.#exposed |= 1 << register;
    this.#forget(1 << register);
  }

  /** Others may have changed them all. */
  forgetAll(): void {
    this.#forget(-1);
  }

  /** What is generated behind here is reached by ways on which the locals are not right. */
  #forget(registers: number): void {
    for (let at: Scope | undefined = this.#scope; at; at = at.around) at.known &= ~registers;
  }

  #isExposed(register: number): boolean {
    return (this.#exposed & (1 << register)) !== 0;
  }

  #isKnown(register: number): boolean {
    for (let at: Scope | undefined = this.#scope; at; at = at.isLoop ? undefined : at.around) {
      if ((at.known & (1 << register)) !== 0) return true;
    }
    return false;
  }

  #local(register: number): Local<'v128'> {
    const local = this.#locals[register] ?? this.#fn.permanentLocal('v128');
    this.#locals[register] = local;
    return local;
  }
}

/** Offset of a register in the state block. */
const place = (register: number): number => State.xmm + register * 16;
