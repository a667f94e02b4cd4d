import type { Hole } from './paths.ts';

/** Why hostile guests do not take a path. */
interface Reason {
  readonly file: string;
  /** Part of the line that the path begins on. */
  readonly text: string;
  readonly why: string;
}

const KVM = 'src/interfaces/kvm/';
const VMI = 'src/interfaces/vmi/';

export const UNREACHED: readonly Reason[] = [
  {
    file: `${KVM}kvm-interface.ts`,
    text: 'if (address < 0) return true;',
    why: 'a page that was named is pinned, so that it has an address',
  },
  {
    file: `${KVM}end-of-interrupt.ts`,
    text: 'if (address < 0) return;',
    why: 'the same',
  },
  {
    file: `${KVM}mmu-operations.ts`,
    text: 'HypercallError.fault;',
    why: 'an entry within RAM can always be written',
  },
  {
    file: `${KVM}mmu-operations.ts`,
    text: 'return address < 0 ? -1',
    why: 'all of RAM has an address, or the page is absent',
  },
  {
    file: `${VMI}update-queue.ts`,
    text: '= () => {};',
    why: 'the interface puts its own in this place before a processor runs',
  },
  {
    file: `${VMI}vmi-interface.ts`,
    text: 'if (!shadow) return own;',
    why: 'without shadows the ROM has no calls but the two that end in a program',
  },
];

/** Holes without a reason, and reasons without a hole: what was said of the code is so no more. */
export function unexplained(holes: readonly Hole[]): { readonly holes: readonly Hole[]; readonly reasons: Reason[] } {
  return {
    holes: holes.filter((hole) => reasonOf(hole) === undefined),
    reasons: UNREACHED.filter((reason) => !holes.some((hole) => fits(reason, hole))),
  };
}

export function reasonOf(hole: Hole): string | undefined {
  return UNREACHED.find((reason) => fits(reason, hole))?.why;
}

function fits({ file, text }: Reason, hole: Hole): boolean {
  return hole.file === file && hole.text.includes(text);
}
