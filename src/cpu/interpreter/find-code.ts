import {
  add,
  and,
  eq,
  extendU,
  type I32,
  type I64,
  i32,
  i64,
  load32,
  load64,
  ne,
  or,
  shl,
  shrU,
  wrap,
  xor,
} from '../../wasm/expression.ts';
import type { FunctionBuilder } from '../../wasm/module.ts';
import { tlbEntry } from '../semantics/generating-context.ts';
import { State } from '../state.ts';
import { CODE_HASH_SHIFT, CODE_SLOTS_SHIFT, CODE_UNIT_SHIFT, CodeSlot, TlbEntry } from '../tlb-layout.ts';

export interface CodePlaces {
  readonly tlbEntries: number;
  /** Address of the table of decoded code by place. */
  readonly codeSlots: number;
}

/**
 * Finds decoded code by linear address: through the execute tag of the TLB, then in the table by place.
 * @param found gets its slot of the table and the page's linear address; what is emitted behind this runs when nothing
 *   was found
 */
export function emitFindSlot(
  fn: FunctionBuilder,
  places: CodePlaces,
  state: I32,
  target: I64,
  found: (slot: I32, page: I64) => void,
): void {
  const entry = fn.let(tlbEntry(load32(state, State.tlb), target, places.tlbEntries));
  const page = fn.let(and(target, i64(-4096)));
  fn.if(eq(load64(entry, TlbEntry.executeTag), page), () => {
    const place = fn.let(add(load32(entry, TlbEntry.frame), and(wrap(target), i32(4095))));
    const mixed = xor(shrU(place, i32(CODE_UNIT_SHIFT)), shrU(place, i32(CODE_HASH_SHIFT)));
    const hash = and(mixed, i32((1 << CODE_SLOTS_SHIFT) - 1));
    const slot = fn.local('i32');
    fn.set(slot, add(i32(places.codeSlots), shl(hash, i32(CodeSlot.sizeShift))));
    const key = fn.let(or(extendU(place), shl(extendU(load32(state, State.codeMode)), i64(32))));
    fn.ifSeldom(ne(load64(slot, CodeSlot.key), key), () => fn.set(slot, xor(slot, i32(CodeSlot.size))));
    fn.if(eq(load64(slot, CodeSlot.key), key), () => found(slot, page));
  });
}
