import type { GuestVirtual } from '../../x86/brand.ts';
import { TABLE_GEOMETRY, type TableGeometry } from '../../x86/page-table.ts';

/** Formats of the tables that direct paging carries out. */
export type DirectFormat = 'four-level' | 'pae';

export type TableLevel = 1 | 2 | 3 | 4;

/** Indexes of a table, the last one included. */
interface SlotRange {
  readonly first: number;
  readonly last: number;
}

const NO_SLOTS: SlotRange = { first: 1, last: 0 };

/** What Xen's ABI demands of tables of a format, besides what the architecture says. */
export interface TableRules {
  readonly geometry: TableGeometry;
  /** Level of a root. */
  readonly topLevel: TableLevel;
  /** Addresses that the host answers itself; the machine-to-physical table stands at their start. */
  readonly hostWindow: { readonly start: GuestVirtual; readonly end: GuestVirtual };
  readonly machineToPhysicalBytes: 8 | 4;
  /** Ring of the guest's kernel. */
  readonly kernelPrivilege: 3 | 1;
  /** Entries of a top table that are the host's: nobody looks at what stands there. */
  readonly hostSlots: SlotRange;
  /** Entries of a live top table that the guest may not change. */
  readonly fixedSlots: SlotRange;
  /** An entry that a top table must have. */
  readonly requiredSlot: number | undefined;
  /** Bits of the high word that no present entry of a top table may have. */
  readonly topRefusedHigh: number;
  /** Whether an entry of a top table may name a top table. */
  readonly hasLinearTop: boolean;
}

/**
 * A PAE kernel's top table has four entries and no rights of its own, so NX and the bits for software are reserved in it;
 * the rest of its page is not looked at, and must never be walked as a table of level 2. Where the host's addresses are
 * (slot 3), it must have a table, and keep it.
 */
export const TABLE_RULES: Readonly<Record<DirectFormat, TableRules>> = {
  'four-level': {
    geometry: TABLE_GEOMETRY['four-level'],
    topLevel: 4,
    hostWindow: { start: -0x8000_0000_0000 as GuestVirtual, end: -0x7800_0000_0000 as GuestVirtual },
    machineToPhysicalBytes: 8,
    kernelPrivilege: 3,
    hostSlots: { first: 256, last: 271 },
    fixedSlots: { first: 256, last: 271 },
    requiredSlot: undefined,
    topRefusedHigh: 0,
    hasLinearTop: true,
  },
  pae: {
    geometry: TABLE_GEOMETRY.pae,
    topLevel: 3,
    hostWindow: { start: 0xf580_0000 as GuestVirtual, end: 0x1_0000_0000 as GuestVirtual },
    machineToPhysicalBytes: 4,
    kernelPrivilege: 1,
    hostSlots: NO_SLOTS,
    fixedSlots: { first: 3, last: 511 },
    requiredSlot: 3,
    topRefusedHigh: 0xfff0_0000,
    hasLinearTop: false,
  },
};

function isTopIn({ topLevel }: TableRules, range: SlotRange, level: number, index: number): boolean {
  return level === topLevel && index >= range.first && index <= range.last;
}

/** Whether an entry of a table of this level belongs to the host. */
export function isHostSlot(rules: TableRules, level: number, index: number): boolean {
  return isTopIn(rules, rules.hostSlots, level, index);
}

/** Whether the guest must leave an entry of a live table of this level as it is. */
export function isFixedSlot(rules: TableRules, level: number, index: number): boolean {
  return isTopIn(rules, rules.fixedSlots, level, index);
}

/** Whether a table of this level is none without this entry. */
export function isRequiredSlot(rules: TableRules, level: number, index: number): boolean {
  return level === rules.topLevel && index === rules.requiredSlot;
}

/** Whether an entry of a table of this level may name a table of the same level. */
export function mayBeLinear(rules: TableRules, level: number): boolean {
  return level < rules.topLevel || rules.hasLinearTop;
}

/** Bits of the high word that no present entry of a table of this level may have. */
export function refusedHigh(rules: TableRules, level: number): number {
  return level === rules.topLevel ? rules.topRefusedHigh : 0;
}

/** Whether the host answers for an address. */
export function isInHostWindow({ hostWindow }: TableRules, address: GuestVirtual): boolean {
  return address >= hostWindow.start && address < hostWindow.end;
}
