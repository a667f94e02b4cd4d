import { type FramePool, NO_FRAME, OutOfFrames } from '../../memory/frame-pool.ts';
import { MachineSpace } from '../../memory/machine-space.ts';
import { FrameOwner } from '../../paging/direct/frame-types.ts';
import { machineToPhysicalPages } from '../../paging/direct/machine-to-physical.ts';
import { TABLE_RULES, type TableRules } from '../../paging/direct/table-rules.ts';
import type { DomainPaging } from '../../paging/domain-paging.ts';
import { NumberRuns, type PageNumbers, PermutedNumbers } from '../../paging/page-numbers.ts';
import type { Mfn } from '../../x86/brand.ts';

/**
 * The machine frame numbers of a domain:
 *
 *   0x1000      the guest's pages, so that these numbers differ from pseudo-physical ones
 *   + pages     shared_info
 *   + 1         grant table
 *   + 64        spare, for memory that a balloon brings back
 *   + 1024      pages of the machine-to-physical table, which has no entries for them; the guest cannot name them
 *
 * Those of a domain whose frames are translated for it are its pseudo-physical ones, so its pages begin at 0; a balloon
 * brings pages back by their own numbers, the spare ones are for pages of the host's that the guest has moved, and there
 * is no such table.
 */
const FIRST_MFN = 0x1000;
const GRANT_FRAMES = 64;
const SPARE_NUMBERS = 1024;

/** What a domain has numbers for. */
export interface DomainSize {
  /** Pages that it begins with. */
  readonly pages: number;
  /** Of its tables. */
  readonly rules: TableRules;
  /** Whether its frames are translated for it. */
  readonly isTranslated?: boolean;
}

type NamedPages = Omit<DomainSize, 'rules'>;

function sharedInfoNumber({ pages, isTranslated }: NamedPages): Mfn {
  return ((isTranslated ? 0 : FIRST_MFN) + pages) as Mfn;
}

/** Numbers that a domain can name, from 0 on. */
export function numberLimit(size: NamedPages): Mfn {
  return (sharedInfoNumber(size) + 1 + GRANT_FRAMES + SPARE_NUMBERS) as Mfn;
}

/** Pages of a domain's machine-to-physical table. */
function tablePages(size: DomainSize): number {
  return size.isTranslated ? 0 : machineToPhysicalPages(numberLimit(size), size.rules);
}

/** Frames that the host needs beyond the guest's own pages: machine-to-physical table, shared_info, grant table. */
export function overheadFrames(pages: number): number {
  return tablePages({ pages, rules: TABLE_RULES['four-level'] }) + 1 + GRANT_FRAMES;
}

export function createMachineSpace(pool: FramePool, size: DomainSize): MachineSpace {
  return new MachineSpace(pool, numberLimit(size) + tablePages(size));
}

/** Frames of a domain that has just been given its memory. */
export interface DomainFrames {
  readonly sharedInfo: Mfn;
  readonly grantFrames: number;
  /** Gives the guest a frame of its grant table; −1 when there are no more. */
  readonly addGrantFrame: (index: number) => Mfn;
}

/** Pages of a domain that devices may reach: the pseudo-physical ones, and those that a balloon can bring beside them. */
export function guestPages({ pages, isTranslated }: NamedPages): number {
  return isTranslated ? pages : pages + SPARE_NUMBERS;
}

/**
 * Numbers of a domain's pages: of the pseudo-physical ones in order, then of those that a balloon can bring, then of
 * those that the machine-to-physical table is in.
 */
export function pageNumbers(size: DomainSize, permutation?: (pfn: number) => number): PageNumbers {
  const { pages } = size;
  if (size.isTranslated) return new NumberRuns([{ firstNumber: 0, pages }]);
  const firstSpare = sharedInfoNumber(size) + 1 + GRANT_FRAMES;
  const inOrder = new NumberRuns([
    { firstNumber: FIRST_MFN, pages },
    { firstNumber: firstSpare, pages: SPARE_NUMBERS },
    { firstNumber: numberLimit(size), pages: tablePages(size) },
  ]);
  return permutation ? new PermutedNumbers(inOrder, pages, permutation) : inOrder;
}

/**
 * Gives a domain its memory. Pages that a pager has put into the machine space already are not made.
 * @param permutation number, counted from the first, of each pseudo-physical frame; in order without one
 * @throws OutOfFrames
 */
export function addDomainFrames(
  paging: DomainPaging,
  space: MachineSpace,
  size: DomainSize,
  permutation?: (pfn: number) => number,
): DomainFrames {
  const { pool } = space;
  const numbers = pageNumbers(size, permutation);
  for (let pfn = 0; pfn < size.pages; pfn++) {
    const mfn = numbers.numberOf(pfn);
    if (space.frames[mfn] === NO_FRAME && !space.populate(mfn)) throw new OutOfFrames(pool.total);
    paging.types.adopt(mfn, FrameOwner.domain);
  }
  const sharedInfo = sharedInfoNumber(size);
  paging.addFrame(sharedInfo, pool.allocate(), FrameOwner.shared);
  const firstGrant = sharedInfo + 1;
  for (let spare = 0; spare < SPARE_NUMBERS; spare++) paging.offerNumber((firstGrant + GRANT_FRAMES + spare) as Mfn);
  return {
    sharedInfo,
    grantFrames: GRANT_FRAMES,
    addGrantFrame: (index) => {
      if (index >= GRANT_FRAMES || pool.available === 0) return -1 as Mfn;
      const mfn = (firstGrant + index) as Mfn;
      paging.addFrame(mfn, pool.allocate(), FrameOwner.shared);
      return mfn;
    },
  };
}
