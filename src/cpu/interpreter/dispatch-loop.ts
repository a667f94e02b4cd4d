import {
  add,
  and,
  eq,
  eqz,
  extendU,
  geS,
  geU,
  gtS,
  gtU,
  type I32,
  type I64,
  i32,
  i64,
  leS,
  load8U32,
  load16U32,
  load32,
  load64,
  loadInteger,
  select,
  shl,
  store32,
  store64,
  sub,
} from '../../wasm/expression.ts';
import { callIndirectOf, callOf, type FunctionBuilder, ModuleBuilder } from '../../wasm/module.ts';
import { Exit } from '../exits.ts';
import type { Semantics } from '../semantics/context.ts';
import { tlbEntry } from '../semantics/generating-context.ts';
import { parseShapeKey } from '../semantics/shape-key.ts';
import { State } from '../state.ts';
import { CodeSlot, TlbEntry } from '../tlb-layout.ts';
import { Answer, COLD_HANDLER, emitMeaning, importHost, STATE_TO_INTEGER } from './cold-handlers.ts';
import { type Functions, RecordContext, type Ways } from './context.ts';
import { emitFindSlot } from './find-code.ts';
import type { InterpreterOptions } from './options.ts';
import { Link, PseudoHandler, RecordField, RegionAnswer } from './record.ts';
import { emitFlagFunctions } from './shared-functions.ts';

/** Index of the imported table. */
const COLD_TABLE = 0;

/** Cold handlers that the function table has room for before it grows; a kernel and its programs meet about a thousand. */
export const TABLE_SIZE = 2048;
/** Handlers that are not part of a loop begin here, so that those of all loops have room below. */
export const FIRST_COLD = 1024;

/** A module with the function that executes records, `run`, of which some handlers are part. */
export function buildLoop(options: InterpreterOptions, hot: readonly string[]): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options.memory.size / 0x1_0000);
  // Cold handlers do without the table: each instance that imports it costs time in proportion to its size.
  module.importTable('table', TABLE_SIZE);
  const host = importHost(module);
  const regions = module.importFunction('enterRegions', COLD_HANDLER);
  const { flags, carry } = emitFlagFunctions(module);
  const { builder: fn } = module.function(STATE_TO_INTEGER, 'run');
  emitRun(fn, options, { host, flags, carry, regions }, hot, module.type(COLD_HANDLER));
  return module.build();
}

