import { type Expression, type I32, type Relative, type Store, TYPE_CODES, type ValueType } from './expression.ts';
import { ByteWriter } from './writer.ts';

export interface Signature {
  readonly parameters: readonly ValueType[];
  readonly result: ValueType | null;
}

/** A structured label; `depth` counts enclosing constructs at its opening. */
export interface Label {
  readonly depth: number;
}

export class Local<T extends ValueType = ValueType> implements Expression<T> {
  readonly type: T;
  readonly index: number;
  readonly relative: Relative | undefined;

  constructor(type: T, index: number, relative?: Relative) {
    this.type = type;
    this.index = index;
    this.relative = relative;
  }

  emit(code: ByteWriter): void {
    code.byte(0x20);
    code.unsigned(this.index);
  }
}

/** A number in a function that its modules fill in. */
interface Blank {
  /** Where its bytes stand. */
  readonly offset: number;
  readonly name: number;
}

/** A function as modules contain it. */
export interface Body {
  /** Declarations of locals and code. */
  readonly bytes: Uint8Array;
  /** Offsets in `bytes` of conditions that are seldom true, ascending. */
  readonly seldom: Uint32Array;
  /** Offset and name of each blank, in turn: as objects those of all regions would take megabytes. */
  readonly blanks: Uint32Array;
}

/** A number of 32 bits in 5 bytes, whatever it is: signed, and unsigned when it is below 2^31. */
function fixedLength(value: number): number[] {
  return [0, 7, 14, 21, 28].map((shift) => ((value >> shift) & 0x7f) | (shift < 28 ? 0x80 : 0));
}

/** Builds the body of one function. Statements are emitted at once, in order. */
export class FunctionBuilder {
  readonly signature: Signature;
  code = new ByteWriter();
  /** Some condition was known, so that other constants might have led to other code. */
  decidedByConstant = false;
  /** Offsets in `code` of conditions that are seldom true, ascending. */
  readonly #seldom: number[] = [];
  /** By their offsets in `code`. */
  readonly #blanks: Blank[] = [];
  /** Places that code is still to come to, ascending. */
  readonly #gaps: { readonly offset: number; readonly emit: () => void }[] = [];
  readonly #types: ValueType[] = [];
  readonly #free: Record<ValueType, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] };
  #scope: Local[] | null = null;
  #depth = 0;

  constructor(signature: Signature) {
    this.signature = signature;
  }

  /** Constructs that are open: 0 outside all of them. */
  get depth(): number {
    return this.#depth;
  }

  /** Keeps a place for code that is only known once the rest of the body is there; it may not branch. */
  later(emit: () => void): void {
    this.#gaps.push({ offset: this.code.length, emit });
  }

  /** A number that is different in each module; `name` tells which. Not in code that comes `later`. */
  blank(name: number): I32 {
    return {
      type: 'i32',
      emit: (code) => {
        code.byte(0x41);
        this.#leaveBlank(name);
      },
    };
  }

