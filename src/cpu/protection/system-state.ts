import type { Archive, Archived } from '../../archive/archive.ts';
import { PageAbsent } from '../../memory/page-absent.ts';
import { type GuestVirtual, joinSigned, PAGE_SIZE } from '../../x86/brand.ts';
import { Cr0, Cr4, Efer, Vector } from '../../x86/registers.ts';
import type { SegmentRegister } from '../decode/instruction.ts';
import { baseOf, DescriptorBit, limitOf } from '../descriptor.ts';
import { userSelectors } from '../fast-call-rules.ts';
import type { Processor } from '../processor.ts';
import type { Descriptor, DescriptorSource } from '../processor-api.ts';
import type { TableFormat, Translation } from '../translation.ts';
import { PAE_TOPS } from '../walk.ts';

/**
 * Protection as the architecture has it, for interfaces whose kernels run in ring 0 (SDM vol. 3A, chapters 2, 5 and 6); lguest, in
 * ring 1, has the registers and the returns too.
 * This file holds the registers; beside it stand the ways into ring 0 (delivery.ts, fast-calls.ts, gates.ts), those out of
 * it (returns.ts), tasks (task-switch.ts), what loads the registers (control-registers.ts, table-registers.ts, msr.ts), and
 * ports (ports.ts).
 */

/** GDTR or IDTR. */
export interface TableRegister {
  base: GuestVirtual;
  limit: number;
}

/** LDTR or TR, with the hidden part. */
export interface SystemSegment extends TableRegister {
  selector: number;
  /** Type of the descriptor; 0 when nothing is loaded. */
  type: number;
}

const pair = new Uint32Array(2);

/** DR6 and DR7 with no condition and no breakpoint (SDM vol. 3A, table 10-1). */
const DR6_RESET = 0xffff_0ff0;
const DR7_RESET = 0x400;

/** PAT after reset (SDM vol. 3A, 12.12.4). */
const PAT_RESET = [0x0007_0406, 0x0007_0406] as const;

/** The system registers of one processor. */
export class SystemState implements DescriptorSource, Archived {
  readonly processor: Processor;
  readonly #translations: Readonly<Record<TableFormat, Translation>>;
  readonly gdt: TableRegister = { base: 0 as GuestVirtual, limit: 0xffff };
  readonly idt: TableRegister = { base: 0 as GuestVirtual, limit: 0x3ff };
  readonly ldt: SystemSegment = { selector: 0, base: 0 as GuestVirtual, limit: 0, type: 0 };
  readonly task: SystemSegment = { selector: 0, base: 0 as GuestVirtual, limit: 0, type: 0 };
  /** Low and high halves of DR0–DR7. */
  readonly debug = new Uint32Array(16);
  cr3 = 0;
  /** Called before the processor walks what the control registers say, except after a reset. */
  onTables: () => void = () => {};
  /** Kernel and user selectors of SYSCALL and SYSRET, low and high half. */
  readonly star = new Uint32Array(2);
  syscallEntry = 0 as GuestVirtual;
  /** Kept for the kernel that writes it; processors of this make have no SYSCALL outside 64-bit code. */
  compatibilityEntry = 0 as GuestVirtual;
  /** Flags that SYSCALL clears. */
  syscallMask = 0;
  sysenterSelector = 0;
  sysenterStack = 0 as GuestVirtual;
  sysenterEntry = 0 as GuestVirtual;
  timeStampAuxiliary = 0;
  /** Whether generated code may carry out SYSCALL, SYSRET and IRET. Otherwise they leave, for someone to see them. */
  #callsInCode = false;
  #inNonMaskable = false;
  readonly pat = Uint32Array.from(PAT_RESET);

  /** @param translations what a page walk goes through, by the format that the control registers ask for */
  constructor(processor: Processor, translations: Readonly<Record<TableFormat, Translation>>) {
    this.processor = processor;
    this.#translations = translations;
    processor.descriptors = this;
    this.reset();
  }

