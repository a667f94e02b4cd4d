import {
  add,
  and,
  eqz,
  extendU,
  type I64,
  i32,
  i64,
  leU,
  load32,
  ltU,
  or,
  select,
  shl,
  shrU,
  sub,
  wrap,
  xor,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Flag, Vector } from '../../x86/registers.ts';
import { OperandKind, SegmentRegister } from '../decode/instruction.ts';
import { Exit } from '../exits.ts';
import { State } from '../state.ts';
import { CONDITIONS, type Context, type Semantics } from './context.ts';

const RAX = 0;
const RSP = 4;
const RBP = 5;
const RBX = 3;

const move: Semantics = (c) => c.write(0, c.read(1));
const moveSigned: Semantics = (c) => c.write(0, c.readSigned(1));
const loadAddress: Semantics = (c) => c.write(0, c.effectiveOffset());

const exchange: Semantics = (c) => {
  const other = c.let(c.read(1));
  c.update(
    0,
    () => other,
    (old) => c.write(1, old),
  );
};

/** The stack pointer as an offset into SS: the whole register in long code, else its low 32 or 16 bits. */
function stackPointer(c: Context): I64 {
  const value = c.register(RSP, 8);
  if (c.shape.long) return value;
  return and(value, c.stackMask());
}

function setStackPointer(c: Context, value: I64): void {
  if (c.shape.long) {
    c.setRegister(RSP, 8, value);
    return;
  }
  if (c.shape.flat) {
    c.setRegister(RSP, 4, value);
    return;
  }
  const mask = c.let(c.stackMask());
  const kept = and(c.register(RSP, 8), sub(i64(-1), mask));
  c.setRegister(RSP, 8, or(kept, and(value, mask)));
}

/** Offset after moving the stack pointer, masked to the stack's size. */
function moved(c: Context, pointer: I64, by: number): I64 {
  const value = add(pointer, i64(by));
  return c.shape.long ? value : and(value, c.stackMask());
}

/** Stores below the stack pointer, then moves it. */
export function push(c: Context, bytes: number, value: I64): void {
  const kept = c.let(value);
  const top = c.let(moved(c, stackPointer(c), -bytes));
  c.store(bytes, c.linear(top, bytes, true, SegmentRegister.ss), kept);
  setStackPointer(c, top);
}

/** Loads from the top of the stack; the pointer is moved by `dropStack` once nothing can fault any more. */
export function top(c: Context, bytes: number, depth = 0): I64 {
  const pointer = depth === 0 ? stackPointer(c) : moved(c, stackPointer(c), depth);
  return c.let(c.load(bytes, c.linear(pointer, bytes, false, SegmentRegister.ss)));
}

export function dropStack(c: Context, by: number | I64): void {
  const pointer = stackPointer(c);
  setStackPointer(c, c.let(add(pointer, typeof by === 'number' ? i64(by) : by)));
}

const pushOperand: Semantics = (c) => {
  const size = c.shape.operandSize;
  const value = c.shape.operands[0]?.kind === OperandKind.immediate ? c.immediate() : c.read(0);
  push(c, size, value);
};

const popOperand: Semantics = (c) => {
  const size = c.shape.operandSize;
  const value = top(c, size);
  if (c.shape.memory === 'none') {
    dropStack(c, size);
    c.write(0, value);
    return;
  }
  // The address is formed with the stack pointer already moved; a fault of the store must undo that.
  const before = c.let(c.register(RSP, 8));
  dropStack(c, size);
  const offset = c.let(c.effectiveOffset());
  const after = c.let(c.register(RSP, 8));
  c.setRegister(RSP, 8, before);
  c.store(size, c.linear(offset, size, true), value);
  c.setRegister(RSP, 8, after);
};

/** Stores before a fault stay; they lie below the stack pointer, and the instruction makes them again. */
const pushAll: Semantics = (c) => {
  const size = c.shape.operandSize;
  const pointer = c.let(stackPointer(c));
  for (let register = 0; register < 8; register++) {
    const slot = c.let(moved(c, pointer, -(register + 1) * size));
    c.store(size, c.linear(slot, size, true, SegmentRegister.ss), c.register(register, size));
  }
  setStackPointer(c, c.let(moved(c, pointer, -8 * size)));
};

