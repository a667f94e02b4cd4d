import type { Node } from './structure.ts';

/**
 * Marks instructions whose flags nothing can see: all of them are set again before anything reads them or leaves the
 * region. Whatever leaves takes exact flags along, and a back edge may leave because the budget is used up.
 */
export function markDeadFlags(nodes: readonly Node[]): void {
  const liveAtStart = new Map<Node, boolean>();
  for (let changed = true; changed; ) {
    changed = false;
    for (const node of nodes.toReversed()) {
      const live = scan(node, liveAtEnd(node, liveAtStart));
      if (live !== liveAtStart.get(node)) changed = true;
      liveAtStart.set(node, live);
    }
  }
}

function liveAtEnd(node: Node, liveAtStart: ReadonlyMap<Node, boolean>): boolean {
  const { block, taken, next } = node;
  const through = (to: Node | undefined) => !to || to.order <= node.order || liveAtStart.get(to) === true;
  const branches = block.instructions.at(-1)?.effects.branches === true;
  return (branches && through(taken)) || (!block.closed && through(next)) || (block.closed && !branches);
}

function scan(node: Node, atEnd: boolean): boolean {
  let live = atEnd;
  for (const current of node.block.instructions.toReversed()) {
    const { readsFlags, setsFlags, mayLeave } = current.effects;
    current.deadFlags = !live;
    live = readsFlags || mayLeave || (live && !setsFlags);
  }
  return live;
}