  archive(archive: Archive): void {
    archive.record('gdt', this.gdt);
    archive.record('idt', this.idt);
    archive.record('ldt', this.ldt);
    archive.record('task', this.task);
    archive.words('debug', this.debug);
    this.cr3 = archive.value('cr3', this.cr3);
    archive.words('star', this.star);
    this.syscallEntry = archive.value('syscallEntry', this.syscallEntry);
    this.compatibilityEntry = archive.value('compatibilityEntry', this.compatibilityEntry);
    this.syscallMask = archive.value('syscallMask', this.syscallMask);
    this.sysenterSelector = archive.value('sysenterSelector', this.sysenterSelector);
    this.sysenterStack = archive.value('sysenterStack', this.sysenterStack);
    this.sysenterEntry = archive.value('sysenterEntry', this.sysenterEntry);
    this.timeStampAuxiliary = archive.value('timeStampAuxiliary', this.timeStampAuxiliary);
    archive.words('pat', this.pat);
  }

  /** The processor's own control registers have been read back before. */
  restored(): void {
    this.usePaging();
    this.useCalls();
  }

  /** The registers of this class as they are after INIT; PAT and the calls' entries stay (SDM vol. 3A, table 10-1). */
  reset(): void {
    Object.assign(this.gdt, { base: 0, limit: 0xffff });
    Object.assign(this.idt, { base: 0, limit: 0x3ff });
    Object.assign(this.ldt, { selector: 0, base: 0, limit: 0, type: 0 });
    Object.assign(this.task, { selector: 0, base: 0, limit: 0, type: 0 });
    this.debug.fill(0);
    this.debug[12] = DR6_RESET;
    this.debug[14] = DR7_RESET;
    this.cr3 = 0;
    this.#walk();
    this.useCalls();
  }

  set callsInCode(allowed: boolean) {
    this.#callsInCode = allowed;
    this.useCalls();
  }

  /** Whether the handler of an NMI runs, until the next IRET. */
  get inNonMaskable(): boolean {
    return this.#inNonMaskable;
  }

  set inNonMaskable(inside: boolean) {
    if (inside === this.#inNonMaskable) return;
    this.#inNonMaskable = inside;
    this.useCalls();
  }

  /** Makes SYSCALL, SYSRET and IRET do what their registers, EFER and GDTR say. After each change of one of these. */
  useCalls(): void {
    const { processor, syscallEntry: entry, syscallMask: mask, gdt } = this;
    const isOn = this.#callsInCode && (processor.efer & Efer.syscall) !== 0;
    const selectors = this.star[1] as number;
    const { code, stack } = userSelectors(selectors);
    const kernelCode = selectors & 0xffff;
    const used = [code, stack, kernelCode, kernelCode + 8];
    const isOfTable = (selector: number) => selector > 3 && (selector & 4) === 0 && (selector | 7) <= gdt.limit;
    const inTable = used.every(isOfTable);
    const table = inTable && gdt.base % 8 === 0 && !this.#inNonMaskable ? gdt.base : undefined;
    processor.fastCalls = isOn ? { entry, mask, selectors, table } : undefined;
  }

  get protectedMode(): boolean {
    return (this.processor.cr0 & Cr0.protection) !== 0;
  }

  get longMode(): boolean {
    return (this.processor.efer & Efer.longModeActive) !== 0;
  }

  // Paging

  /**
   * Makes the processor walk what the control registers say.
   * @param keep as of `writeCr3`
   */
  usePaging(keep = false): void {
    this.onTables();
    this.#walk(keep);
  }

  /** The number of the process that translations are kept for (SDM vol. 3A, 4.10.1). */
  get processContext(): number {
    return (this.processor.cr4 & Cr4.processContexts) === 0 ? 0 : this.cr3 % PAGE_SIZE;
  }

  #walk(keep = false): void {
    const { processor } = this;
    const { format } = this;
    const translation = this.#translations[format];
    if (processor.translation !== translation) processor.translation = translation;
    const pages = this.cr3 / PAGE_SIZE;
    const root = Math.floor(format === 'pae' ? pages * PAE_TOPS : pages);
    processor.setRoots(root, root, { number: this.processContext, keep });
  }

  /** What the control registers say of page tables. */
  get format(): TableFormat {
    const { cr0, cr4 } = this.processor;
    if ((cr0 & Cr0.paging) === 0) return 'none';
    if ((cr4 & Cr4.physicalAddressExtension) === 0) return 'two-level';
    return this.longMode ? 'four-level' : 'pae';
  }

  // Accesses that the processor makes for itself, with the rights of ring 0

  /** Reads a 64-bit value; otherwise the exception is left in the processor. The user's rights must not be in force. */
  load(address: GuestVirtual, out: Uint32Array): boolean {
    const { processor } = this;
    if (processor.memory.readLong(address, out)) return true;
    if (!processor.memory.loadAt(address, 8)) return false;
    processor.loadedValue(out);
    return true;
  }

