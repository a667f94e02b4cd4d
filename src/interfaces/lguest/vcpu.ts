import type { Archive, Archived } from '../../archive/archive.ts';
import { SegmentRegister } from '../../cpu/decode/instruction.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { Descriptor } from '../../cpu/processor-api.ts';
import { SystemState } from '../../cpu/protection/system-state.ts';
import type { TableFormat, Translation } from '../../cpu/translation.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { Cr0, Cr4, Flag, Register } from '../../x86/registers.ts';
import { KERNEL_CODE, KERNEL_DATA } from './abi.ts';
import { DescriptorTables } from './descriptor-tables.ts';

/** Control registers are the host's, but for TS: with protection of read-only pages, and with SSE. */
const CR0 = (Cr0.protection | Cr0.monitorCoprocessor | Cr0.extensionType | Cr0.numericError | Cr0.writeProtect) >>> 0;
const CR4 = Cr4.fxsave | Cr4.simdExceptions;

const DATA_SEGMENTS = [SegmentRegister.ds, SegmentRegister.es, SegmentRegister.ss] as const;
const EMPTY_SEGMENTS = [SegmentRegister.fs, SegmentRegister.gs] as const;

/** Finds descriptors in the host's table; there are no others. */
class LguestSystemState extends SystemState {
  readonly #tables: DescriptorTables;

  constructor(
    processor: Processor,
    translations: Readonly<Record<TableFormat, Translation>>,
    tables: DescriptorTables,
  ) {
    super(processor, translations);
    this.#tables = tables;
  }

  override read(selector: number, out: Descriptor): boolean {
    return this.#tables.read(selector, out);
  }
}

/** The one virtual processor of a guest. Its kernel runs in ring 1, and interrupts are never off for the processor itself. */
export class LguestVcpu implements Archived {
  readonly index = 0;
  readonly processor: Processor;
  readonly state: SystemState;
  readonly tables = new DescriptorTables();
  /** The kernel has called HALT, and nothing has come since. */
  halted = false;
  /** Waits for a page that the host brings in. */
  awaitsHost = false;
  /** An exception stands in the processor's mailbox, because a page for its delivery was absent. */
  exceptionWaits = false;
  /** Where the kernel is entered from programs. */
  stackSelector = 0;
  stackPointer = 0;
  /** Where in its page the root is that is loaded next. */
  rootLow = 0;

  constructor(processor: Processor, translations: Readonly<Record<TableFormat, Translation>>) {
    this.processor = processor;
    this.state = new LguestSystemState(processor, translations, this.tables);
  }

  archive(archive: Archive): void {
    archive.part('tables', this.tables);
    archive.part('processor', this.processor);
    archive.part('system', this.state);
    this.halted = archive.value('halted', this.halted);
    this.exceptionWaits = archive.value('exceptionWaits', this.exceptionWaits);
    this.stackSelector = archive.value('stackSelector', this.stackSelector);
    this.stackPointer = archive.value('stackPointer', this.stackPointer);
  }

  /** Begins at a kernel's 32-bit entry, with ESI 0 for the boot parameters' address; without a root paging is off. */
  enter(entry: number, format: 'two-level' | 'pae', root: number | undefined): void {
    const { processor, state } = this;
    processor.cr0 = CR0;
    processor.cr4 = format === 'pae' ? CR4 | Cr4.physicalAddressExtension : CR4;
    if (root === undefined) state.usePaging();
    else this.loadRoot(root);
    processor.flags = Flag.reserved | Flag.interrupt;
    const descriptor: Descriptor = { low: 0, high: 0 };
    this.tables.read(KERNEL_CODE, descriptor);
    processor.loadSegment(SegmentRegister.cs, KERNEL_CODE, descriptor);
    this.tables.read(KERNEL_DATA, descriptor);
    for (const segment of DATA_SEGMENTS) processor.loadSegment(segment, KERNEL_DATA, descriptor);
    for (const segment of EMPTY_SEGMENTS) processor.loadSegment(segment, 0, null);
    processor.userMode = false;
    processor.setValue(Register.rsi, 0);
    processor.rip = entry as GuestVirtual;
  }

  /** From here on the guest's tables are walked. @param root guest-physical */
  loadRoot(root: number): void {
    const { processor, state } = this;
    processor.cr0 = (processor.cr0 | Cr0.paging) >>> 0;
    state.cr3 = root;
    state.usePaging();
  }

  /** Whether floating-point instructions fault. */
  set taskSwitched(is: boolean) {
    const { processor } = this;
    processor.cr0 = (is ? processor.cr0 | Cr0.taskSwitched : processor.cr0 & ~Cr0.taskSwitched) >>> 0;
  }
}
