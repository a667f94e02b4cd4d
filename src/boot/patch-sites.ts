import {
  type CallSite,
  type Choice,
  type CodeTemplate,
  damaged,
  KernelBytes,
  type RecordedSites,
  readRecordedSites,
  viewOf,
} from './call-sites.ts';

/**
 * Patching of a kernel's call sites by its loader: what the kernel would do itself when it has found out what it runs on
 * (guests/reference/paravirt/patch.c), done before it runs, since who loads it knows. A site begins as an indirect call
 * through an operation table. It becomes a direct call of what the interface puts there, or the instructions themselves
 * where they are short, with no-ops behind. What the kernel will change again is left as it is.
 */
export interface PatchingInterface {
  /** As choices name it; 0 for plain hardware, which makes none. */
  readonly number: number;
  /**
   * Address of the function that a choice comes to, `nothing` for none at all, and undefined where the table's stays.
   * @param base how far above its place in physical memory the kernel is linked
   */
  resolve(choice: Choice, base: number): number | 'nothing' | undefined;
}

export interface PatchCounts {
  readonly sites: number;
  readonly called: number;
  readonly inlined: number;
  readonly left: number;
}

/** Opcodes, and the form of an indirect branch. */
const CALL = 0xe8;
const JUMP = 0xe9;
const INDIRECT = 0xff;
const INDIRECT_JUMP = 4;
const BRANCH_BYTES = 5;
const UNDEFINED = [0x0f, 0x0b];

/** A number of an operation is a byte. */
const MOST_OPERATIONS = 256;

/** Bits of the registers that a site may destroy; a function that keeps registers changes its result. */
const CLOBBERS_RESULT = 1;
const CLOBBERS_ANY = 3;

/** The longest no-ops that the manual recommends (SDM vol. 2B, NOP), by length. */
const NO_OPS: readonly (readonly number[])[] = [
  [],
  [0x90],
  [0x66, 0x90],
  [0x0f, 0x1f, 0x00],
  [0x0f, 0x1f, 0x40, 0x00],
  [0x0f, 0x1f, 0x44, 0x00, 0x00],
  [0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
  [0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
  [0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];
const LONGEST_NO_OP = NO_OPS.length - 1;

/**
 * Patches a copy of a kernel.
 * @param file an ELF file
 * @throws InputError when it has no records of its sites
 */
export function patchCallSites(
  file: Uint8Array,
  by: PatchingInterface,
): { readonly file: Uint8Array<ArrayBuffer>; readonly counts: PatchCounts } {
  const copy = new Uint8Array(file);
  const bytes = new KernelBytes(copy);
  const recorded = readRecordedSites(bytes);
  const patcher = new Patcher(bytes, recorded, by);
  for (const site of recorded.sites) patcher.patch(site);
  viewOf(bytes.at(recorded.patchedFlag, 4)).setUint32(0, 1, true);
  const { called, inlined, left } = patcher;
  return { file: copy, counts: { sites: recorded.sites.length, called, inlined, left } };
}

class Patcher {
  called = 0;
  inlined = 0;
  left = 0;
  readonly #bytes: KernelBytes;
  readonly #nothing: number;
  /** By operation; 0 for none at all. */
  readonly #targets = new Map<number, number>();
  readonly #changing = new Set<number>();
  /** Operations whose functions keep all registers but their result. */
  readonly #keeping = new Set<number>();
  readonly #templates: ReadonlyMap<number, CodeTemplate>;

  constructor(bytes: KernelBytes, recorded: RecordedSites, by: PatchingInterface) {
    this.#bytes = bytes;
    this.#nothing = recorded.nothing;
    this.#templates = new Map(recorded.templates.map((template) => [template.function, template]));
    for (const { table, first, count, kept } of recorded.groups) {
      for (let index = 0; index < Math.min(count, MOST_OPERATIONS); index++) {
        this.#targets.set(first + index, bytes.word(table + index * bytes.wordBytes));
        if (index < kept) this.#keeping.add(first + index);
      }
    }
    for (const choice of recorded.choices) {
      if (choice.interface !== by.number) continue;
      const target = by.resolve(choice, bytes.base);
      if (target === undefined) continue;
      this.#targets.set(choice.operation, target === 'nothing' ? recorded.nothing : target);
      if (choice.changes) this.#changing.add(choice.operation);
    }
  }

  patch(site: CallSite): void {
    const { address, length, operation } = site;
    const target = this.#targets.get(operation);
    const place = this.#bytes.at(address, length);
    if (target === undefined || length === 0) throw damaged();
    const code = this.#changing.has(operation) ? undefined : this.#codeFor(site, place, target);
    if (!code) {
      this.left++;
      return;
    }
    if (code[0] === CALL || code[0] === JUMP) this.called++;
    else this.inlined++;
    place.set(code);
    for (let at = code.length; at < length; ) {
      const noOp = NO_OPS[Math.min(length - at, LONGEST_NO_OP)] ?? [];
      place.set(noOp, at);
      at += noOp.length;
    }
  }

  /** What is to stand at a site; undefined for what stands there. */
  #codeFor(site: CallSite, place: Uint8Array, target: number): ArrayLike<number> | undefined {
    if (target === 0) return UNDEFINED;
    if (target === this.#nothing) return [];
    const template = this.#templates.get(target);
    const size = template ? template.end - template.begin : 0;
    if (template && size >= 0 && size <= site.length) return this.#bytes.at(template.begin, size);
    if (site.length < BRANCH_BYTES) return undefined;
    if (place[0] === INDIRECT && ((place[1] ?? 0) >> 3) % 8 === INDIRECT_JUMP) return this.#branch(JUMP, site, target);
    const clobbers = this.#keeping.has(site.operation) ? CLOBBERS_RESULT : CLOBBERS_ANY;
    if (site.clobbers !== 0 && (clobbers & ~site.clobbers) !== 0) return undefined;
    return this.#branch(CALL, site, target);
  }

  #branch(opcode: number, { address }: CallSite, target: number): Uint8Array {
    const distance = target - (address + BRANCH_BYTES);
    // The addresses of a 32-bit kernel wrap around; others are within reach of each other.
    if (this.#bytes.wordBytes === 8 && distance !== (distance | 0)) throw damaged();
    const code = new Uint8Array(BRANCH_BYTES);
    code[0] = opcode;
    viewOf(code).setInt32(1, distance | 0, true);
    return code;
  }
}
