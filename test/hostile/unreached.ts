import type { Hole } from './paths.ts';

/** Why hostile guests do not take a path. */
export interface Reason {
  readonly file: string;
  /** Part of the line that the path begins on. */
  readonly text: string;
  readonly why: string;
}

const STAYS = 'pages that host and guest share stay in memory';
const LOOKED = 'the handler has looked at that before';
const ROOM = 'the host has frames left';
const FILES = 'for guests that go on from a file or are copied';
const BEGUN = 'the guest exists before its processors run';
const LEVELS = 'levels are those of the format';
const PROCESSORS = 'processors are those that there are';
const UNTYPED = 'no page has such a type there';

/** By file: part of the line that the path begins on, and why nobody takes it. */
const REASONS: Readonly<Record<string, readonly (readonly [text: string, why: string])[]>> = {
  'src/interfaces/kvm/kvm-interface.ts': [
    ['if (address < 0) return true;', STAYS],
    ['noteAbsence(): void {', FILES],
  ],
  'src/interfaces/kvm/end-of-interrupt.ts': [['if (address < 0) return;', STAYS]],
  'src/interfaces/kvm/mmu-operations.ts': [
    ['HypercallError.fault;', 'an entry within RAM can always be written'],
    ['return address < 0 ? -1', 'all of RAM has an address, or the page is absent'],
  ],
  'src/interfaces/vmi/direct-tables.ts': [
    ['this.#domain?.vcpus ?? []', BEGUN],
    ['this.#mappings?.pageOf(pointer) ?? -1', BEGUN],
    ['this.#mappings?.addressOf(page as number as Pfn) ?? -1', BEGUN],
    ['high & ~MADE_READ_ONLY) !== 0', 'a page that is no table may be mapped writable'],
    ['get holdsMachineFrames()', 'for guests whose contracts are checked'],
    ['for (let mfn = 0; mfn < this.paging.types.limit; mfn++) {', FILES],
  ],
  'src/interfaces/vmi/linear-mappings.ts': [
    ['direct ? page - direct.pfn : -1', 'tables are examined once the kernel has told of its direct mapping'],
  ],
  'src/interfaces/vmi/start-state.ts': [['(cs?.selector ?? 0)', 'all segments were read']],
  'src/interfaces/vmi/table-survey.ts': [['geometry.entries[level] ?? 0', LEVELS]],
  'src/interfaces/vmi/update-queue.ts': [['= () => {};', 'the interface puts its own there before a processor runs']],
  'src/interfaces/vmi/vmi-interface.ts': [
    ['callerOf(', 'for audits'],
    ['threadAt(', 'for guests whose contracts are checked'],
  ],
  'src/interfaces/lguest/descriptor-tables.ts': [['this.#gateFlags[vector] ?? 0', 'vectors are below 256']],
  'src/interfaces/xen/event-channels.ts': [
    ['if (port < 0) return port;', 'the host opens its own ports before the guest runs'],
    ['if (!this.#isService(port)) return;', 'a back end is told when the guest closes its port'],
    ['if (page < 0', STAYS],
    ['if (info < 0) return', STAYS],
    ['const port = this.virqPorts', LOOKED],
    ['ports.length > POLL_PORTS_LIMIT', LOOKED],
  ],
  'src/interfaces/xen/grant-table.ts': [
    ['if (entry < 0) return;', 'the first frame of the table is there from the start'],
    ['if (grant === undefined ||', 'what ends was begun in the same copy'],
    ['return (page < 0 ? -1', STAYS],
    ['if (mfn < 0) return false;', ROOM],
  ],
  'src/interfaces/xen/hypercalls/cpu.ts': [
    ['if (loaded !== 0) return loaded;', 'a list of gates is always taken'],
    ['if (result !== 0) return result;', 'each vector has a gate'],
    ['if (!callback) continue;', 'each type has a callback'],
  ],
  'src/interfaces/xen/hypercalls/dispatch.ts': [
    ['export function callName(', 'for profiles'],
    [
      "if (this.#domain.state.kind !== 'running') return 0;",
      'a call that returns ends a guest whose contracts are checked',
    ],
  ],
  'src/interfaces/xen/hypercalls/events.ts': [['default:', LOOKED]],
  'src/interfaces/xen/kernel-entries.ts': [['?? NO_GATE;', 'vectors are below 256']],
  'src/interfaces/xen/shared-info.ts': [
    ['this.vcpuInfoMfn[vcpu] ?? NOWHERE', PROCESSORS],
    ['if (page < 0) return -Errno.EINVAL;', LOOKED],
    ['return page < 0 ? page :', `${STAYS}; ${PROCESSORS}`],
    ['if (source >= 0)', `${STAYS}, and hostile guests have not so many processors that it is too small`],
  ],
  'src/paging/direct/descriptor-pages.ts': [
    ['!isGdtSize(', LOOKED],
    ['get allGdtFrames()', 'processors are those that there are (the line before)'],
  ],
  'src/paging/direct/direct-paging.ts': [
    ['this.#validator = new TableValidator(', 'domains always want to be told'],
    ['this.machineToPhysical.create()', ROOM],
    ['this.space.populate(mfn)', ROOM],
    ['movePage(): number', LOOKED],
    ['if (table < 0) return PagingError.invalid;', LOOKED],
    ['mfn < 0', 'numbers of frames that a guest gives are not negative'],
    ['const low = preserve ?', 'above level 1 the handler makes values that hold those bits'],
    ['releaseProcessor(', 'for processors that are reset, as none of these'],
    ['get work()', 'for callers of many operations'],
  ],
  'src/paging/direct/entries.ts': [['if (this.#types.owner.get(mfn)', LOOKED]],
  'src/paging/direct/machine-to-physical.ts': [
    ['!this.#space.populate(number)', ROOM],
    ['if (frame === NO_FRAME) continue;', ROOM],
    ['if (mfn >= this.#first) throw', LOOKED],
  ],
  'src/paging/direct/validate.ts': [
    ['get promoting()', 'for what a repeated call expects, above level 1'],
    ['this.rules.geometry.entries[level] ?? 0', LEVELS],
  ],
  'src/paging/translated/translated-descriptors.ts': [
    ['!isGdtSize(', LOOKED],
    ['(this.#gdtFrames[processor] ?? [])', PROCESSORS],
  ],
  'src/paging/translated/translated-paging.ts': [
    ['ldtFrameReleased(): void {}', UNTYPED],
    ['leavesUse(): void {}', UNTYPED],
    ['entriesOf: () => 0', UNTYPED],
    ['if (!this.space.populate(mfn))', ROOM],
    ['if (table < 0) return PagingError.invalid;', LOOKED],
  ],
};

export const UNREACHED: readonly Reason[] = Object.entries(REASONS).flatMap(([file, reasons]) =>
  reasons.map(([text, why]) => ({ file, text, why })),
);

/**
 * Holes without a reason, and reasons for what is in no hole: what was said of the code is so no more. A function that
 * nobody calls is one hole, in which reasons for lines of it still hold.
 */
export function unexplained(
  holes: readonly Hole[],
  given: readonly Reason[] = UNREACHED,
): { readonly holes: readonly Hole[]; readonly reasons: readonly Reason[] } {
  return {
    holes: holes.filter((hole) => reasonOf(hole, given) === undefined),
    reasons: given.filter(({ file, text }) => !holes.some((hole) => hole.file === file && hole.inside.includes(text))),
  };
}

/** A hole is explained by the line that it begins on, so that a reason for a line does not excuse all that is around it. */
export function reasonOf(hole: Hole, given: readonly Reason[] = UNREACHED): string | undefined {
  return given.find(({ file, text }) => hole.file === file && hole.text.includes(text))?.why;
}
