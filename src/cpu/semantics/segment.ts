import { Exit } from '../exits.ts';
import { eqz, type I32, wrap } from '../wasm/expression.ts';
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

export const SEGMENT: readonly (readonly [string, Semantics])[] = [
  ['load-segment', moveToSegment],
  ['pop-segment', popSegment],
];
