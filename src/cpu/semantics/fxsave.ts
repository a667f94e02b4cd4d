import { Vector } from '../../x86/registers.ts';
import { HelperOperation, Image } from '../helpers.ts';
import { State } from '../state.ts';
import {
  add,
  and,
  extendU,
  type I32,
  type I64,
  i32,
  i64,
  load128,
  ltU,
  ne,
  store128,
  zeroExtend,
} from '../wasm/expression.ts';
import type { Context, Semantics } from './context.ts';
import { requireFloat } from './vector-support.ts';
import { probe, within } from './x87.ts';

/** FXSAVE and FXRSTOR: an image of 512 bytes, built and taken apart in State.scratch by helpers.ts. */

/** Linear address of the image; the segment must hold all of it, and it must be aligned. */
function imageAddress(c: Context, write: boolean): I64 {
  const linear = c.let(c.address(16, write));
  if (c.shape.memory === 'legacy') {
    const last = zeroExtend(add(c.effectiveOffset(), i64(Image.size - 16)), c.shape.addressSize);
    c.let(c.linear(last, 16, write));
  }
  c.fn.if(ne(and(linear, i64(15)), i64(0)), () => c.raise(Vector.generalProtection));
  return linear;
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
  probe(c, within(c, linear, Image.size - 1), 1, true);
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
  probe(c, within(c, linear, Image.size - 1), 1, false);
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
