import type { Archive, Archived } from '../../archive/archive.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { hexadecimal } from '../../inspect/text.ts';
import { UNKNOWN_TABLE } from '../../ops/schema.ts';
import { type GuestVirtual, PAGE_SIZE, type Pfn } from '../../x86/brand.ts';
import { Cr0, Register } from '../../x86/registers.ts';
import {
  type CallName,
  DESCRIPTORS,
  HOST_VECTORS,
  KERNEL_CODE,
  KERNEL_RING,
  POWER_DOWN,
  RESERVED_TOP,
  RESTART,
  RING_SLOTS,
  SYSTEM_CALL_VECTOR,
  TLS_ENTRIES,
} from './abi.ts';
import { GATE_MASKS_INTERRUPTS, GateType, gateOf, VECTORS } from './descriptor-tables.ts';
import type { LguestDomain } from './domain.ts';

/** Arguments from the first on; those that a call does not have are whatever the registers held. */
type Arguments = Readonly<Uint32Array>;

const MOST_ARGUMENTS = 4;
const MOST_STACK_PAGES = 2;
/** Characters of a text that the guest names. */
const LONGEST_TEXT = 127;
const TSC_KILOHERTZ = 1_000_000;

/**
 * Hypercalls: those made, and those that wait in a ring until one is made. Whatever cannot be carried out ends the guest,
 * since no call has a result. A call that meets an absent page is made again; it has changed nothing then that a second
 * time would change differently.
 */
export class Hypercalls implements Archived {
  readonly #domain: LguestDomain;
  /** The slot of the ring that comes next. */
  #nextSlot = 0;
  readonly #arguments = new Uint32Array(MOST_ARGUMENTS);

  constructor(domain: LguestDomain) {
    this.#domain = domain;
  }

  archive(archive: Archive): void {
    this.#nextSlot = archive.value('nextSlot', this.#nextSlot);
  }

  /** Carries out the call that stands in the registers, after those in the ring. @throws PageAbsent, DomainCrash */
  execute(): void {
    const domain = this.#domain;
    const { processor } = domain.vcpu;
    const { argumentRegisters } = domain.era;
    const number = processor.low(Register.rax);
    if (domain.data.isNamed) this.#drainRing();
    this.#arguments.fill(0);
    argumentRegisters.forEach((register, index) => {
      this.#arguments[index] = processor.low(register);
    });
    if (!domain.data.isNamed && domain.era.calls[number] !== 'initialize') {
      throw new DomainCrash(`the guest made hypercall ${number} before it named its shared data`);
    }
    this.#carryOut(number);
  }

  /** At most one lap: the guest may fill slots again as fast as they are freed. */
  #drainRing(): void {
    const { data, era } = this.#domain;
    for (let count = 0; count < RING_SLOTS && data.isWaiting(this.#nextSlot); count++) {
      const slot = this.#nextSlot;
      this.#arguments.fill(0);
      era.slotArguments.forEach((argument, index) => {
        this.#arguments[argument] = data.slotWord(slot, index + 1);
      });
      this.#carryOut(data.slotWord(slot, 0));
      data.freeSlot(slot);
      this.#nextSlot = (slot + 1) % RING_SLOTS;
    }
  }

  #carryOut(number: number): void {
    const domain = this.#domain;
    const name = domain.era.calls[number];
    if (name === undefined) throw new DomainCrash(`the guest made hypercall ${number}, which there is not`);
    CALLS[name](domain, this.#arguments);
    domain.statistics.hypercall(number);
  }
}

type Call = (domain: LguestDomain, values: Arguments) => void;

const CALLS: Readonly<Record<CallName, Call>> = {
  flushAsync: ({ operations, vcpu }) => void operations.misc.flushLazyMode(vcpu.index),
  initialize,
  shutdown,
  loadGdt,
  newPageTable: ({ operations, vcpu }, [root = 0]) => {
    vcpu.rootLow = root % PAGE_SIZE;
    operations.mmu.writeCr3(vcpu.index, Math.floor(root / PAGE_SIZE) as Pfn, false, false);
  },
  flushTlb: ({ operations: { mmu }, vcpu }, [all]) => {
    if (all) mmu.flushTlbKernel(vcpu.index);
    else mmu.flushTlbUser(vcpu.index);
  },
  loadIdtEntry,
  setStack,
  taskSwitched: ({ operations: { cpu }, vcpu }, [set]) => {
    if (set) cpu.writeCr0(vcpu.index, (vcpu.processor.cr0 | Cr0.taskSwitched) >>> 0);
    else cpu.clts(vcpu.index);
  },
  setClockEvent: (domain, [delay = 0]) => domain.setTimer(delay),
  halt: ({ operations, vcpu }) => operations.irq.safeHalt(vcpu.index),
  setMiddleEntry: (domain, [table = 0, index = 0]) => middleEntryChanged(domain, table, index),
  setPte: ({ operations, vcpu }, [space = 0, address = 0, low = 0, high = 0]) => {
    const root = Math.floor(space / PAGE_SIZE) as Pfn;
    operations.mmu.setPteAt(vcpu.index, root, address as GuestVirtual, UNKNOWN_TABLE, 0, low, high);
  },
  setTopEntry: (domain, [table = 0, index = 0]) => topEntryChanged(domain, table, index),
  loadTls,
  notify: (domain, [address = 0]) => domain.notified(address),
  loadGdtEntry: (domain, [index = 0, low = 0, high = 0]) => setDescriptor(domain, index, low, high),
  // That it was made is all that counts.
  sendInterrupts: () => {},
};

