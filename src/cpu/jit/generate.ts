import type { Instruction } from '../decode/instruction.ts';
import { REGION } from '../interpreter/region-loop.ts';
import type { Semantics, Shape } from '../semantics/context.ts';
import { add, geS, type I64, i32, i64, ltS, sub, zeroExtend } from '../wasm/expression.ts';
import { FunctionBuilder, type Label, ModuleBuilder } from '../wasm/module.ts';
import type { Effects } from './effects.ts';
import { markDeadFlags } from './flag-liveness.ts';
import { endsInCall, type RegionInstruction } from './region.ts';
import { REGION_IMPORTS, RegionContext, type RegionImport, type RegionImports } from './region-context.ts';
import type { Node } from './structure.ts';
import { longestPath } from './structure.ts';

export interface GeneratorOptions {
  /** Exact size of the host's memory, in 64 KiB pages. */
  readonly memoryPages: number;
  readonly tlbEntries: number;
  readonly meaningOf: (operation: string) => Semantics;
}

export interface RegionPlan {
  readonly nodes: readonly Node[];
  /** Segments are taken to be flat (`State.flatSegments`): in 32-bit code most of what an access costs is theirs. */
  readonly flat: boolean;
}

/** A module with one exported function for each region: `0`, `1` … */
export function generateModule(options: GeneratorOptions, regions: readonly RegionPlan[]): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder(options.memoryPages);
  const imports = importAll(module);
  regions.forEach(({ nodes, flat }, index) => {
    const { builder } = module.function(REGION, String(index));
    const context = new RegionContext(builder, imports, options.tlbEntries, isLong(nodes), flat);
    new RegionGenerator(options, context, nodes).generate(flat);
  });
  return module.build();
}

function importAll(module: ModuleBuilder): RegionImports {
  const imports = {} as Record<RegionImport, number>;
  for (const name of Object.keys(REGION_IMPORTS) as RegionImport[]) {
    imports[name] = module.importFunction(name, REGION_IMPORTS[name]);
  }
  return imports;
}

const isLong = (nodes: readonly Node[]): boolean => nodes[0]?.block.instructions[0]?.shape.long === true;

/** Assumed while nothing is known yet. */
const ANYTHING: Effects = {
  readsFlags: true,
  setsFlags: false,
  mayLeave: true,
  branches: true,
  needsInterpreter: false,
};

/**
 * Finds out what an instruction's meaning does by letting it generate code that nobody keeps. What was decided by a
 * constant holds for instructions with the same immediate only.
 */
export function observeEffects(
  options: GeneratorOptions,
  instruction: Instruction,
  shape: Shape,
): { effects: Effects; decidedByConstant: boolean } {
  const fn = new FunctionBuilder(REGION);
  const numbers = { flags: 0, carry: 1, x87: 2, sse: 3, helper: 4, loadSegment: 5, timeStamp: 6, regions: 7 };
  const context = new RegionContext(fn, numbers, options.tlbEntries, shape.long, false);
  context.begin({ instruction, shape, effects: ANYTHING, offset: 0, deadFlags: false }, 0, { branch: () => {} });
  options.meaningOf(shape.operation)(context);
  return { effects: context.observed(), decidedByConstant: fn.decidedByConstant };
}

/**
 * Structured control flow from the dominator tree (Ramsey, "Beyond Relooper"): what a node dominates is generated behind
 * it, each in a block that the node's branches leave; a loop's header is a WebAssembly loop.
 */
class RegionGenerator {
  readonly #options: GeneratorOptions;
  readonly #context: RegionContext;
  readonly #nodes: readonly Node[];
  /** Where a branch to a node goes: the end of its block, or the start of its loop. */
  readonly #labels = new Map<Node, Label>();
  readonly #loops = new Map<Node, Label>();
  /** The kind of flags that control brings along, for nodes with one way in. */
  readonly #knownFlags = new Map<Node, RegionContext['knownFlags']>();
  /** Instructions that may be executed between two looks at the budget. */
  readonly #slack: number;
  readonly #long: boolean;

  constructor(options: GeneratorOptions, context: RegionContext, nodes: readonly Node[]) {
    this.#options = options;
    this.#context = context;
    this.#nodes = nodes;
    this.#slack = longestPath(nodes);
    this.#long = isLong(nodes);
  }

