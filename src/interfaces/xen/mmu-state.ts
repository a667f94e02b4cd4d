import { FrameMark, type FrameMarks } from '../../cpu/frame-marks.ts';
import type { MachineSpace } from '../../memory/machine-space.ts';
import type { MmuState, PageType } from '../../ops/contracts.ts';
import type { LazyMode } from '../../ops/schema.ts';
import { FRAME_TYPE_NAMES, FrameFlag, FrameType } from '../../paging/direct/frame-types.ts';
import type { DomainPaging } from '../../paging/domain-paging.ts';
import { type GuestVirtual, highWord, lowWord, type Mfn } from '../../x86/brand.ts';
import type { TableGeometry } from '../../x86/page-table.ts';
import type { XenVcpu } from './vcpu.ts';

/** The page tables and TLBs of a domain as the contracts look at them. */
export class XenMmuState implements MmuState {
  readonly examinesTables = true;
  readonly dropsWhatIsTold = false;
  readonly geometry: TableGeometry;
  /** Xen flushes what a change of a page's type makes wrong. */
  readonly removesWritable = true;
  readonly #paging: DomainPaging;
  readonly #space: MachineSpace;
  readonly #marks: FrameMarks;
  readonly #vcpus: readonly XenVcpu[];
  readonly #builderRoot: () => Mfn;

  constructor(
    paging: DomainPaging,
    space: MachineSpace,
    marks: FrameMarks,
    vcpus: readonly XenVcpu[],
    builderRoot: () => Mfn,
  ) {
    this.geometry = paging.rules.geometry;
    this.#paging = paging;
    this.#space = space;
    this.#marks = marks;
    this.#vcpus = vcpus;
    this.#builderRoot = builderRoot;
  }

  readEntry(table: number, index: number, out: Uint32Array): boolean {
    return this.#paging.entries.read(table, index, out);
  }

  typeOf(page: number): PageType {
    return FRAME_TYPE_NAMES[this.#paging.types.type.get(page)] ?? 'none';
  }

  isPinned(page: number): boolean {
    return this.#paging.types.hasFlag(page, FrameFlag.pinned);
  }

  /** What is left of a table's type count when its other users are taken off: no table has to be searched. */
  links(table: number): number {
    const { types } = this.#paging;
    const type = types.type.get(table);
    if (type < FrameType.level1 || type > FrameType.level4) return 0;
    let links = types.typeCount.get(table);
    if (types.hasFlag(table, FrameFlag.pinned)) links--;
    if (types.hasFlag(table, FrameFlag.claimed)) links--;
    for (const { index } of this.#vcpus) {
      if (this.#paging.root(index) === table) links--;
      if (this.#paging.userRoot(index) === table) links--;
    }
    return links + Math.min(0, types.linear.get(table));
  }

  rootInUse(table: number): number {
    let set = 0;
    for (const { index } of this.#vcpus) {
      if (this.#paging.root(index) === table || this.#paging.userRoot(index) === table) set |= 1 << index;
    }
    return set;
  }

  currentRoot(vcpu: number): number {
    return this.#paging.root(vcpu);
  }

  /** A guest gathers its calls by itself; the host sees a lazy section only as a multicall. */
  lazyMode(): LazyMode {
    return 'none';
  }

  updatesPutOff(): number {
    return 0;
  }

  cachedTranslations(
    page: number,
    visit: (vcpu: number, address: GuestVirtual, root: number, writable: boolean) => void,
  ): void {
    const frame = this.#space.frameOf(page as Mfn);
    if (frame < 0 || !this.#marks.has(frame, FrameMark.cached)) return;
    const address = this.#space.addressOf(page as Mfn);
    for (const { index, processor } of this.#vcpus) {
      const { kernelTlb, userTlb } = processor.memory;
      kernelTlb.visitFrame(address, (virtual, writable) => visit(index, virtual, this.#paging.root(index), writable));
      userTlb.visitFrame(address, (virtual, writable) => visit(index, virtual, this.#paging.userRoot(index), writable));
    }
  }

  watchTranslation(vcpu: number, address: GuestVirtual): void {
    const memory = this.#vcpus[vcpu]?.processor.memory;
    memory?.kernelTlb.invalidatePage(lowWord(address), highWord(address));
    memory?.userTlb.invalidatePage(lowWord(address), highWord(address));
  }

  inUserMode(vcpu: number): boolean {
    return this.#vcpus[vcpu]?.processor.userMode ?? false;
  }

  isBuilderRoot(table: number): boolean {
    return table === this.#builderRoot();
  }
}