function initialize(domain: LguestDomain, [address = 0]: Arguments): void {
  const { data, era, format } = domain;
  const { layout } = era;
  if (data.isNamed) throw new DomainCrash('the guest named its shared data twice');
  if (!data.name(address, domain.ramPages)) {
    throw new DomainCrash(`the guest's shared data at ${hexadecimal(address)} is not all in its memory`);
  }
  const vector = data.read(layout.systemCallVector);
  if (vector !== SYSTEM_CALL_VECTOR) throw new DomainCrash(`the guest wants system calls at vector ${vector}`);
  data.write(layout.tscKilohertz, TSC_KILOHERTZ);
  data.write(layout.reserveMemory, RESERVED_TOP[format]);
  if (layout.rootTable !== undefined) data.write(layout.rootTable, domain.vcpu.state.cr3);
  domain.writeTime();
}

/** The guest ends, in one of three ways that the call does not tell apart: it is off, restarts, or has panicked. */
function shutdown(domain: LguestDomain, [address = 0, way = 0]: Arguments): void {
  const text = readText(domain, address);
  if (way === RESTART) domain.end({ kind: 'reboot' });
  else if (text === POWER_DOWN) domain.end({ kind: 'poweroff' });
  else throw new DomainCrash(`the guest reported a crash (${text})`);
}

/** Up to its NUL; what is no RAM ends it as well. Characters that would disturb a terminal are left out. */
function readText(domain: LguestDomain, address: number): string {
  const bytes = domain.memory.readString(address, LONGEST_TEXT);
  return new TextDecoder()
    .decode(bytes)
    .replace(/[^\x20-\x7e]/g, '')
    .trim();
}

function setDescriptor(domain: LguestDomain, index: number, low: number, high: number): void {
  const { operations, vcpu } = domain;
  if (operations.cpu.writeGdtEntry(vcpu.index, UNKNOWN_TABLE, index, low, high) !== 0) {
    throw new DomainCrash(`the guest set descriptor ${index} of a table of ${DESCRIPTORS}`);
  }
}

/** All of the table, at a guest-physical address. */
function loadGdt(domain: LguestDomain, [address = 0, entries = 0]: Arguments): void {
  if (entries > DESCRIPTORS) throw new DomainCrash(`the guest loads a table of ${entries} descriptors`);
  const words = readWords(domain, address, entries * 2);
  for (let index = 0; index < entries; index++) {
    setDescriptor(domain, index, words[index * 2] as number, words[index * 2 + 1] as number);
  }
}

function loadTls(domain: LguestDomain, [address = 0]: Arguments): void {
  const { operations, vcpu } = domain;
  const words = readWords(domain, address, TLS_ENTRIES * 2);
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = words;
  operations.cpu.loadTls(vcpu.index, a, b, c, d, e, f, vcpu.index);
}

function readWords(domain: LguestDomain, address: number, count: number): Uint32Array {
  const words = new Uint32Array(count);
  for (let index = 0; index < count; index++) {
    const word = domain.memory.readWord(address + 4 * index);
    if (word === undefined)
      throw new DomainCrash(`the guest names descriptors at ${hexadecimal(address)}, where it has no memory`);
    words[index] = word;
  }
  return words;
}

/** The code segment is the kernel's, whatever the gate says. */
function loadIdtEntry({ operations, vcpu }: LguestDomain, [vector = 0, low = 0, high = 0]: Arguments): void {
  if (HOST_VECTORS.has(vector)) return;
  if (vector >= VECTORS) throw new DomainCrash(`the guest set a gate for vector ${vector}`);
  const gate = gateOf(low, high);
  if (gate === undefined) {
    vcpu.tables.clearGate(vector);
    return;
  }
  if (gate.type !== GateType.interrupt && gate.type !== GateType.trap) {
    throw new DomainCrash(`the guest set a gate of type ${gate.type} for vector ${vector}`);
  }
  const flags = gate.privilege | (gate.type === GateType.interrupt ? GATE_MASKS_INTERRUPTS : 0);
  operations.cpu.writeIdtEntry(vcpu.index, vector, KERNEL_CODE, gate.handler as GuestVirtual, flags);
}

function setStack(domain: LguestDomain, [segment = 0, pointer = 0, pages = 0]: Arguments): void {
  if ((segment & 3) !== KERNEL_RING || segment > 0xffff || pages > MOST_STACK_PAGES) {
    throw new DomainCrash(`the guest named a stack of ${pages} pages in segment ${hexadecimal(segment)}`);
  }
  const { operations, vcpu } = domain;
  operations.cpu.loadSp0(vcpu.index, segment, pointer as GuestVirtual);
}

/** An entry above level 1 was stored. What it says is the table's to tell; here it is for whoever watches. */
function topEntryChanged(domain: LguestDomain, table: number, index: number): void {
  const { operations, vcpu, format } = domain;
  const page = Math.floor(table / PAGE_SIZE) as Pfn;
  if (format === 'pae') operations.mmu.setPud(vcpu.index, page, index, ...wideEntry(domain, table, index));
  else operations.mmu.setPmd(vcpu.index, page, index, domain.memory.readWord(table + 4 * index) ?? 0, 0);
}

function middleEntryChanged(domain: LguestDomain, table: number, index: number): void {
  const page = Math.floor(table / PAGE_SIZE) as Pfn;
  domain.operations.mmu.setPmd(domain.vcpu.index, page, index, ...wideEntry(domain, table, index));
}

function wideEntry(domain: LguestDomain, table: number, index: number): [low: number, high: number] {
  const address = table + 8 * index;
  return [domain.memory.readWord(address) ?? 0, domain.memory.readWord(address + 4) ?? 0];
}
