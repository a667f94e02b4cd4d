import {
  add,
  and,
  eqz,
  gtS,
  type I64,
  i32,
  i64,
  load32,
  load64,
  loadInteger,
  ltS,
  ne,
  or,
  signExtend,
  store32,
  store64,
  sub,
  wrap,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Flag, Vector } from '../../x86/registers.ts';
import { OperandKind, SegmentRegister } from '../decode/instruction.ts';
import { Exit } from '../exits.ts';
import { State } from '../state.ts';
import { isNotCanonical } from './canonical.ts';
import { CONDITIONS, type Context, type Semantics } from './context.ts';
import { interruptReturn, systemCall, systemReturn } from './fast-calls.ts';
import { push } from './integer-move.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RSP = 4;

const conditionalJumps = CONDITIONS.map((condition): [string, Semantics] => [
  `j${condition}`,
  (c) => c.fn.if(c.condition(condition), () => c.branch()),
]);

function isRelative(c: Context): boolean {
  return c.shape.operands[0]?.kind === OperandKind.relative;
}

/** Addresses that are not canonical fault at the jump, with nothing changed. `first` may raise another fault before. */
function requireCanonical(c: Context, target: I64, first = () => {}): void {
  if (!c.shape.long) return;
  c.fn.if(isNotCanonical(target), () => {
    first();
    c.raise(Vector.generalProtection);
  });
}

const jump: Semantics = (c) => {
  if (isRelative(c)) {
    c.branch();
    return;
  }
  const target = c.let(c.read(0));
  requireCanonical(c, target);
  c.jump(target);
};

const call: Semantics = (c) => {
  const size = c.shape.operandSize;
  if (isRelative(c)) {
    push(c, size, c.nextAddress());
    c.branch();
    return;
  }
  const target = c.let(c.read(0));
  requireCanonical(c, target, () => {
    c.probeWrite(c.linear(sub(c.register(RSP, 8), i64(size)), size, true, SegmentRegister.ss), size);
  });
  push(c, size, c.nextAddress());
  c.jump(target);
};

/** Near return; the operand releases bytes of arguments. */
const returnNear: Semantics = (c) => {
  const size = c.shape.operandSize;
  const mask = c.shape.long ? null : c.let(c.stackMask());
  const pointer = c.let(mask ? and(c.register(RSP, 8), mask) : c.register(RSP, 8));
  const target = c.let(c.load(size, c.linear(pointer, size, false, 2)));
  requireCanonical(c, target);
  const release = c.shape.operands.length > 0 ? add(i64(size), and(c.immediate(), i64(0xffff))) : i64(size);
  const moved = add(pointer, release);
  if (c.shape.flat) {
    c.setRegister(RSP, 4, moved);
  } else if (mask) {
    const kept = and(c.register(RSP, 8), sub(i64(-1), mask));
    c.setRegister(RSP, 8, or(kept, and(moved, mask)));
  } else {
    c.setRegister(RSP, 8, moved);
  }
  c.jump(target);
};

/** LOOP, LOOPE, LOOPNE: the counter has the address size; flags stay. */
const loop =
  (zero: boolean | null): Semantics =>
  (c) => {
    const size = c.shape.addressSize;
    const count = c.let(zeroExtend(sub(c.register(RCX, size), i64(1)), size));
    const taken = zero === null ? ne(count, i64(0)) : and(ne(count, i64(0)), c.condition(zero ? 'e' : 'ne'));
    const decided = c.let(taken);
    c.setRegister(RCX, size, count);
    c.fn.if(decided, () => c.branch());
  };

const jumpIfCounterZero: Semantics = (c) => {
  c.fn.if(eqz(c.register(RCX, c.shape.addressSize)), () => c.branch());
};

const breakpoint: Semantics = (c) => c.exitAfter(Exit.exception, i32(Vector.breakpoint));
const debugTrap: Semantics = (c) => c.exitAfter(Exit.exception, i32(Vector.debug));
const softwareInterrupt: Semantics = (c) => c.exit(Exit.softwareInterrupt, wrap(and(c.immediate(), i64(0xff))));

const interruptOnOverflow: Semantics = (c) => {
  c.fn.if(c.condition('o'), () => c.exitAfter(Exit.exception, i32(Vector.overflow)));
};

const bound: Semantics = (c) => {
  const size = c.shape.operandSize;
  const index = c.let(c.readSigned(0));
  const address = c.let(c.address(size * 2, false));
  const low = c.let(c.load(size, address, true));
  const high = c.let(c.load(size, c.let(add(address, i64(size))), true));
  c.fn.if(or(ltS(index, low), gtS(index, signExtend(high, size))), () => c.raise(Vector.boundRange));
};

