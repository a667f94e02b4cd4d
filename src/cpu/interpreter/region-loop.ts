import { State } from '../state.ts';
import { add, and, eq, eqz, extendU, geS, i32, load16U32, load32, load64, store64, sub } from '../wasm/expression.ts';
import { callIndirectOf, type FunctionBuilder } from '../wasm/module.ts';
import { type CodePlaces, emitFindCode } from './find-code.ts';
import { PseudoHandler, RecordField } from './record.ts';

/**
 * (state, record that leads into a region) → what the last region answered. Goes from region to region as long as one
 * leads to the next: a small function, which engines make better code of than of the interpreter.
 */
export function emitRegionLoop(
  fn: FunctionBuilder,
  places: CodePlaces,
  types: { readonly table: number; readonly region: number },
): void {
  const state = fn.parameter(0, 'i32');
  const record = fn.parameter(1, 'i32');
  const answer = fn.local('i32');
  const budget = load32(state, State.budget);
  const before = fn.let(budget);
  fn.block((done) => {
    fn.loop((again) => {
      const slot = load32(record, RecordField.displacement);
      fn.set(answer, callIndirectOf('i32', types.table, types.region, slot, state));
      fn.branchIf(answer, done);
      const target = fn.let(load64(state, State.rip));
      emitFindCode(fn, places, state, target, (found, page) => {
        fn.set(record, found);
        const leadsOn = eq(load16U32(record, RecordField.handler), i32(PseudoHandler.region));
        fn.branchIf(eqz(and(leadsOn, geS(budget, load32(record, RecordField.link)))), done);
        fn.store(store64(state, page, State.pageBase));
        fn.branch(again);
      });
    });
  });
  const executed = extendU(sub(before, budget));
  fn.store(store64(state, add(load64(state, State.regionInstructions), executed), State.regionInstructions));
  fn.return(answer);
}
