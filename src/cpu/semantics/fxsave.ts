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
  load128,
  ltU,
  ne,
  store128,
  zeroExtend,
} from '../../wasm/expression.ts';
import { Flag, Vector } from '../../x86/registers.ts';
import { HelperOperation, Image } from '../helpers.ts';
import { State } from '../state.ts';
import type { Context, Semantics } from './context.ts';
import { requireFloat } from './vector-support.ts';
import { probe, within } from './x87.ts';

/** FXSAVE and FXRSTOR: an image of 512 bytes, built and taken apart in State.scratch by helpers.ts. */

/** Linear address of the image; the segment must hold all of it, it must be aligned, and its last byte accessible. */
function imageAddress(c: Context, write: boolean): I64 {
  const linear = c.let(c.address(16, write));
  let last = within(c, linear, Image.size - 1);
  if (c.shape.memory === 'legacy') {
    last = c.linear(zeroExtend(add(c.effectiveOffset(), i64(Image.size - 1)), c.shape.addressSize), 1, write);
  }
  const end = c.let(last);
  c.fn.if(ne(and(linear, i64(15)), i64(0)), () => raiseMisaligned(c, linear));
  probe(c, end, 1, write);
  return linear;
}

/**
 * #GP, or #AC where alignment is checked (SDM vol. 2, FXSAVE: which misalignments raise it is up to the processor; here,
 * as on AMD's, those of its doublewords).
 */
function raiseMisaligned(c: Context, linear: I64): void {
  const { state } = c;
  const enabled = and(c.otherFlags(), load32(state, State.cr0));
  const user = eq(load32(state, State.cpl), i32(3));
  const checked = and(ne(and(enabled, i32(Flag.alignmentCheck)), i32(0)), and(user, ne(and(linear, i64(3)), i64(0))));
  c.fn.if(checked, () => c.raise(Vector.alignmentCheck));
  c.raise(Vector.generalProtection);
}

/** Runs `body` for each 16 bytes below `bytes`, with their offset. */
function eachPart(c: Context, bytes: number, body: (offset: I32) => void): void {
  const { fn } = c;
  const offset = fn.local('i32');
  fn.set(offset, i32(0));
  fn.loop((again) => {
    body(offset);
    fn.set(offset, add(offset, i32(16)));
    fn.branchIf(ltU(offset, i32(bytes)), again);
  });
}

function part(c: Context, linear: I64, offset: I32): I64 {
  const address = add(linear, extendU(offset));
  return c.shape.long ? address : zeroExtend(address, 4);
}

const save: Semantics = (c) => {
  requireFloat(c, HelperOperation.checkImage);
  const linear = imageAddress(c, true);
  c.probeWrite(linear, Image.size);
  const wide = c.shape.operandSize === 8;
  c.checked(c.host('helper', i32(wide ? HelperOperation.saveWideImage : HelperOperation.saveImage)));
  eachPart(c, c.shape.long ? Image.end : Image.legacyEnd, (offset) =>
    c.store128(part(c, linear, offset), load128(add(c.state, offset), State.scratch)),
  );
};

const restore: Semantics = (c) => {
  requireFloat(c, HelperOperation.checkImage);
  const linear = imageAddress(c, false);
  eachPart(c, Image.size, (offset) => {
    const value = c.load128(part(c, linear, offset));
    c.fn.store(store128(add(c.state, offset), value, State.scratch));
  });
  const wide = c.shape.operandSize === 8;
  c.checked(c.host('helper', i32(wide ? HelperOperation.loadWideImage : HelperOperation.loadImage)));
};

export const FXSAVE: ReadonlyMap<string, Semantics> = new Map([
  ['fxsave', save],
  ['fxrstor', restore],
]);