const undefinedOpcode: Semantics = (c) => c.raise(Vector.invalidOpcode);

/** Interrupts are the kernel's own to switch in ring 0; in other rings it depends on more. */
const inRing0 = (c: Context): void => c.fn.if(load32(c.state, State.cpl), () => c.exit(Exit.system));

const clearInterrupt: Semantics = (c) => {
  inRing0(c);
  c.setOtherFlags(and(c.otherFlags(), i32(~Flag.interrupt)));
};

/** The host sees it only when an interrupt waits. The instruction behind it is executed before any other comes. */
const setInterrupt: Semantics = (c) => {
  inRing0(c);
  c.fn.if(load32(c.state, State.interruptWaiting), () => c.exit(Exit.system));
  const other = c.let(c.otherFlags());
  c.fn.if(eqz(and(other, i32(Flag.interrupt))), () => {
    c.fn.store(store32(c.state, wrap(c.nextAddress()), State.interruptShadow));
  });
  c.setOtherFlags(or(other, i32(Flag.interrupt)));
};

const swapGsBase: Semantics = (c) => {
  inRing0(c);
  const active = State.segmentBase + SegmentRegister.gs * 8;
  const base = c.let(load64(c.state, active));
  c.fn.store(store64(c.state, load64(c.state, State.inactiveGsBase), active));
  c.fn.store(store64(c.state, base, State.inactiveGsBase));
};

const readTimeStamp =
  (withAuxiliary: boolean): Semantics =>
  (c) => {
    const given = c.let(c.host('timeStamp'));
    c.fn.ifSeldom(eqz(given), () => c.exit(Exit.system));
    c.setRegister(RAX, 8, loadInteger(4, false, c.state, State.missValue));
    c.setRegister(RDX, 8, loadInteger(4, false, c.state, State.missValue + 4));
    if (withAuxiliary) c.setRegister(RCX, 8, loadInteger(4, false, c.state, State.missValue + 8));
  };

/** MOV from CR2. */
const readFaultAddress: Semantics = (c) => {
  const given = c.let(c.host('faultAddress'));
  c.fn.ifSeldom(eqz(given), () => c.exit(Exit.system));
  c.write(0, load64(c.state, State.missValue));
};

/** What depends on the interface: the host decodes the instruction again and carries it out. */
const system: Semantics = (c) => c.exit(Exit.system);

/** Operations that always leave; a block of decoded code ends behind them. */
export const SYSTEM_OPERATIONS = [
  'hlt',
  'pause',
  'cpuid',
  'rdmsr',
  'wrmsr',
  'rdpmc',
  'clts',
  'invd',
  'wbinvd',
  'invlpg',
  'lgdt',
  'lidt',
  'sgdt',
  'sidt',
  'lldt',
  'sldt',
  'ltr',
  'str',
  'smsw',
  'lmsw',
  'verr',
  'verw',
  'lar',
  'lsl',
  'arpl',
  'in',
  'out',
  'ins',
  'outs',
  'retf',
  'jmpf',
  'callf',
  'les',
  'lds',
  'lss',
  'lfs',
  'lgs',
  'sysexit',
  'vmcall',
  'vmmcall',
  'monitor',
  'mwait',
  'rsm',
  'rdrand',
  'rdseed',
  'mov-system',
] as const;

export const CONTROL: readonly (readonly [string, Semantics])[] = [
  ...conditionalJumps,
  ['jmp', jump],
  ['call', call],
  ['ret', returnNear],
  ['loop', loop(null)],
  ['loope', loop(true)],
  ['loopne', loop(false)],
  ['jcxz', jumpIfCounterZero],
  ['int3', breakpoint],
  ['int1', debugTrap],
  ['int', softwareInterrupt],
  ['into', interruptOnOverflow],
  ['bound', bound],
  ['ud0', undefinedOpcode],
  ['ud1', undefinedOpcode],
  ['ud2', undefinedOpcode],
  ['cli', clearInterrupt],
  ['sti', setInterrupt],
  ['swapgs', swapGsBase],
  ['rdtsc', readTimeStamp(false)],
  ['rdtscp', readTimeStamp(true)],
  ['mov-cr2', readFaultAddress],
  ['syscall', systemCall],
  ['sysret', systemReturn],
  ['iret', interruptReturn],
  ['sysenter', (c) => c.exit(Exit.sysenter)],
  ...SYSTEM_OPERATIONS.map((operation): [string, Semantics] => [operation, system]),
];
