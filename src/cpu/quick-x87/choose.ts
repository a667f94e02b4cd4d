import type { I32 } from '../../wasm/expression.ts';
import type { FunctionBuilder, Label } from '../../wasm/module.ts';

/** Generates one way of going on. */
export type Way = () => void;

/**
 * A branch by number. `ways[n]` is gone for n, and control comes together behind; a number without a way branches to
 * `otherwise`. One way may stand for several numbers.
 */
export function choose(fn: FunctionBuilder, number: I32, ways: readonly (Way | undefined)[], otherwise: Label): void {
  const distinct = [...new Set(ways.filter((way) => way !== undefined))];
  fn.block((done) => {
    const opened = distinct.map(() => fn.open(0x02));
    // The block opened last is closed first: it belongs to the first way.
    const labels = new Map(distinct.map((way, index) => [way, opened[distinct.length - 1 - index]]));
    const labelOf = (way: Way | undefined): Label => (way && labels.get(way)) ?? otherwise;
    fn.branchTable(number, ways.map(labelOf), otherwise);
    for (const way of distinct) {
      fn.close();
      fn.scope(way);
      fn.branch(done);
    }
  });
}
