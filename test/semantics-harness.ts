import { OperandKind } from '../src/cpu/decode/instruction.ts';
import { createSseUnit, type SseUnit } from '../src/cpu/float/sse.ts';
import { createX87Unit, type X87Unit } from '../src/cpu/float/x87.ts';
import { createHelpers, type HelperOperation } from '../src/cpu/helpers.ts';
import { emitCarry, emitFlags, RecordContext } from '../src/cpu/interpreter/context.ts';
import { RecordField } from '../src/cpu/interpreter/record.ts';
import { HOST_FUNCTIONS, type HostFunction, type OperandShape, type Shape } from '../src/cpu/semantics/context.ts';
import { VECTOR } from '../src/cpu/semantics/vector.ts';
import { State } from '../src/cpu/state.ts';
import { createStringComparison } from '../src/cpu/string-compare.ts';
import { i32, sub } from '../src/wasm/expression.ts';
import { ModuleBuilder } from '../src/wasm/module.ts';

/** Executes single instructions on registers, without decoder, memory or processor, and counts what leaves the generated code. */
const STATE = 0x1_0000;
const RECORD = 0x2_0000;

export interface RegisterOperand extends OperandShape {
  readonly register: number;
}

export const xmm = (register: number): RegisterOperand => ({ kind: OperandKind.xmm, size: 16, register });
export const mmx = (register: number): RegisterOperand => ({ kind: OperandKind.mmx, size: 8, register });
export const gpr = (register: number, size: number): RegisterOperand => ({ kind: OperandKind.gpr, size, register });
export const st = (register: number): RegisterOperand => ({ kind: OperandKind.st, size: 10, register });
export const immediate: RegisterOperand = { kind: OperandKind.immediate, size: 1, register: 0 };

export class Bench {
  readonly memory = new WebAssembly.Memory({ initial: 4, maximum: 4 });
  readonly view = new DataView(this.memory.buffer);
  readonly sse: SseUnit = createSseUnit(this.view);
  readonly x87: X87Unit = createX87Unit(this.view);
  readonly calls = new Map<HostFunction, number>();
  readonly #handlers = new Map<string, (state: number, record: number) => number>();

  constructor() {
    this.mxcsr = 0x1f80;
    this.set32(State.cr4, 0x600);
    this.x87.initialise(STATE + State.x87);
  }

  get32(field: number): number {
    return this.view.getUint32(STATE + field, true);
  }

  set32(field: number, value: number): void {
    this.view.setUint32(STATE + field, value, true);
  }

  get mxcsr(): number {
    return this.get32(State.mxcsr);
  }

  set mxcsr(value: number) {
    this.set32(State.mxcsr, value);
  }

  double(register: number, lane = 0): number {
    return this.view.getFloat64(STATE + State.xmm + register * 16 + lane * 8, true);
  }

  setDouble(register: number, value: number, lane = 0): void {
    this.view.setFloat64(STATE + State.xmm + register * 16 + lane * 8, value, true);
  }

