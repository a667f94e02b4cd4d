import {
  add,
  and,
  type Expression,
  eqz,
  extendS,
  extendU,
  geU,
  gtS,
  type I32,
  type I64,
  i32,
  i64,
  leS,
  ltU,
  ne,
  select,
  shl,
  shrU,
  signExtend,
  store64,
  storeInteger,
  sub,
  wrap,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Flag } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import type { Context, Semantics } from './context.ts';
import { sizeShift } from './operand-size.ts';

const RAX = 0;
const RCX = 1;
const RSI = 6;
const RDI = 7;

/** +size, or −size when DF is set. */
function stride(c: Context): I64 {
  const size = c.shape.operandSize;
  return c.let(select(and(c.otherFlags(), i32(Flag.direction)), i64(-size), i64(size)));
}

function offsetOf(c: Context, register: number): I64 {
  return c.register(register, c.shape.addressSize);
}

function source(c: Context): I64 {
  const size = c.shape.operandSize;
  return c.let(c.load(size, c.let(c.linear(c.let(offsetOf(c, RSI)), size, false)), true));
}

function destinationAddress(c: Context, write: boolean): I64 {
  return c.let(c.linear(c.let(offsetOf(c, RDI)), c.shape.operandSize, write, SegmentRegister.es));
}

function advance(c: Context, register: number, by: I64): void {
  const size = c.shape.addressSize;
  c.setRegister(register, size, add(c.register(register, size), by));
}

/** One element; commits registers after its last access. */
type Step = (c: Context, by: I64) => void;

const moveStep: Step = (c, by) => {
  const value = source(c);
  c.store(c.shape.operandSize, destinationAddress(c, true), value);
  advance(c, RSI, by);
  advance(c, RDI, by);
};
const storeStep: Step = (c, by) => {
  c.store(c.shape.operandSize, destinationAddress(c, true), c.register(RAX, c.shape.operandSize));
  advance(c, RDI, by);
};
const loadStep: Step = (c, by) => {
  const value = source(c);
  c.setRegister(RAX, c.shape.operandSize, value);
  advance(c, RSI, by);
};
const scanStep: Step = (c, by) => {
  const size = c.shape.operandSize;
  const b = c.let(c.load(size, destinationAddress(c, false), true));
  const a = c.let(c.register(RAX, size, true));
  c.setFlagsSub(a, b, c.let(signExtend(sub(a, b), size)));
  advance(c, RDI, by);
};
const compareStep: Step = (c, by) => {
  const size = c.shape.operandSize;
  // The manual leaves the order of the loads open; this is the processors', who treat REPE CMPSB differently.
  const first = c.shape.repeat === 'equal' && size === 1 ? source(c) : undefined;
  const b = c.let(c.load(size, destinationAddress(c, false), true));
  const a = first ?? source(c);
  c.setFlagsSub(a, b, c.let(signExtend(sub(a, b), size)));
  advance(c, RSI, by);
  advance(c, RDI, by);
};

/**
 * Moves many elements at once when nothing can fault: upward, both pages cached, no overlap that a copy in element
 * order would repeat. Runs in front of the element loop, which takes what is left (at least nothing).
 */
type Bulk = (c: Context, count: Expression<'i64'>) => I64;

/**
 * Elements from the register's offset that lie in one page and need no check of a segment. Outside 64-bit code offsets
 * wrap, which they do only where a page of offsets ends.
 */
function elementsAt(c: Context, register: number, linear: I64, segment?: SegmentRegister): I64 {
  const elements = room(c, linear);
  if (c.shape.long) return elements;
  return select(c.isFlat(segment), least(c, elements, room(c, offsetOf(c, register))), i64(0));
}

/** Elements that fit between an address and the end of its page. */
function room(c: Context, address: I64): I64 {
  return shrU(sub(i64(4096), and(address, i64(4095))), i64(sizeShift(c.shape.operandSize)));
}

function least(c: Context, a: I64, b: I64): I64 {
  const left = c.let(a);
  const right = c.let(b);
  return c.let(select(ltU(left, right), left, right));
}

function bytesOf(c: Context, elements: I64): I32 {
  return wrap(shl(elements, i64(sizeShift(c.shape.operandSize))));
}

