import {
  add,
  and,
  eq,
  eqz,
  extendU,
  geS,
  geU,
  type I32,
  i32,
  i64,
  load32,
  load64,
  shrU,
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

/** Calls of the guest that may be calls of regions at a time; engines give WebAssembly about 1 MB of stack. */
export const CALLS_LIMIT = 48;

/** No address of code: it is not canonical. */
const NOWHERE = i64(1n << 62n);

/**
 * Goes from region to region as long as one leads to the next, until control is where the guest's call returns to: a
 * small function, which engines make better code of than of the interpreter. Regions call it for the calls of the guest,
 * so that returns need no search and processors predict them.
 */
export function emitRegionLoop(
  fn: FunctionBuilder,
  places: CodePlaces,
  types: { readonly table: number; readonly region: number },
): void {
  const state = fn.parameter(0, 'i32');
  const region = fn.parameter(1, 'i32');
  const end = fn.parameter(2, 'i64');
  const calls = fn.parameter(3, 'i32');
  fn.ifSeldom(geU(calls, i32(CALLS_LIMIT)), () => fn.return(i32(RegionAnswer.leaveRegions)));
  const leave = fn.open(0x02);
  const again = fn.open(0x03);
  fn.if(eqz(region), () => {
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
  const answer = fn.let(callIndirectOf('i32', types.table, types.region, slot, state, calls));
  fn.if(answer, () => fn.return(answer));
  fn.if(eq(load64(state, State.rip), end), () => fn.return(i32(RegionAnswer.goOn)));
  fn.set(region, i32(0));
  fn.branch(again);
  fn.close();
  fn.close();
  fn.return(i32(RegionAnswer.leaveRegions));
}

/** (state, RegionWord) → the same from outside of all regions; counts what they execute. */
export function emitEnterRegions(fn: FunctionBuilder, loop: number): void {
  const state = fn.parameter(0, 'i32');
  const region = fn.parameter(1, 'i32');
  const budget: I32 = load32(state, State.budget);
  const before = fn.let(budget);
  const answer = fn.let(callOf('i32', loop, state, region, NOWHERE, i32(0)));
  const executed = extendU(sub(before, budget));
  fn.store(store64(state, add(load64(state, State.regionInstructions), executed), State.regionInstructions));
  fn.return(answer);
}
