import { add, geS, type I64, i32, i64, ltS, sub, zeroExtend } from '../../wasm/expression.ts';
import { type Body, CompilationHint, FunctionBuilder, type Label, ModuleBuilder } from '../../wasm/module.ts';
import type { ByteWriter } from '../../wasm/writer.ts';
import { type GuestVirtual, type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import { CodeMode } from '../code-mode.ts';
import type { Instruction } from '../decode/instruction.ts';
import { REGION } from '../interpreter/region-loop.ts';
import type { Semantics, Shape } from '../semantics/context.ts';
import type { Effects } from './effects.ts';
import { markDeadFlags } from './flag-liveness.ts';
import { endsInCall, type RegionInstruction } from './region.ts';
import {
  BLANKS_OF_WAY,
  Blank,
  REGION_IMPORTS,
  RegionContext,
  type RegionImports,
  type WayOut,
} from './region-context.ts';
import type { Node } from './structure.ts';
import { Windows } from './windows.ts';

export interface GeneratorOptions {
  readonly tlbEntries: number;
  readonly meaningOf: (operation: string) => Semantics;
}

/** What a region's code is made from. */
export interface RegionPlan {
  readonly nodes: readonly Node[];
  /** Instructions that may be executed between two looks at the budget. */
  readonly slack: number;
}

/** The code of a region, which modules fill in. */
export interface RegionCode {
  readonly body: Body;
  /** Where its ways out lead, in bytes from the start of its page. */
  readonly ways: readonly number[];
}

export function generateRegion(options: GeneratorOptions, plan: RegionPlan): RegionCode {
  const fn = new FunctionBuilder(REGION);
  const context = new RegionContext(fn, IMPORTS, options.tlbEntries, isLong(plan.nodes));
  const generator = new RegionGenerator(options, context, plan);
  generator.generate();
  return { body: fn.body(), ways: generator.ways };
}

/** A region in a module. */
export interface ModuleRegion {
  readonly code: RegionCode;
  readonly place: HostAddress;
  readonly mode: CodeMode;
  /** Where the place was seen last. */
  readonly linear: GuestVirtual;
  readonly slack: number;
  readonly slot: number;
}

/** Where generated code finds the RegionLife of a slot, and that of no region. */
interface RegionLives {
  life(slot: number): HostAddress;
  readonly gone: HostAddress;
}

/**
 * A module with one exported function for each region: `0`, `1` … Its regions lead directly to each other.
 * @param memoryPages exact size of the host's memory, in 64 KiB pages
 * @param isHot whether the code is worth being optimized at once
 */
export function buildModule(
  memoryPages: number,
  regions: readonly ModuleRegion[],
  lives: RegionLives,
  isHot: boolean,
): ByteWriter {
  const module = new ModuleBuilder(memoryPages);
  if (isHot) module.hint = CompilationHint.atOnceAndWell;
  importAll(module);
  const destinationOf = ({ slot, slack, place }: ModuleRegion, index: number): Destination => {
    return { index, life: lives.life(slot), slack, place };
  };
  const destinations = regions.map(destinationOf);
  const byAddress = new Map(regions.map(({ mode, linear }, index) => [linkKey(mode, linear), destinations[index]]));
  // Other programs, and other guests, have other code at the same addresses. Where another page is behind a branch, the
  // branch looks at it; what stays in the page does not.
  const byPlace = new Map(regions.map(({ mode, place }, index) => [linkKey(mode, place), destinations[index]]));
  for (const [index, { code, mode, slot, linear, place }] of regions.entries()) {
    const entry = place % PAGE_SIZE;
    const ways = code.ways.map((offset) => {
      if (offset >= 0 && offset < PAGE_SIZE) return byPlace.get(linkKey(mode, place - entry + offset));
      const target = linear - entry + offset;
      return byAddress.get(linkKey(mode, mode === CodeMode.bits64 ? target : target >>> 0));
    });
    module.builtFunction(REGION, String(index), code.body, (blank) => {
      if (blank === Blank.ownLife) return lives.life(slot);
      const kind = ((blank - 1) % BLANKS_OF_WAY) + 1;
      const to = ways[(blank - kind) / BLANKS_OF_WAY] ?? { index, life: lives.gone, slack: 0, place: 0 };
      return LINKS[kind as keyof typeof LINKS](to);
    });
  }
  return module.write();
}

/** Where code stands, as branches name it or in the host's memory. */
const linkKey = (mode: CodeMode, address: number): string => `${mode} ${address}`;

const LINKS = {
  [Blank.life]: ({ life }: Destination) => life,
  [Blank.slack]: ({ slack }: Destination) => slack,
  [Blank.page]: ({ place }: Destination) => place - (place % PAGE_SIZE),
  [Blank.function]: ({ index }: Destination) => FUNCTIONS + index,
};

interface Destination {
  readonly index: number;
  readonly life: number;
  readonly slack: number;
  readonly place: number;
}

/** Imports come first; they are the same in each module. */
const IMPORTS = Object.fromEntries(Object.keys(REGION_IMPORTS).map((name, index) => [name, index])) as RegionImports;
const FUNCTIONS = Object.keys(REGION_IMPORTS).length;

function importAll(module: ModuleBuilder): void {
  for (const [name, signature] of Object.entries(REGION_IMPORTS)) module.importFunction(name, signature);
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
  const context = new RegionContext(fn, IMPORTS, options.tlbEntries, shape.long);
  const tried = { instruction, shape, effects: ANYTHING, offset: 0, behind: new Uint8Array(0), deadFlags: false };
  context.begin(tried, 0, { branch: () => {} });
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
  /** Where a branch to a node goes: the end of its block, or the start of its loop. */
  readonly #labels = new Map<Node, Label>();
  readonly #loops = new Map<Node, Label>();
  /** The kind of flags that control brings along, for nodes with one way in. */
  readonly #knownFlags = new Map<Node, RegionContext['knownFlags']>();
  /** What control brings along about addresses. */
  readonly #windows = new Map<Node, Windows>();
  readonly #slack: number;
  readonly #long: boolean;
  readonly #plan: RegionPlan;
  readonly ways: number[] = [];

  constructor(options: GeneratorOptions, context: RegionContext, plan: RegionPlan) {
    this.#options = options;
    this.#context = context;
    this.#plan = plan;
    this.#slack = plan.slack;
    this.#long = isLong(plan.nodes);
  }

  generate(): void {
    const { nodes } = this.#plan;
    const [entry] = nodes;
    if (!entry) throw new Error('a region has at least one block');
    markDeadFlags(nodes);
    this.#context.markEntered();
    this.#tree(entry, 0);
    this.#context.finish();
  }

  /** @param before instructions that were executed since the budget was last counted */
  #tree(node: Node, before: number): void {
    this.#context.withWindows(() => this.#dominated(node, before));
  }

  #dominated(node: Node, before: number): void {
    const { fn } = this.#context;
    const { block } = node;
    // What only falls through needs no label, and takes the count of instructions along.
    const inline = node.next?.dominator === node && node.next.predecessors.length === 1 ? node.next : undefined;
    const labelled = node.children.filter((child) => child !== inline);
    const { registers, vectors } = this.#context;
    const outer = registers.enter(node.isLoop);
    const outerVectors = vectors.enter(node.isLoop);
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
    registers.leave(outer);
    vectors.leave(outerVectors);
    if (!node.isLoop) return;
    fn.unreachable();
    fn.close();
  }

  #body(node: Node, before: number): void {
    const context = this.#context;
    const { fn } = context;
    context.knownFlags = node.isLoop ? undefined : this.#knownFlags.get(node);
    context.windows = (node.isLoop ? undefined : this.#windows.get(node)) ?? new Windows();
    node.block.instructions.forEach((current, index) => {
      const done = before + index + 1;
      const returns = node.next && current.shape.operation === 'call';
      fn.scope(() => {
        context.begin(current, done - 1, {
          branch: () => this.#taken(node, current, done),
          ...(returns ? { returnTo: { linear: this.#linear(node.block.end), budget: this.#slack } } : {}),
        });
        context.expectBehind(current.behind);
        this.#options.meaningOf(current.shape.operation)(context);
        context.end();
      });
      // A repeated instruction may have used up what the check at the region's start left over.
      if (current.shape.repeat !== 'none') {
        const next = current.offset + current.instruction.length;
        fn.if(ltS(context.budgetLeft, i32(this.#slack)), () => this.#leave(next, done));
      }
    });
    context.registers.flush();
  }

  /** @param done instructions since the budget was last counted */
  #leave(offset: number, done: number, way?: WayOut): void {
    this.#context.leaveTo(this.#linear(offset), done, way);
  }

  /** What leaves to code of the same page was not reached before, or is to look at the budget. */
  #wayTo(offset: number, isCall: boolean): WayOut | undefined {
    const page = Math.floor(offset / PAGE_SIZE) * PAGE_SIZE;
    if (page === 0 && !isCall) return undefined;
    return { index: this.ways.push(offset) - 1, page: page === 0 ? undefined : this.#linear(page) };
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
      this.#leave(offset, done, this.#wayTo(offset, endsInCall(from.block)));
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

  /** Joins what is known about flags and addresses on the ways into a node. */
  #bring(to: Node): void {
    const { knownFlags, windows } = this.#context;
    this.#windows.set(to, this.#windows.get(to)?.meet(windows) ?? windows.copy());
    const same = !this.#knownFlags.has(to) || this.#knownFlags.get(to) === knownFlags;
    this.#knownFlags.set(to, same ? knownFlags : undefined);
  }
}
