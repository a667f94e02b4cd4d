import { type HostAddress, PAGE_SIZE } from '../../x86/brand.ts';
import { type CodeMode, codeSizeOf } from '../code-mode.ts';
import { createInstruction, DecodeResult, decode } from '../decode/decoder.ts';
import { type Instruction, OperandKind } from '../decode/instruction.ts';
import { endsBlock } from '../interpreter/record-builder.ts';
import { shapeOf } from '../interpreter/shape-of.ts';
import type { Shape } from '../semantics/context.ts';
import { SYSTEM_OPERATIONS } from '../semantics/control.ts';
import type { Effects } from './effects.ts';

/** Limits of one region; beyond them V8 takes longer than the code saves. */
const MAXIMUM_BLOCKS = 64;
export const MAXIMUM_INSTRUCTIONS = 400;

const SYSTEM: ReadonlySet<string> = new Set(SYSTEM_OPERATIONS);

export interface RegionInstruction {
  readonly instruction: Instruction;
  readonly shape: Shape;
  readonly effects: Effects;
  /** Offset of its first byte in the page. */
  readonly offset: number;
  /** Its bytes on the page behind, which may be another page each time. */
  readonly behind: Uint8Array;
  /** Set where nothing can see the arithmetic flags that it leaves. */
  deadFlags: boolean;
}

/** Straight-line code with one way in, and at most two ways on inside the region. */
export interface BasicBlock {
  readonly offset: number;
  readonly instructions: readonly RegionInstruction[];
  /** Offset behind the last instruction; beyond the page when that crosses its end. */
  readonly end: number;
  /** Where a direct branch at the end leads, when that is part of the region. */
  taken: BasicBlock | undefined;
  /** Where control falls through to, or a call at the end returns to, when that is part of the region. */
  next: BasicBlock | undefined;
  /** The last instruction never falls through. */
  readonly closed: boolean;
}

/** What a region is made from. Its code depends on nothing else, and is the same wherever the page is. */
export interface RegionSource {
  /** Its page, … */
  readonly page: HostAddress;
  /** … and what stands there. */
  readonly bytes: Uint8Array;
  /** The first bytes of the page behind, as far as they are known. */
  readonly behind: Uint8Array;
  readonly mode: CodeMode;
  /** Offset of its entry. */
  readonly entry: number;
  /** Offsets of the page that control has been at: cold code is left out. */
  readonly reached: Uint16Array;
}

type EffectsOf = (instruction: Instruction, shape: Shape) => Effects;

/**
 * Blocks of one page that control can go through from an entry without leaving, entry first. Undefined when the first
 * instruction is none that generated code could execute.
 * @param limit of instructions
 */
export function discoverRegion(source: RegionSource, effectsOf: EffectsOf, limit: number): BasicBlock[] | undefined {
  const { entry } = source;
  const reached = new Set(source.reached);
  const instructions = new Map<number, RegionInstruction>();
  const leaders = new Set<number>([entry]);
  const pending = [entry];
  for (;;) {
    const leader = pending.shift();
    if (leader === undefined) break;
    let offset = leader;
    while (!instructions.has(offset)) {
      if (instructions.size === limit) break;
      const decoded = decodeAt(source, effectsOf, offset);
      if (!decoded) break;
      instructions.set(offset, decoded);
      const { instruction, shape, effects } = decoded;
      offset += instruction.length;
      const target = branchTarget(decoded);
      if (target >= 0 && reached.has(target) && !leaders.has(target) && leaders.size < MAXIMUM_BLOCKS) {
        leaders.add(target);
        pending.push(target);
      }
      if (shape.operation === 'call' && offset < PAGE_SIZE && reached.has(offset)) {
        leaders.add(offset);
        pending.push(offset);
      }
      if (endsBlock(shape.operation, SYSTEM)) break;
      if (effects.branches) leaders.add(offset);
    }
  }
  if (!instructions.has(entry)) return undefined;
  return connect(instructions, leaders, entry);
}

function decodeAt(source: RegionSource, effectsOf: EffectsOf, offset: number): RegionInstruction | undefined {
  if (offset >= PAGE_SIZE) return undefined;
  const instruction = createInstruction();
  if (!decodeWhole(source, offset, instruction)) return undefined;
  const shape = shapeOf(instruction, source.mode);
  const effects = effectsOf(instruction, shape);
  if (effects.needsInterpreter) return undefined;
  const behind = source.behind.subarray(0, Math.max(offset + instruction.length - PAGE_SIZE, 0));
  // The page behind is looked at first.
  const all = behind.length > 0 ? { ...effects, mayLeave: true } : effects;
  return { instruction, shape, effects: all, offset, behind, deadFlags: false };
}

/** Whether an instruction stands there whose bytes are all known. */
function decodeWhole({ bytes, behind, mode }: RegionSource, offset: number, instruction: Instruction): boolean {
  const codeSize = codeSizeOf(mode);
  const result = decode(bytes, offset, PAGE_SIZE - offset, codeSize, instruction);
  if (result !== DecodeResult.truncated) return result === DecodeResult.ok;
  const joined = Uint8Array.from([...bytes.subarray(offset, PAGE_SIZE), ...behind]);
  return decode(joined, 0, joined.length, codeSize, instruction) === DecodeResult.ok;
}

/** Whether control comes back to the end of a block from elsewhere. */
export const endsInCall = ({ instructions }: BasicBlock): boolean => instructions.at(-1)?.shape.operation === 'call';

/** Offset in the page that a jump leads to directly, or −1; calls lead out of the region. */
export function branchTarget({ instruction, offset, shape }: RegionInstruction): number {
  const [operand] = instruction.operands;
  if (operand.kind !== OperandKind.relative || instruction.operandCount === 0 || shape.operation === 'call') return -1;
  if (!shape.long && shape.operandSize === 2) return -1;
  const target = offset + instruction.length + instruction.immediateLow;
  return target >= 0 && target < PAGE_SIZE ? target : -1;
}

function connect(
  instructions: ReadonlyMap<number, RegionInstruction>,
  leaders: ReadonlySet<number>,
  entry: number,
): BasicBlock[] {
  const blocks = new Map<number, BasicBlock>();
  const pending = [entry];
  const build = (offset: number): BasicBlock | undefined => {
    const known = blocks.get(offset);
    if (known) return known;
    if (!instructions.has(offset) || blocks.size === MAXIMUM_BLOCKS) return undefined;
    const list: RegionInstruction[] = [];
    let cursor = offset;
    let closed = false;
    for (;;) {
      const found = instructions.get(cursor);
      if (!found) break;
      list.push(found);
      cursor += found.instruction.length;
      closed = endsBlock(found.shape.operation, SYSTEM);
      // A call comes back.
      if (found.shape.operation === 'call' && leaders.has(cursor)) closed = false;
      if (closed || leaders.has(cursor)) break;
    }
    const block: BasicBlock = { offset, instructions: list, end: cursor, taken: undefined, next: undefined, closed };
    blocks.set(offset, block);
    pending.push(offset);
    return block;
  };
  build(entry);
  for (;;) {
    const offset = pending.shift();
    if (offset === undefined) break;
    const block = blocks.get(offset);
    const last = block?.instructions.at(-1);
    if (!block || !last) continue;
    const target = branchTarget(last);
    if (target >= 0 && leaders.has(target)) block.taken = build(target);
    if (!block.closed) block.next = build(block.end);
  }
  return [...blocks.values()];
}
