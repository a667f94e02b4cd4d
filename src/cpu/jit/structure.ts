import { type BasicBlock, endsInCall } from './region.ts';

/** A block in its place among the others of a region. */
export interface Node {
  readonly block: BasicBlock;
  /** Position in reverse postorder; the entry is 0. */
  readonly order: number;
  readonly predecessors: Node[];
  /** Edges that generated code follows; the others leave the region. */
  taken: Node | undefined;
  next: Node | undefined;
  dominator: Node;
  /** Nodes whose immediate dominator this is, in reverse postorder. */
  readonly children: Node[];
  /** Some edge leads back here from a node that it dominates. */
  isLoop: boolean;
}

/**
 * Orders blocks so that structured control flow can be made of them: reverse postorder, dominators (Cooper, Harvey and
 * Kennedy, "A Simple, Fast Dominance Algorithm"), loops. An edge backwards to a node that does not dominate its origin
 * cannot be expressed; it leaves the region, whose exit finds the target's own region.
 */
export function structureOf(entry: BasicBlock): Node[] {
  const nodes = reversePostorder(entry);
  computeDominators(nodes);
  for (const node of nodes) {
    node.taken = keepEdge(node, node.taken);
    node.next = keepEdge(node, node.next);
    if (node.order > 0) node.dominator.children.push(node);
  }
  return nodes;
}

function reversePostorder(entry: BasicBlock): Node[] {
  const visited = new Set<BasicBlock>();
  const postorder: BasicBlock[] = [];
  const visit = (block: BasicBlock) => {
    if (visited.has(block)) return;
    visited.add(block);
    if (block.taken) visit(block.taken);
    if (block.next) visit(block.next);
    postorder.push(block);
  };
  visit(entry);
  const nodes = postorder.reverse().map((block, order): Node => {
    const node: Node = {
      block,
      order,
      predecessors: [],
      taken: undefined,
      next: undefined,
      dominator: undefined as unknown as Node, // set by computeDominators
      children: [],
      isLoop: false,
    };
    return node;
  });
  const nodeOf = new Map(nodes.map((node) => [node.block, node]));
  for (const node of nodes) {
    node.taken = node.block.taken && nodeOf.get(node.block.taken);
    node.next = node.block.next && nodeOf.get(node.block.next);
    node.taken?.predecessors.push(node);
    node.next?.predecessors.push(node);
  }
  return nodes;
}

function computeDominators(nodes: readonly Node[]): void {
  const [entry] = nodes;
  if (!entry) return;
  const known = new Set([entry]);
  entry.dominator = entry;
  for (let changed = true; changed; ) {
    changed = false;
    for (const node of nodes) {
      if (node === entry) continue;
      let dominator: Node | undefined;
      for (const predecessor of node.predecessors) {
        if (!known.has(predecessor)) continue;
        dominator = dominator ? commonDominator(dominator, predecessor) : predecessor;
      }
      // In reverse postorder at least one predecessor was seen before.
      if (!dominator || (known.has(node) && node.dominator === dominator)) continue;
      node.dominator = dominator;
      known.add(node);
      changed = true;
    }
  }
}

function commonDominator(a: Node, b: Node): Node {
  let left = a;
  let right = b;
  while (left !== right) {
    while (left.order > right.order) left = left.dominator;
    while (right.order > left.order) right = right.dominator;
  }
  return left;
}

export function dominates(above: Node, below: Node): boolean {
  let node = below;
  while (node.order > above.order) node = node.dominator;
  return node === above;
}

function keepEdge(from: Node, to: Node | undefined): Node | undefined {
  if (!to || to.order > from.order) return to;
  if (!dominates(to, from)) {
    to.predecessors.splice(to.predecessors.indexOf(from), 1);
    return undefined;
  }
  to.isLoop = true;
  return to;
}

/** Instructions on the longest way from a block to an exit or a back edge: what one check of the budget must cover. */
export function longestPath(nodes: readonly Node[]): number {
  const lengths = new Map<Node, number>();
  let longest = 0;
  for (const node of nodes.toReversed()) {
    const forward = (to: Node | undefined) => (to && to.order > node.order ? (lengths.get(to) ?? 0) : 0);
    // The budget is looked at when a call returns.
    const next = endsInCall(node.block) ? undefined : node.next;
    const length = node.block.instructions.length + Math.max(forward(node.taken), forward(next));
    lengths.set(node, length);
    longest = Math.max(longest, length);
  }
  return longest;
}