/** As processors do, registers before a fault are loaded already; RSP moves at the end. */
const popAll: Semantics = (c) => {
  const size = c.shape.operandSize;
  for (let register = 7; register >= 0; register--) {
    const value = top(c, size, (7 - register) * size);
    if (register !== RSP) c.setRegister(register, size, value);
  }
  dropStack(c, 8 * size);
};

/** ENTER with nesting level 0–31. Stores before a fault stay, as with PUSHA. */
const enter: Semantics = (c) => {
  const size = c.shape.operandSize;
  const allocation = c.let(and(c.immediate(), i64(0xffff)));
  const level = c.let(and(c.secondImmediate(), i32(31)));
  const frame = c.let(moved(c, stackPointer(c), -size));
  const pointer = c.fn.local('i64');
  const base = c.fn.local('i64');
  const count = c.fn.local('i32');
  const mask = c.shape.long ? i64(-1) : c.let(c.stackMask());
  c.fn.set(pointer, frame);
  c.store(size, c.linear(frame, size, true, SegmentRegister.ss), c.register(RBP, size));
  c.fn.if(level, () => {
    c.fn.set(base, c.register(RBP, 8));
    c.fn.set(count, sub(level, i32(1)));
    c.fn.block((done) => {
      c.fn.loop((next) => {
        c.fn.branchIf(eqz(count), done);
        c.fn.set(base, sub(base, i64(size)));
        c.fn.set(pointer, and(sub(pointer, i64(size)), mask));
        const value = c.load(size, c.linear(c.let(and(base, mask)), size, false, SegmentRegister.ss));
        c.store(size, c.linear(pointer, size, true, SegmentRegister.ss), value);
        c.fn.set(count, sub(count, i32(1)));
        c.fn.branch(next);
      });
    });
    c.fn.set(pointer, and(sub(pointer, i64(size)), mask));
    c.store(size, c.linear(pointer, size, true, SegmentRegister.ss), frame);
  });
  // The stack must be writable where it ends up (SDM vol. 2A, ENTER).
  const end = c.let(and(sub(pointer, allocation), mask));
  c.probeWrite(c.linear(end, size, true, SegmentRegister.ss), size);
  c.setRegister(RBP, size, frame);
  setStackPointer(c, end);
};

const leave: Semantics = (c) => {
  const size = c.shape.operandSize;
  const base = c.let(c.shape.long ? c.register(RBP, 8) : and(c.register(RBP, 8), c.stackMask()));
  const value = c.let(c.load(size, c.linear(base, size, false, SegmentRegister.ss)));
  setStackPointer(c, c.let(add(base, i64(size))));
  c.setRegister(RBP, size, value);
};

/** A program in virtual-8086 mode uses PUSHF and POPF as far as its I/O privilege goes (SDM vol. 3B, 21.3.3). */
const requireFlagsPrivilege = (c: Context): void => {
  if (c.shape.long || c.shape.flat) return;
  const mode = and(c.otherFlags(), i32(Flag.virtual8086 | Flag.iopl));
  // Virtual-8086 mode with less than the highest I/O privilege.
  c.fn.if(ltU(sub(mode, i32(Flag.virtual8086)), i32(Flag.iopl)), () => c.raise(Vector.generalProtection));
};

/** Bits of RFLAGS that PUSHF shows; RF and VM read as zero. */
const pushFlags: Semantics = (c) => {
  requireFlagsPrivilege(c);
  const image = or(c.flags(), extendU(and(c.otherFlags(), i32(~(Flag.resume | Flag.virtual8086)))));
  push(c, c.shape.operandSize, image);
};

/**
 * POPF: arithmetic flags, TF, DF, NT, AC and ID change; IF only when CPL ≤ IOPL; IOPL only in ring 0. A trap flag that is
 * or gets set, an alignment check that changes, and interrupts switched on while one waits are the host's business.
 */