function emitRun(
  fn: FunctionBuilder,
  options: InterpreterOptions,
  functions: Functions & { readonly regions: number },
  hot: readonly string[],
  coldType: number,
): void {
  const state = fn.parameter(0, 'i32');
  const record = fn.local('i32');
  const target = fn.local('i64');
  const code = fn.local('i32');
  /** Non-zero when the record that is looked up must not lead into a region. */
  const interpreting = fn.local('i32');

  const pageBase = load64(state, State.pageBase);
  const budget = load32(state, State.budget);
  const index = load8U32(record, RecordField.index);
  const next = add(pageBase, extendU(load16U32(record, RecordField.next)));
  const start = sub(next, extendU(load8U32(record, RecordField.length)));
  const link = load32(record, RecordField.link);
  const spend = (count: I32) => fn.store(store32(state, sub(budget, count), State.budget));
  const setRip = (address: I64) => fn.store(store64(state, address, State.rip));

  fn.set(target, load64(state, State.rip));
  const again = fn.open(0x03);
  const jump = fn.open(0x02);
  fn.branchIf(eqz(record), jump);
  const leave = fn.open(0x02);
  const leaveAfter = fn.open(0x02);
  const branchSlow = fn.open(0x02);
  const dispatch = fn.open(0x03);

  /** Goes to the record of a direct branch's target; the slow way starts from `target`. */
  const followLink = () => {
    const known = fn.let(link);
    fn.if(gtU(known, i32(Link.unknownCall)), () => {
      fn.set(record, known);
      fn.branchIf(gtS(budget, i32(0)), dispatch);
      fn.set(code, i32(Exit.budget));
      fn.branch(leave);
    });
    fn.set(target, add(next, loadInteger(4, true, record, RecordField.target)));
    fn.branch(branchSlow);
  };
  const branch = (instructions: number) => {
    spend(add(index, i32(instructions)));
    followLink();
  };
  /** @param instructions that the record stands for */
  const waysOf = (instructions: number): Ways => ({
    next: () => {
      fn.set(record, add(record, i32(RecordField.size)));
      fn.branch(dispatch);
    },
    leave: (kind) => {
      fn.set(code, kind);
      fn.branch(leave);
    },
    leaveAfter: (kind) => {
      fn.set(code, kind);
      fn.branch(leaveAfter);
    },
    branch: () => branch(instructions),
    jump: (address) => {
      fn.set(target, address);
      spend(add(index, i32(instructions)));
      fn.branch(jump);
    },
  });
  const ways = waysOf(1);
  /** Past the record that leads into a region, if there is one. */
  const skipHead = () => {
    fn.set(interpreting, i32(0));
    const head = geU(sub(load16U32(record, RecordField.handler), i32(PseudoHandler.warming)), i32(2));
    fn.set(record, add(record, select(head, i32(0), i32(RecordField.size))));
  };

  const pseudo: (() => void)[] = [];
  pseudo[PseudoHandler.stale] = () => {
    spend(index);
    fn.set(target, start);
    fn.branch(jump);
  };
  pseudo[PseudoHandler.fallThrough] = () => {
    spend(index);
    followLink();
  };
  pseudo[PseudoHandler.guard] = () => {
    const following = fn.let(add(pageBase, i64(4096)));
    const entry = fn.let(tlbEntry(load32(state, State.tlb), following, options.tlbEntries));
    const same = and(
      eq(load64(entry, TlbEntry.executeTag), following),
      eq(load32(entry, TlbEntry.frame), load32(record, RecordField.displacement)),
    );
    fn.if(same, () => {
      ways.next();
    });
    fn.set(target, start);
    setRip(start);
    fn.set(record, fn.letAside(callOf('i32', functions.host.lookup, state, i32(0)), state));
    fn.branchIf(record, dispatch);
    fn.return(load32(state, State.exitKind));
  };
  pseudo[PseudoHandler.stop] = () => {
    spend(index);
    setRip(start);
    fn.return(i32(Exit.budget));
  };
  pseudo[PseudoHandler.warming] = () => {
    const left = fn.let(sub(load32(record, RecordField.displacement), i32(1)));
    fn.store(store32(record, left, RecordField.displacement));
    fn.if(eqz(left), () => {
      fn.if(fn.letAside(callOf('i32', functions.host.hot, state, record), state), () => {
        fn.set(target, start);
        fn.branch(jump);
      });
    });
    ways.next();
  };
  pseudo[PseudoHandler.region] = () => {
    fn.if(geS(budget, link), () => {
      const region = load32(record, RecordField.displacement);
      const answer = fn.letAside(callOf('i32', functions.regions, state, region), state);
      fn.if(gtS(answer, i32(0)), () => fn.return(answer));
      fn.set(interpreting, eq(answer, i32(RegionAnswer.interpret)));
      fn.set(target, load64(state, State.rip));
      fn.branch(jump);
    });
    ways.next();
  };

  const emitters = [
    ...pseudo,
    ...hot.map((key) => () => {
      const shape = parseShapeKey(key);
      const own = shape.fused ? waysOf(2) : ways;
      const context = new RecordContext(fn, shape, state, record, own, functions, options.tlbEntries);
      emitMeaning(context, options.semantics.get(shape.operation) as Semantics);
      context.done();
    }),
    () => {
      const slot = sub(load16U32(record, RecordField.handler), i32(FIRST_COLD));
      if (options.profile !== undefined) {
        const counter = fn.let(add(i32(options.profile), shl(slot, i32(3))));
        fn.store(store64(counter, add(load64(counter), i64(1))));
      }
      const answer = fn.letAside(callIndirectOf('i32', COLD_TABLE, coldType, slot, state, record), state);
      fn.if(eqz(answer), ways.next);
      fn.if(gtS(answer, i32(0)), () => ways.leave(answer));
      fn.if(eq(answer, i32(Answer.jump)), () => ways.jump(load64(state, State.rip)));
      fn.if(eq(answer, i32(Answer.branch)), ways.branch);
      fn.if(eq(answer, i32(Answer.fusedBranch)), waysOf(2).branch);
      ways.leaveAfter(sub(i32(Answer.leaveAfter), answer));
    },
  ];
  // The block opened last is closed first: it belongs to the first handler.
  const labels = emitters.map(() => fn.open(0x02)).reverse();
  const cold = labels.pop();
  if (!cold) throw new Error('the branch table needs handlers');
  fn.branchTable(load16U32(record, RecordField.handler), labels, cold);
  for (const emit of emitters) {
    fn.close();
    fn.scope(emit);
  }
  fn.unreachable();
  fn.close(); // dispatch

  fn.unreachable();
  fn.close(); // branchSlow: the target lies on another page or was not looked up yet
  fn.branchIf(eq(link, i32(Link.otherPage)), jump);
  fn.branchIf(leS(budget, i32(0)), jump);
  setRip(target);
  fn.set(record, fn.letAside(callOf('i32', functions.host.lookup, state, record), state));
  fn.branchIf(record, again);
  fn.return(load32(state, State.exitKind));
  fn.close(); // leaveAfter
  spend(add(index, i32(1)));
  setRip(next);
  fn.return(code);
  fn.close(); // leave
  fn.store(store32(state, load8U32(record, RecordField.length), State.exitLength));
  spend(index);
  setRip(start);
  fn.return(code);
  fn.close(); // jump
  fn.if(leS(budget, i32(0)), () => {
    setRip(target);
    fn.return(i32(Exit.budget));
  });
  emitFindSlot(fn, options, state, target, (slot, page) => {
    fn.set(record, load32(slot, CodeSlot.record));
    fn.store(store64(state, page, State.pageBase));
    fn.branchIf(eqz(interpreting), again);
    skipHead();
    fn.branch(again);
  });
  setRip(target);
  fn.set(record, fn.letAside(callOf('i32', functions.host.lookup, state, i32(0)), state));
  fn.if(record, () => {
    fn.branchIf(eqz(interpreting), again);
    skipHead();
    fn.branch(again);
  });
  fn.return(load32(state, State.exitKind));
  fn.close(); // again
  fn.unreachable();
}