  /** Pushes a 64-bit value, as part of a frame whose stack pointer is set last. */
  push(address: GuestVirtual, low: number, high: number): boolean {
    const { processor } = this;
    if (processor.memory.writeLong(address, low, high)) return true;
    processor.setStoredValue(low, high);
    return processor.memory.storeAt(address, 8, Vector.stackFault);
  }

  /** Reads 2 or 4 bytes, unsigned; undefined with the exception left. */
  loadWord(address: GuestVirtual, bytes: 2 | 4): number | undefined {
    const { processor } = this;
    if (!processor.memory.loadAt(address, bytes)) return undefined;
    processor.loadedValue(pair);
    return bytes === 4 ? (pair[0] as number) : (pair[0] as number) & 0xffff;
  }

  /** Writes 2 or 4 bytes; otherwise the exception is left. */
  storeWord(address: GuestVirtual, bytes: 2 | 4, value: number): boolean {
    const { processor } = this;
    processor.setStoredValue(value >>> 0, 0);
    return processor.memory.storeAt(address, bytes);
  }

  /** Whether the step succeeded; it runs with the rights of ring 0. */
  asSupervisor(step: () => boolean): boolean {
    const { processor } = this;
    if (!processor.userMode) return step();
    processor.userMode = false;
    try {
      return step();
    } finally {
      processor.userMode = processor.privilege === 3;
    }
  }

  // Descriptors

  /** A table that cannot be read counts as one that ends earlier: a kernel whose GDT is swapped out does not exist. */
  read(selector: number, out: Descriptor): boolean {
    const address = this.#descriptorAddress(selector, 8);
    if (address === undefined || !this.processor.memory.readLong(address, pair)) return false;
    out.low = pair[0] as number;
    out.high = pair[1] as number;
    return true;
  }

  /** Where a descriptor stands; undefined beyond the end of its table. */
  #descriptorAddress(selector: number, bytes: number): GuestVirtual | undefined {
    const table = (selector & 4) === 0 ? this.gdt : this.ldt;
    const offset = selector & 0xfff8;
    const isLoaded = (selector & 4) === 0 || this.ldt.type !== 0;
    if (!isLoaded || offset + bytes - 1 > table.limit) return undefined;
    return (table.base + offset) as GuestVirtual;
  }

  /** Reads the descriptor of an LDT or a TSS, which in long mode has 16 bytes; `high` is the base's upper half. */
  readSystem(selector: number, out: Descriptor): { base: GuestVirtual; limit: number } | undefined {
    const bytes = this.longMode ? 16 : 8;
    const address = this.#descriptorAddress(selector, bytes);
    if (address === undefined || (selector & 4) !== 0 || !this.read(selector, out)) return undefined;
    let upper = 0;
    if (bytes === 16) {
      if (!this.processor.memory.readLong((address + 8) as GuestVirtual, pair)) return undefined;
      upper = pair[0] as number;
    }
    return { base: joinSigned(baseOf(out), upper) as GuestVirtual, limit: limitOf(out) };
  }

  /** Loads a segment whose checks are done, and marks its descriptor as accessed. */
  loadSegment(segment: SegmentRegister, selector: number, descriptor: Descriptor | null): void {
    this.processor.loadSegment(segment, selector, descriptor);
    const unmarked = descriptor !== null && (descriptor.high & DescriptorBit.accessed) === 0;
    if (unmarked) this.changeDescriptor(selector, DescriptorBit.accessed, 0);
  }

  /**
   * Sets and clears bits in the upper word of a descriptor: accessed, busy. Kernels mark segments beforehand; where the
   * page would have to be brought in for it they stay as they are, since what was loaded is loaded.
   */
  changeDescriptor(selector: number, set: number, clear: number): void {
    const address = this.#descriptorAddress(selector, 8);
    if (address === undefined) return;
    const { memory } = this.processor;
    try {
      if (!memory.readLong(address, pair)) return;
      const changed = (((pair[1] as number) | set) & ~clear) >>> 0;
      if (changed !== pair[1]) memory.writeLong(address, pair[0] as number, changed);
    } catch (absent) {
      if (!(absent instanceof PageAbsent)) throw absent;
    }
  }
}