  bytes(field: number, count: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, STATE + field, count);
  }

  /** 0, or the vector of the exception that the instruction raised. */
  execute(operation: string, operands: readonly RegisterOperand[], immediateByte = 0): number {
    const handler = this.#handlerFor(operation, operands);
    const field = ({ kind, register }: RegisterOperand): number =>
      kind === OperandKind.xmm
        ? State.xmm + register * 16
        : kind === OperandKind.mmx
          ? State.x87 + register * 16
          : kind === OperandKind.gpr
            ? State.registers + register * 8
            : register;
    for (const [index, place] of [RecordField.first, RecordField.second].entries()) {
      const operand = operands[index];
      if (operand) this.view.setUint16(RECORD + place, field(operand), true);
    }
    this.view.setUint32(RECORD + RecordField.immediate, immediateByte, true);
    return handler(STATE, RECORD) === 0 ? 0 : this.get32(State.exitDetail);
  }

  /** What the exact unit makes of an operation on two registers: 16 bytes of result and MXCSR, or null for #XM. */
  exactly(operation: number, a: number, b: number, immediateByte = 0): { result: Uint8Array; mxcsr: number } | null {
    const address = (register: number) => STATE + State.xmm + register * 16;
    const target = RECORD + 0x100;
    const answer = this.sse.execute(operation, this.mxcsr, target, address(a), address(b), immediateByte);
    if ((answer & 0x1_0000) !== 0) return null;
    return {
      result: new Uint8Array(this.memory.buffer, target, 16).slice(),
      mxcsr: (this.mxcsr & ~0x3f) | (answer & 0x3f),
    };
  }

  #handlerFor(operation: string, operands: readonly OperandShape[]): (state: number, record: number) => number {
    const key = `${operation} ${operands.map(({ kind, size }) => `${kind}:${size}`).join(' ')}`;
    const known = this.#handlers.get(key);
    if (known) return known;
    const semantics = VECTOR.get(operation);
    if (!semantics) throw new Error(`${operation} has no meaning`);
    const module = new ModuleBuilder(4);
    const names = Object.keys(HOST_FUNCTIONS) as HostFunction[];
    const host = Object.fromEntries(
      names.map((name) => {
        const parameters = new Array<'i32'>(HOST_FUNCTIONS[name]).fill('i32');
        return [name, module.importFunction(name, { parameters, result: 'i32' })];
      }),
    ) as Record<HostFunction, number>;
    const flags = module.function({ parameters: ['i32'], result: 'i32' });
    emitFlags(flags.builder);
    flags.builder.unreachable();
    const carry = module.function({ parameters: ['i32'], result: 'i32' });
    emitCarry(carry.builder);
    carry.builder.unreachable();
    const { builder: fn } = module.function({ parameters: ['i32', 'i32'], result: 'i32' }, 'handler');
    const shape: Shape = {
      operation,
      operandSize: 4,
      addressSize: 8,
      long: true,
      flat: false,
      memory: 'none',
      operands: operands.map(({ kind, size }) => ({ kind, size })),
      repeat: 'none',
    };
    const elsewhere = () => fn.unreachable();
    const context = new RecordContext(
      fn,
      shape,
      fn.parameter(0, 'i32'),
      fn.parameter(1, 'i32'),
      {
        next: () => fn.return(i32(0)),
        leave: (kind) => fn.return(kind),
        leaveAfter: (kind) => fn.return(sub(i32(0), kind)),
        branch: elsewhere,
        jump: elsewhere,
      },
      { host, flags: flags.index, carry: carry.index },
      64,
    );
    semantics(context);
    context.done();
    fn.unreachable();
    const instance = new WebAssembly.Instance(new WebAssembly.Module(module.build()), {
      host: { memory: this.memory, ...this.#imports() },
    });
    const handler = instance.exports.handler as (state: number, record: number) => number;
    this.#handlers.set(key, handler);
    return handler;
  }

  #imports(): Record<string, (...operands: number[]) => number> {
    const helpers = createHelpers(this.view, this.x87);
    const compareStrings = createStringComparison(this.memory);
    const functions: Partial<Record<HostFunction, (...operands: number[]) => number>> = {
      sse: (_state, operation, target, a, b, value) =>
        this.sse.execute(operation as number, this.mxcsr, target as number, a as number, b as number, value as number),
      x87: (state, operation, i, operand) =>
        this.x87.execute(operation as number, (state as number) + State.x87, i as number, operand as number),
      compareStrings: (state) => compareStrings(state as number),
      helper: (state, operation) => helpers(state as number, operation as HelperOperation),
    };
    return Object.fromEntries(
      (Object.keys(HOST_FUNCTIONS) as HostFunction[]).map((name) => [
        name,
        (...operands: number[]): number => {
          this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
          const body = functions[name];
          if (!body) throw new Error(`${name} was called`);
          return body(...operands);
        },
      ]),
    );
  }
}