  generate(flat: boolean): void {
    const [entry] = this.#nodes;
    if (!entry) throw new Error('a region has at least one block');
    markDeadFlags(this.#nodes);
    if (flat) this.#context.requireFlatSegments(entry.block.offset);
    this.#tree(entry, 0);
    this.#context.finish();
  }

  /** @param before instructions that were executed since the budget was last counted */
  #tree(node: Node, before: number): void {
    const { fn } = this.#context;
    const { block } = node;
    // What only falls through needs no label, and takes the count of instructions along.
    const inline = node.next?.dominator === node && node.next.predecessors.length === 1 ? node.next : undefined;
    const labelled = node.children.filter((child) => child !== inline);
    if (node.isLoop) this.#loops.set(node, fn.open(0x03));
    for (const child of labelled.toReversed()) this.#labels.set(child, fn.open(0x02));
    this.#body(node, before);
    const done = endsInCall(block) ? 0 : before + block.instructions.length;
    if (inline?.isLoop) {
      this.#arrive(inline, done);
      this.#tree(inline, 0);
    } else if (inline) {
      this.#bring(inline);
      this.#tree(inline, done);
    } else if (block.closed) {
      fn.unreachable();
    } else {
      this.#follow(node, node.next, block.end, done);
    }
    for (const child of labelled) {
      fn.close();
      this.#tree(child, 0);
    }
    if (!node.isLoop) return;
    fn.unreachable();
    fn.close();
  }

  #body(node: Node, before: number): void {
    const context = this.#context;
    const { fn } = context;
    context.knownFlags = node.isLoop ? undefined : this.#knownFlags.get(node);
    node.block.instructions.forEach((current, index) => {
      const done = before + index + 1;
      const returns = node.next && current.shape.operation === 'call';
      fn.scope(() => {
        context.begin(current, done - 1, {
          branch: () => this.#taken(node, current, done),
          ...(returns ? { returnTo: { linear: this.#linear(node.block.end), budget: this.#slack } } : {}),
        });
        this.#options.meaningOf(current.shape.operation)(context);
        context.end();
      });
      // A repeated instruction may have used up what the check at the region's start left over.
      if (current.shape.repeat !== 'none') {
        const next = current.offset + current.instruction.length;
        fn.if(ltS(context.budgetLeft, i32(this.#slack)), () => this.#leave(next, done));
      }
    });
  }

  /** @param done instructions since the budget was last counted */
  #leave(offset: number, done: number): void {
    this.#context.leaveTo(this.#linear(offset), done);
  }

  #linear(offset: number): I64 {
    const linear = add(this.#context.pageBase, i64(offset));
    return this.#long ? linear : zeroExtend(linear, 4);
  }

  #taken(node: Node, current: RegionInstruction, done: number): void {
    const { instruction, offset } = current;
    this.#follow(node, node.taken, offset + instruction.length + instruction.immediateLow, done);
  }

  /** Goes from a node to another one, or out of the region when there is none. */
  #follow(from: Node, to: Node | undefined, offset: number, done: number): void {
    const { fn, budgetLeft } = this.#context;
    if (!to) {
      this.#leave(offset, done);
    } else if (to.order > from.order) {
      this.#arrive(to, done);
      fn.branch(this.#labels.get(to) as Label); // opened by the node that dominates it
    } else {
      this.#spend(done);
      fn.branchIf(geS(budgetLeft, i32(this.#slack)), this.#loops.get(to) as Label);
      this.#leave(to.block.offset, 0);
    }
  }

  #spend(done: number): void {
    const { fn, budgetLeft } = this.#context;
    fn.set(budgetLeft, sub(budgetLeft, i32(done)));
  }

  #arrive(to: Node, done: number): void {
    this.#spend(done);
    this.#bring(to);
  }

  /** Joins what is known about the flags on the ways into a node. */
  #bring(to: Node): void {
    const { knownFlags } = this.#context;
    const same = !this.#knownFlags.has(to) || this.#knownFlags.get(to) === knownFlags;
    this.#knownFlags.set(to, same ? knownFlags : undefined);
  }
}
