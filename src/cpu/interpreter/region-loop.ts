import {
  add,
  and,
  eq,
  eqz,
  extendS,
  geS,
  geU,
  type I32,
  i32,
  i64,
  load32,
  load64,
  ne,
  or,
  shrU,
  store32,
  store64,
  sub,
} from '../../wasm/expression.ts';
import { callIndirectOf, callOf, type FunctionBuilder, type Signature } from '../../wasm/module.ts';
import { State } from '../state.ts';
import { CodeSlot } from '../tlb-layout.ts';
import { type CodePlaces, emitFindSlot } from './find-code.ts';
import { RegionAnswer, RegionWord } from './record.ts';

/** (state, calls around it) → RegionAnswer or Exit, with everything exact in the state block. */
export const REGION: Signature = { parameters: ['i32', 'i32'], result: 'i32' };

/**
 * (state, RegionWord of the first region or 0, linear address to return at, calls around it) → RegionAnswer or Exit;
 * `goOn` says that control is at that address.
 */
export const REGION_LOOP: Signature = { parameters: ['i32', 'i32', 'i64', 'i32'], result: 'i32' };

/**
 * (state, linear address to return at, calls around it, whether the first instruction is to be interpreted even if a
 * region begins there) → Exit, `goOn` when control is at that address, or `endCalls`. With no calls around it always an Exit.
 */
export const INTERPRET: Signature = { parameters: ['i32', 'i64', 'i32', 'i32'], result: 'i32' };

/** Calls of the guest that may be calls of regions at a time; engines give WebAssembly about 1 MB of stack. */
export const CALLS_LIMIT = 48;
/** Calls of regions that an interpreter among them counts for. */
const INTERPRETER_CALLS = 6;

/** No address of code: it is not canonical. */
export const NOWHERE = i64(1n << 62n);

/** What a module has for the way from region to region. */
export interface LoopTypes {
  /** The table of regions, and the type of its functions. */
  readonly table: number;
  readonly region: number;
}

/**
 * Goes from region to region as long as one leads to the next, until control is where the guest's call returns to: a
 * small function, which engines make better code of than of the interpreter.
 */
export function emitRegionLoop(fn: FunctionBuilder, places: CodePlaces, types: LoopTypes): void {
  fn.return(emitGoThrough(fn, places, types));
}

/** @returns a local with the answer */
function emitGoThrough(fn: FunctionBuilder, places: CodePlaces, types: LoopTypes): I32 {
  const state = fn.parameter(0, 'i32');
  const region = fn.parameter(1, 'i32');
  const end = fn.parameter(2, 'i64');
  const calls = fn.parameter(3, 'i32');
  const answer = fn.local('i32');
  const leave = fn.open(0x02);
  const again = fn.open(0x03);
  fn.if(eqz(region), () => {
    fn.set(answer, i32(RegionAnswer.leaveRegions));
    emitFindSlot(fn, places, state, load64(state, State.rip), (slot, page) => {
      fn.set(region, load32(slot, CodeSlot.region));
      fn.branchIf(eqz(region), leave);
      fn.store(store64(state, page, State.pageBase));
    });
    fn.branchIf(eqz(region), leave);
    const needed = shrU(region, i32(RegionWord.budgetShift));
    fn.branchIf(eqz(geS(load32(state, State.budget), needed)), leave);
  });
  const slot = sub(and(region, i32(RegionWord.slotMask)), i32(1));
  fn.set(answer, callIndirectOf('i32', types.table, types.region, slot, state, calls));
  fn.branchIf(answer, leave);
  fn.branchIf(eq(load64(state, State.rip), end), leave);
  fn.set(region, i32(0));
  fn.branch(again);
  fn.close();
  fn.close();
  return answer;
}

/**
 * A call of the guest in a region: returns need no search, and processors predict them. Code without regions is
 * interpreted in between. Unlike regions, an interpreter asks the host for what it misses, which may drop code and
 * translations. When any has been lost since the page of the code around the call was looked up, a search might find
 * other code, and all calls end, as they do when the ring is another one.
 * @param types with the table of interpreters by CodeMode, and the type of its functions
 */
export function emitRegionCall(
  fn: FunctionBuilder,
  places: CodePlaces & { readonly losses: number },
  types: LoopTypes & { readonly interpreters: number; readonly interpret: number },
): void {
  const state = fn.parameter(0, 'i32');
  const end = fn.parameter(2, 'i64');
  const calls = fn.parameter(3, 'i32');
  const endCalls = () => fn.return(i32(RegionAnswer.endCalls));
  fn.ifSeldom(geU(calls, i32(CALLS_LIMIT)), endCalls);
  const answer = emitGoThrough(fn, places, types);
  const isCold = or(eq(answer, i32(RegionAnswer.leaveRegions)), eq(answer, i32(RegionAnswer.interpret)));
  fn.if(eqz(isCold), () => fn.return(answer));

  const seen = fn.let(load32(state, State.lossesSeen));
  const hasLost = ne(load32(i32(places.losses)), seen);
  fn.ifSeldom(hasLost, endCalls);
  const budget: I32 = load32(state, State.budget);
  const tlb: I32 = load32(state, State.tlb);
  const [budgetBefore, tlbBefore] = [fn.let(budget), fn.let(tlb)];
  const exit = fn.let(
    callIndirectOf(
      'i32',
      types.interpreters,
      types.interpret,
      load32(state, State.codeMode),
      state,
      end,
      add(calls, i32(INTERPRETER_CALLS)),
      eq(answer, i32(RegionAnswer.interpret)),
    ),
  );
  // The regions around it count what is executed until they return; none of this is theirs.
  emitCount(fn, state, sub(budget, budgetBefore));
  fn.if(exit, () => fn.return(exit));
  fn.ifSeldom(or(hasLost, ne(tlb, tlbBefore)), endCalls);
  fn.store(store32(state, seen, State.lossesSeen));
  fn.return(i32(RegionAnswer.goOn));
}

/** (state, RegionWord, address to return at, calls around it) as REGION_LOOP, from an interpreter. */
export function emitEnterRegions(fn: FunctionBuilder, loop: number): void {
  const state = fn.parameter(0, 'i32');
  const budget: I32 = load32(state, State.budget);
  const before = fn.let(budget);
  const parameters = [fn.parameter(1, 'i32'), fn.parameter(2, 'i64'), fn.parameter(3, 'i32')];
  const answer = fn.let(callOf('i32', loop, state, ...parameters));
  emitCount(fn, state, sub(before, budget));
  fn.return(answer);
}

/** Adds to the instructions of regions. @param change signed */
function emitCount(fn: FunctionBuilder, state: I32, change: I32): void {
  const counted = add(load64(state, State.regionInstructions), extendS(change));
  fn.store(store64(state, counted, State.regionInstructions));
}