  #leaveBlank(name: number): void {
    this.#blanks.push({ offset: this.code.length, name });
    this.code.bytes(fixedLength(0));
  }

  parameter<T extends ValueType>(index: number, type: T): Local<T> {
    return new Local(type, index);
  }

  /** A local variable; taken back when the surrounding `scope` ends. */
  local<T extends ValueType>(type: T): Local<T> {
    const reused = this.#free[type].pop();
    const index = reused ?? this.signature.parameters.length + this.#types.push(type) - 1;
    const local = new Local(type, index);
    this.#scope?.push(local);
    return local;
  }

  /** A local variable that no `scope` takes back. */
  permanentLocal<T extends ValueType>(type: T): Local<T> {
    return new Local(type, this.signature.parameters.length + this.#types.push(type) - 1);
  }

  /** Locals made by `body` are free for reuse afterwards. */
  scope(body: () => void): void {
    const outer = this.#scope;
    const mine: Local[] = [];
    this.#scope = mine;
    body();
    this.#scope = outer;
    for (const local of mine) this.#free[local.type].push(local.index);
  }

  set<T extends ValueType>(local: Local<T>, value: Expression<T>): void {
    value.emit(this.code);
    this.code.byte(0x21);
    this.code.unsigned(local.index);
  }

  /** Evaluates once, here; literals and locals made by `let` stay what they are. */
  let<T extends ValueType>(value: Expression<T>): Expression<T> {
    if (value.literal !== undefined) return value;
    const local = this.local(value.type);
    this.set(local, value);
    return value.relative ? new Local(value.type, local.index, value.relative) : local;
  }

  /** As `let` for a call, with its code out of the way as by `ifSeldom`. @param always any value that is never 0 */
  letAside<T extends ValueType>(call: Expression<T>, always: I32): Expression<T> {
    const result = this.local(call.type);
    this.ifSeldom(
      always,
      () => this.set(result, call),
      () => this.unreachable(),
    );
    return result;
  }

  store(store: Store): void {
    store.emit(this.code);
  }

  drop(value: Expression): void {
    value.emit(this.code);
    this.code.byte(0x1a);
  }

  /** A call without result. */
  call(functionIndex: number, ...operands: Expression[]): void {
    for (const operand of operands) operand.emit(this.code);
    this.code.byte(0x10);
    this.code.unsigned(functionIndex);
  }

  /**
   * Leaves by a call of a function with the same signature, in whose place nothing of this one stays on the stack.
   * @param name of the blank that the function's index is
   */
  returnCall(name: number, ...operands: Expression[]): void {
    for (const operand of operands) operand.emit(this.code);
    this.code.byte(0x12);
    this.#leaveBlank(name);
  }

  /** The value of a call of a function whose index is a blank. */
  callBlank<T extends ValueType>(type: T, name: number, ...operands: Expression[]): Expression<T> {
    return {
      type,
      emit: (code) => {
        for (const operand of operands) operand.emit(code);
        code.byte(0x10);
        this.#leaveBlank(name);
      },
    };
  }

  /** A condition that is known leaves only one side, without a construct around it. */
  if(condition: I32, then: () => void, otherwise?: () => void): void {
    this.#choose(condition, then, otherwise, false);
  }

  /**
   * An `if` whose condition is seldom true, which engines are told (the WebAssembly branch hints): they lay the code out
   * of the way, and registers that live across its calls need not be saved by the code around it.
   */
  ifSeldom(condition: I32, then: () => void, otherwise?: () => void): void {
    this.#choose(condition, then, otherwise, true);
  }

  #choose(condition: I32, then: () => void, otherwise: (() => void) | undefined, seldom: boolean): void {
    if (condition.literal !== undefined) {
      this.decidedByConstant = true;
      if (condition.literal !== 0) then();
      else otherwise?.();
      return;
    }
    condition.emit(this.code);
    if (seldom) this.#seldom.push(this.code.length);
    this.code.bytes([0x04, 0x40]);
    this.#depth++;
    then();
    if (otherwise) {
      this.code.byte(0x05);
      otherwise();
    }
    this.#depth--;
    this.code.byte(0x0b);
  }

  block(body: (label: Label) => void): void {
    this.open(0x02);
    body({ depth: this.#depth });
    this.close();
  }

  loop(body: (label: Label) => void): void {
    this.open(0x03);
    body({ depth: this.#depth });
    this.close();
  }

  /** Opens a block (0x02) or loop (0x03) by hand, for nests that follow no call structure. */
  open(opcode: 0x02 | 0x03): Label {
    this.code.bytes([opcode, 0x40]);
    this.#depth++;
    return { depth: this.#depth };
  }

  close(): void {
    this.#depth--;
    this.code.byte(0x0b);
  }

  branch(label: Label): void {
    this.code.byte(0x0c);
    this.code.unsigned(this.#depth - label.depth);
  }

  branchIf(condition: I32, label: Label): void {
    condition.emit(this.code);
    this.code.byte(0x0d);
    this.code.unsigned(this.#depth - label.depth);
  }

  /** A branch that is seldom taken; see `ifSeldom`. */
  branchIfSeldom(condition: I32, label: Label): void {
    condition.emit(this.code);
    this.#seldom.push(this.code.length);
    this.code.byte(0x0d);
    this.code.unsigned(this.#depth - label.depth);
  }

  branchTable(index: I32, labels: readonly Label[], otherwise: Label): void {
    index.emit(this.code);
    this.code.byte(0x0e);
    this.code.unsigned(labels.length);
    for (const label of labels) this.code.unsigned(this.#depth - label.depth);
    this.code.unsigned(this.#depth - otherwise.depth);
  }

  return(value?: Expression): void {
    value?.emit(this.code);
    this.code.byte(0x0f);
  }

  unreachable(): void {
    this.code.byte(0x00);
  }

  /** memory.copy: overlapping areas are handled as memmove does. */
  copyMemory(target: I32, source: I32, length: I32): void {
    target.emit(this.code);
    source.emit(this.code);
    length.emit(this.code);
    this.code.bytes([0xfc, 0x0a, 0x00, 0x00]);
  }

  fillMemory(target: I32, byte: I32, length: I32): void {
    target.emit(this.code);
    byte.emit(this.code);
    length.emit(this.code);
    this.code.bytes([0xfc, 0x0b, 0x00]);
  }

  /** The end of the builder. */
  body(): Body {
    const { code } = this;
    const inserted = new ByteWriter();
    this.code = inserted;
    const ends = this.#gaps.map(({ emit }) => {
      emit();
      return inserted.length;
    });
    this.code = code;
    inserted.byte(0x0b);
    const out = new ByteWriter();
    out.unsigned(this.#types.length);
    for (const type of this.#types) {
      out.unsigned(1);
      out.byte(TYPE_CODES[type]);
    }
    // Between gaps the code as it is, in each gap what belongs there, and the `end` behind the last one.
    const hints: number[] = [];
    const blanks: number[] = [];
    let hint = 0;
    let blank = 0;
    let copied = 0;
    let filled = 0;
    for (let gap = 0; gap <= this.#gaps.length; gap++) {
      const offset = this.#gaps[gap]?.offset ?? code.length;
      const moved = out.length - copied;
      for (let at = this.#seldom[hint]; at !== undefined && at < offset; at = this.#seldom[++hint])
        hints.push(at + moved);
      for (let at = this.#blanks[blank]; at && at.offset < offset; at = this.#blanks[++blank]) {
        blanks.push(at.offset + moved, at.name);
      }
      out.copy(code, copied, offset);
      const end = ends[gap] ?? inserted.length;
      out.copy(inserted, filled, end);
      copied = offset;
      filled = end;
    }
    const bytes = out.result().slice();
    for (const writer of [code, inserted, out]) writer.release();
    return { bytes, seldom: Uint32Array.from(hints), blanks: Uint32Array.from(blanks) };
  }
}

/** The value of a call. */
export function callOf<T extends ValueType>(type: T, functionIndex: number, ...operands: Expression[]): Expression<T> {
  return {
    type,
    emit: (code) => {
      for (const operand of operands) operand.emit(code);
      code.byte(0x10);
      code.unsigned(functionIndex);
    },
  };
}

/** The value of an indirect call through a table. */
export function callIndirectOf<T extends ValueType>(
  type: T,
  table: number,
  typeIndex: number,
  slot: I32,
  ...operands: Expression[]
): Expression<T> {
  return {
    type,
    emit: (code) => {
      for (const operand of operands) operand.emit(code);
      slot.emit(code);
      code.byte(0x11);
      code.unsigned(typeIndex);
      code.unsigned(table);
    },
  };
}

/** How a module's functions are to be compiled: a byte of V8's section `compilationHints`. */
export const enum CompilationHint {
  /** Each when it is first called. */
  lazily = 0x01,
  /** At once, and by the optimizing tier: the code was hot before. */
  atOnceAndWell = 0x2a,
}

interface BuiltFunction {
  readonly body: () => Body;
  readonly type: number;
  readonly name: string | null;
  /** What stands in the blanks. */
  readonly fill: ((blank: number) => number) | undefined;
}

/** Assembles a module that imports one memory, tables and functions. */
export class ModuleBuilder {
  readonly #signatures: Signature[] = [];
  readonly #imports: { name: string; type: number }[] = [];
  readonly #functions: BuiltFunction[] = [];
  readonly #memoryPages: number;
  readonly #tables: { name: string; minimum: number }[] = [];
  /** For engines that heed it; the others find out what is hot, and most of them compile lazily. */
  hint: CompilationHint | undefined;

  /** @param memoryPages exact size of the imported memory, in 64 KiB pages */
  constructor(memoryPages: number) {
    this.#memoryPages = memoryPages;
  }

  type(signature: Signature): number {
    const found = this.#signatures.findIndex(
      (other) => other.result === signature.result && other.parameters.join() === signature.parameters.join(),
    );
    return found >= 0 ? found : this.#signatures.push(signature) - 1;
  }

  /** The index of the table. */
  importTable(name: string, minimum: number): number {
    return this.#tables.push({ name, minimum }) - 1;
  }

  /** All imports come before the first function. */
  importFunction(name: string, signature: Signature): number {
    if (this.#functions.length > 0) throw new Error('imports come first');
    return this.#imports.push({ name, type: this.type(signature) }) - 1;
  }

  /** Declares a function; its body may be built later. Exported when named. */
  function(signature: Signature, name: string | null = null): { builder: FunctionBuilder; index: number } {
    const builder = new FunctionBuilder(signature);
    return { builder, index: this.#add(signature, name, () => builder.body()) };
  }

  /** Adds a function that was built before. @param fill what stands in its blanks here */
  builtFunction(signature: Signature, name: string, body: Body, fill: (blank: number) => number): number {
    return this.#add(signature, name, () => body, fill);
  }

  #add(signature: Signature, name: string | null, body: () => Body, fill?: (blank: number) => number): number {
    return this.#imports.length + this.#functions.push({ body, type: this.type(signature), name, fill }) - 1;
  }

  build(): Uint8Array<ArrayBuffer> {
    const out = this.write();
    const wasm = out.result().slice();
    out.release();
    return wasm;
  }

  /** For who does not keep the bytes: they stand in a writer, which is to be released. */
  write(): ByteWriter {
    const out = new ByteWriter();
    out.bytes([0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00]);
    section(out, 1, (body) => {
      body.unsigned(this.#signatures.length);
      for (const { parameters, result } of this.#signatures) {
        body.byte(0x60);
        body.unsigned(parameters.length);
        for (const parameter of parameters) body.byte(TYPE_CODES[parameter]);
        body.unsigned(result === null ? 0 : 1);
        if (result !== null) body.byte(TYPE_CODES[result]);
      }
    });
    section(out, 2, (body) => {
      body.unsigned(1 + this.#tables.length + this.#imports.length);
      body.string('host');
      body.string('memory');
      body.bytes([0x02, 0x01]);
      body.unsigned(this.#memoryPages);
      body.unsigned(this.#memoryPages);
      for (const { name, minimum } of this.#tables) {
        body.string('host');
        body.string(name);
        body.bytes([0x01, 0x70, 0x00]);
        body.unsigned(minimum);
      }
      for (const { name, type } of this.#imports) {
        body.string('host');
        body.string(name);
        body.byte(0x00);
        body.unsigned(type);
      }
    });
    section(out, 3, (body) => {
      body.unsigned(this.#functions.length);
      for (const { type } of this.#functions) body.unsigned(type);
    });
    section(out, 7, (body) => {
      const named = this.#functions.flatMap(({ name }, index) => (name === null ? [] : [{ name, index }]));
      body.unsigned(named.length);
      for (const { name, index } of named) {
        body.string(name);
        body.byte(0x00);
        body.unsigned(this.#imports.length + index);
      }
    });
    const { hint } = this;
    if (hint !== undefined) {
      section(out, 0, (hints) => {
        hints.string('compilationHints');
        hints.unsigned(this.#functions.length);
        for (const _ of this.#functions) hints.byte(hint);
      });
    }
    const bodies = this.#functions.map(({ body }) => body());
    section(out, 0, (hints) => {
      hints.string('metadata.code.branch_hint');
      hints.unsigned(bodies.length);
      for (const [index, { seldom }] of bodies.entries()) {
        hints.unsigned(this.#imports.length + index);
        hints.unsigned(seldom.length);
        for (const offset of seldom) {
          hints.unsigned(offset);
          // One byte follows: 0 for unlikely.
          hints.unsigned(1);
          hints.byte(0);
        }
      }
    });
    section(out, 10, (body) => {
      body.unsigned(bodies.length);
      for (const [index, { bytes, blanks }] of bodies.entries()) {
        body.unsigned(bytes.length);
        const start = body.length;
        body.bytes(bytes);
        const { fill } = this.#functions[index] as BuiltFunction;
        for (let blank = 0; fill && blank < blanks.length; blank += 2) {
          const [offset = 0, name = 0] = blanks.subarray(blank, blank + 2);
          body.overwrite(start + offset, fixedLength(fill(name)));
        }
      }
    });
    return out;
  }
}

function section(out: ByteWriter, id: number, fill: (body: ByteWriter) => void): void {
  const body = new ByteWriter();
  fill(body);
  out.byte(id);
  out.unsigned(body.length);
  out.bytes(body.result());
  body.release();
}