const bulkMove: Bulk = (c, count) => {
  const from = c.let(c.flatLinear(c.let(offsetOf(c, RSI))));
  const to = c.let(c.flatLinear(c.let(offsetOf(c, RDI)), SegmentRegister.es));
  const there = c.let(elementsAt(c, RDI, to, SegmentRegister.es));
  const elements = least(c, least(c, count, elementsAt(c, RSI, from)), there);
  const done = c.fn.local('i64');
  c.fn.set(done, i64(0));
  const length = c.let(bytesOf(c, elements));
  const source = c.let(c.pointer(from, false));
  const target = c.let(c.pointer(to, true));
  // Pages of one frame may be mapped twice, so host addresses decide about overlap.
  const apart = geU(sub(target, source), length);
  c.fn.if(and(and(ne(source, i32(0)), ne(target, i32(0))), apart), () => {
    c.fn.ifSeldom(length, () => c.fn.copyMemory(target, source, length));
    c.fn.set(done, elements);
  });
  return done;
};

const bulkStore: Bulk = (c, count) => {
  const size = c.shape.operandSize;
  const to = c.let(c.flatLinear(c.let(offsetOf(c, RDI)), SegmentRegister.es));
  const elements = least(c, count, elementsAt(c, RDI, to, SegmentRegister.es));
  const done = c.fn.local('i64');
  c.fn.set(done, i64(0));
  const target = c.let(c.pointer(to, true));
  c.fn.if(ne(target, i32(0)), () => {
    if (size === 1) {
      c.fn.ifSeldom(wrap(elements), () => c.fn.fillMemory(target, wrap(c.register(RAX, 1)), wrap(elements)));
    } else {
      const value = c.let(c.register(RAX, size));
      const end = c.let(add(target, bytesOf(c, elements)));
      const cursor = c.fn.local('i32');
      c.fn.set(cursor, target);
      c.fn.block((full) => {
        c.fn.loop((next) => {
          c.fn.branchIf(geU(cursor, end), full);
          c.fn.store(size === 8 ? store64(cursor, value) : storeInteger(size, cursor, value));
          c.fn.set(cursor, add(cursor, i32(size)));
          c.fn.branch(next);
        });
      });
    }
    c.fn.set(done, elements);
  });
  return done;
};

/** Longest run of elements that one bulk step takes, so that a step ends within a budget. */
const BULK_LIMIT = 4096;

/**
 * The REP loop. Each element counts as one instruction of the budget; the record itself counts as the last one. When
 * the budget ends, RIP stays at the instruction and RCX, RSI, RDI tell what is left. An instruction that overwrites itself
 * is fetched again at once, as if an interrupt came there: it must not depend on budgets when that is seen.
 */
function repeated(stepOnce: Step, until: 'none' | 'compare', bulk?: Bulk, moves: readonly number[] = []): Semantics {
  const stores = bulk !== undefined;
  return (c) => {
    const { fn } = c;
    if (c.shape.repeat === 'none') {
      stepOnce(c, stride(c));
      return;
    }
    const size = c.shape.addressSize;
    const by = stride(c);
    fn.block((finished) => {
      fn.branchIf(eqz(c.register(RCX, size)), finished);
      fn.loop((next) => {
        if (bulk) {
          const count = c.let(c.register(RCX, size));
          const forward = gtS(wrap(by), i32(0));
          const budget = c.let(c.budget());
          fn.if(and(and(forward, gtS(budget, i32(1))), geU(count, i64(8))), () => {
            // The element after the bulk takes the last step of the budget.
            const allowed = least(c, extendS(sub(budget, i32(1))), i64(BULK_LIMIT));
            const done = bulk(c, least(c, sub(count, i64(1)), allowed));
            // A step that moves nothing must not even clear the upper halves of 32-bit counters.
            fn.if(ne(done, i64(0)), () => {
              const amount = c.let(mulSize(c, done));
              for (const register of moves) advance(c, register, amount);
              c.setRegister(RCX, size, sub(count, done));
              c.countSteps(wrap(done));
            });
          });
        }
        stepOnce(c, by);
        const left = c.let(zeroExtend(sub(c.register(RCX, size), i64(1)), size));
        c.setRegister(RCX, size, left);
        fn.branchIf(eqz(left), finished);
        if (until === 'compare') {
          fn.branchIf(c.condition(c.shape.repeat === 'equal' ? 'ne' : 'e'), finished);
        }
        c.countSteps(i32(1));
        fn.if(leS(c.budget(), i32(0)), () => c.repeatLater());
        if (stores) fn.if(c.isOverwritten(), () => c.repeatLater());
        fn.branch(next);
      });
    });
  };
}

function mulSize(c: Context, elements: I64): I64 {
  return extendU(bytesOf(c, elements));
}

export const STRING: readonly (readonly [string, Semantics])[] = [
  ['movs', repeated(moveStep, 'none', bulkMove, [RSI, RDI])],
  ['stos', repeated(storeStep, 'none', bulkStore, [RDI])],
  ['lods', repeated(loadStep, 'none')],
  ['scas', repeated(scanStep, 'compare')],
  ['cmps', repeated(compareStep, 'compare')],
];