const popFlags: Semantics = (c) => {
  requireFlagsPrivilege(c);
  const size = c.shape.operandSize;
  const image = c.let(wrap(top(c, size)));
  const other = c.let(c.otherFlags());
  const accessChanges = size === 2 ? i32(0) : and(xor(image, other), i32(Flag.alignmentCheck));
  const trap = and(or(image, other), i32(Flag.trap));
  const waiting = select(load32(c.state, State.interruptWaiting), and(image, i32(Flag.interrupt)), i32(0));
  c.fn.if(or(or(trap, accessChanges), waiting), () => c.exit(Exit.system));
  const iopl = and(shrU(other, i32(Flag.ioplShift)), i32(3));
  const mayChangeInterrupt = c.let(leU(load32(c.state, State.cpl), iopl));
  const always = Flag.direction | Flag.nestedTask | (size === 2 ? 0 : Flag.alignmentCheck | Flag.identification);
  const kernel = select(load32(c.state, State.cpl), i32(0), i32(Flag.iopl));
  const mask = c.let(or(or(i32(always), kernel), select(mayChangeInterrupt, i32(Flag.interrupt), i32(0))));
  dropStack(c, size);
  c.setOtherFlags(or(and(other, sub(i32(-1), mask)), and(image, mask)));
  c.setFlagsExplicit(extendU(and(image, i32(0x8d5))));
};

const lahf: Semantics = (c) => {
  const bits = or(and(c.flags(), i64(0xd5)), i64(2));
  const kept = and(c.register(RAX, 2), i64(0xff));
  c.setRegister(RAX, 2, c.let(or(shl(bits, i64(8)), kept)));
};

const sahf: Semantics = (c) => {
  const image = and(shrU(c.register(RAX, 2), i64(8)), i64(0xd5));
  c.setFlagsExplicit(or(and(c.flags(), i64(0x800)), image));
};

const carryFlag =
  (change: (flags: I64) => I64): Semantics =>
  (c) =>
    c.setFlagsExplicit(change(c.let(c.flags())));

const directionFlag =
  (set: boolean): Semantics =>
  (c) => {
    const other = c.otherFlags();
    c.setOtherFlags(set ? or(other, i32(Flag.direction)) : and(other, i32(~Flag.direction)));
  };

const translateByte: Semantics = (c) => {
  const offset = add(c.register(RBX, 8), c.register(RAX, 1));
  const masked = c.shape.addressSize === 8 ? offset : zeroExtend(offset, c.shape.addressSize);
  c.setRegister(RAX, 1, c.let(c.load(1, c.linear(c.let(masked), 1, false))));
};

const salc: Semantics = (c) => c.setRegister(RAX, 1, sub(i64(0), c.carry()));
const nothing: Semantics = () => {};

const conditionalMoves = CONDITIONS.map((condition): [string, Semantics] => [
  `cmov${condition}`,
  (c) => {
    // The source is read, and may fault, either way; a 32-bit destination is always zero-extended.
    const source = c.let(c.read(1));
    const old = c.let(c.read(0));
    c.write(0, select(c.condition(condition), source, old));
  },
]);

const conditionalSets = CONDITIONS.map((condition): [string, Semantics] => [
  `set${condition}`,
  (c) => c.write(0, extendU(c.condition(condition))),
]);

/** A wide absolute address stands where the immediate is. */
export const INTEGER_MOVE: readonly (readonly [string, Semantics])[] = [
  ['mov', move],
  ['movnti', move],
  ['movzx', move],
  ['movsx', moveSigned],
  ['movsxd', moveSigned],
  ['lea', loadAddress],
  ['xchg', exchange],
  ['push', pushOperand],
  ['pop', popOperand],
  ['pusha', pushAll],
  ['popa', popAll],
  ['enter', enter],
  ['leave', leave],
  ['pushf', pushFlags],
  ['popf', popFlags],
  ['lahf', lahf],
  ['sahf', sahf],
  ['clc', carryFlag((flags) => and(flags, i64(~1)))],
  ['stc', carryFlag((flags) => or(flags, i64(1)))],
  ['cmc', carryFlag((flags) => sub(or(flags, i64(1)), and(flags, i64(1))))],
  ['cld', directionFlag(false)],
  ['std', directionFlag(true)],
  ['xlat', translateByte],
  ['salc', salc],
  ['nop', nothing],
  ['lfence', nothing],
  ['sfence', nothing],
  ['mfence', nothing],
  // Stores are seen by the next fetch in any case.
  ['serialize', nothing],
  ['prefetchw', nothing],
  ['prefetchnta', nothing],
  ['prefetcht0', nothing],
  ['prefetcht1', nothing],
  ['prefetcht2', nothing],
  ['clflush', (c) => void c.let(c.load(1, c.address(1, false)))],
  ...conditionalMoves,
  ...conditionalSets,
];
