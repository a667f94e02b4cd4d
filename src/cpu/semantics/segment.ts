import { and, eqz, type I32, i32, load32, load64, store64, wrap } from '../../wasm/expression.ts';
import { Cr4, Vector } from '../../x86/registers.ts';
import { SegmentRegister } from '../decode/instruction.ts';
import { Exit } from '../exits.ts';
import { State } from '../state.ts';
import { isNotCanonical } from './canonical.ts';
import type { Context, Semantics } from './context.ts';
import { dropStack, top } from './integer-move.ts';

/** Most loads need no more than a look at the descriptor. The others leave, with nothing done. */
function loadSegment(c: Context, selector: I32): void {
  const loaded = c.let(c.host('loadSegment', c.operandPointer(0), selector));
  c.fn.ifSeldom(eqz(loaded), () => c.exit(Exit.system));
}

const moveToSegment: Semantics = (c) => loadSegment(c, c.let(wrap(c.read(1))));

const popSegment: Semantics = (c) => {
  const size = c.shape.operandSize;
  const selector = c.let(wrap(top(c, size)));
  loadSegment(c, selector);
  dropStack(c, size);
};

/** CR4.FSGSBASE decides whether the instructions exist. */
function requireBases(c: Context): void {
  c.fn.ifSeldom(eqz(and(load32(c.state, State.cr4), i32(Cr4.fsgsbase))), () => c.raise(Vector.invalidOpcode));
}

const readBase =
  (segment: SegmentRegister): Semantics =>
  (c) => {
    requireBases(c);
    c.write(0, load64(c.state, State.segmentBase + segment * 8));
  };

const writeBase =
  (segment: SegmentRegister): Semantics =>
  (c) => {
    requireBases(c);
    const base = c.let(c.read(0));
    c.fn.ifSeldom(isNotCanonical(base), () => c.raise(Vector.generalProtection));
    c.fn.store(store64(c.state, base, State.segmentBase + segment * 8));
  };

export const SEGMENT: readonly (readonly [string, Semantics])[] = [
  ['load-segment', moveToSegment],
  ['pop-segment', popSegment],
  ['rdfsbase', readBase(SegmentRegister.fs)],
  ['rdgsbase', readBase(SegmentRegister.gs)],
  ['wrfsbase', writeBase(SegmentRegister.fs)],
  ['wrgsbase', writeBase(SegmentRegister.gs)],
];
