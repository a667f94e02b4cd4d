import { TSC_FREQUENCY } from '../../domain/clock.ts';
import { PAGE_SHIFT } from '../../x86/brand.ts';
import { ENTRY_FRAME_HIGH, ENTRY_FRAME_LOW } from '../../x86/page-table.ts';
import { Pte } from '../../x86/registers.ts';
import { Call, Relocation } from './abi.ts';
import { type Assembler, Condition, Reg } from './assembler.ts';
import { type HostCall, MADE_READ_ONLY, PrivateCall } from './host-call.ts';
import { MOST_RECORDS, WINDOW, WindowField } from './window.ts';

/**
 * The code of each call. Kernels stay in ring 0 of a processor that is emulated anyway: what they may do there by an
 * instruction, the ROM does by that instruction, and only what no instruction is for goes to the host. Arguments come in
 * EAX, EDX, ECX, then on the stack; results go to EAX or EDX:EAX (regparm(3)).
 */
export interface CallCode {
  readonly relocation: Relocation;
  /** For `call` and `jump`. */
  readonly write?: (code: Assembler) => void;
}

/** Label of the code that records that the entry at EDX has changed, and returns from the call. */
const APPEND = 'append';

const COUNT = { displacement: WINDOW + WindowField.count };

const inline = (...bytes: readonly number[]): CallCode => ({
  relocation: Relocation.call,
  write: (code) => {
    code.bytes(...bytes);
    code.return();
  },
});

const host = (call: HostCall): CallCode => ({ relocation: Relocation.call, write: (code) => callHost(code, call) });

const written = (write: (code: Assembler) => void): CallCode => ({ relocation: Relocation.call, write });

const jump = (...bytes: readonly number[]): CallCode => ({
  relocation: Relocation.jump,
  write: (code) => code.bytes(...bytes),
});

const NATIVE: CallCode = { relocation: Relocation.none };
const NOTHING: CallCode = { relocation: Relocation.nothing };

/** Goes to the host and returns. */
export function callHost(code: Assembler, call: HostCall): void {
  goToHost(code, call);
  code.return();
}

function goToHost(code: Assembler, call: HostCall): void {
  code.push(Reg.ebx);
  code.moveNumber(Reg.ebx, call);
  code.bytes(0x0f, 0x01, 0xc1); // vmcall
  code.pop(Reg.ebx);
}

/**
 * What several calls end with. Interrupts are off while a record is appended: what serves one may append records too.
 */
export function writeSharedCode(code: Assembler): void {
  code.label(APPEND);
  code.bytes(0x9c); // pushfd
  code.bytes(0xfa); // cli
  code.load(Reg.ecx, COUNT);
  code.store({ index: Reg.ecx, scale: 4, displacement: WINDOW + WindowField.records }, Reg.edx);
  code.bytes(0x41); // inc ecx
  code.store(COUNT, Reg.ecx);
  code.compareRegister(Reg.ecx, MOST_RECORDS);
  code.jumpIf(Condition.below, 'appended');
  goToHost(code, PrivateCall.drainFull);
  code.label('appended');
  code.bytes(0x9d); // popfd
  code.return();
}

/** Code that touches an entry for the kernel, or asks the host to. */
export interface EntryCode {
  /** Labels in front of it and behind. */
  readonly from: string;
  readonly to: string;
  /** Words on the stack above the return address, when it gets there. */
  readonly pushed: number;
  /** Whether the kernel reads the entry by it. */
  readonly isRead: boolean;
}

export const ENTRY_CODE: readonly EntryCode[] = [
  { from: 'set entry', to: 'entry is set', pushed: 0, isRead: false },
  { from: 'set long entry', to: 'long entry is set', pushed: 2, isRead: false },
];

/** The same with direct paging, by the host. */
export const DIRECT_ENTRY_CODE: readonly EntryCode[] = [
  { from: 'ask for long entry', to: 'long entry was asked for', pushed: 1, isRead: false },
  { from: 'swap long entry', to: 'long entry was swapped', pushed: 1, isRead: false },
  { from: 'get long entry', to: 'long entry was got', pushed: 1, isRead: true },
];

/** Labels of the words that the host fills when entries hold machine frame numbers: pages of the memory, and their distance. */
export const PAGES = 'pages';
const DISTANCE = 'distance';

/** Entries hold pages' own numbers until the host says otherwise: no number is one of so many pages. */
export function writeNumbers(code: Assembler): void {
  code.label(PAGES);
  code.word(0);
  code.label(DISTANCE);
  code.word(0);
}

function askForLongEntry(code: Assembler): void {
  code.label('ask for long entry');
  callHost(code, Call.setEntryLong);
  code.label('long entry was asked for');
}

function swapLongEntry(code: Assembler): void {
  code.label('swap long entry');
  callHost(code, Call.swapEntryLong);
  code.label('long entry was swapped');
}

/** The entry at EAX comes back in EDX:EAX as the kernel has asked for it: as `DirectTables.showAsStored` has it. */
function getLongEntry(code: Assembler): void {
  code.push(Reg.ebx);
  code.call('get the place');
  code.label('get the place');
  code.pop(Reg.ebx);
  code.label('get long entry');
  code.load(Reg.edx, { base: Reg.eax, displacement: 4 });
  code.load(Reg.eax, { base: Reg.eax });
  code.label('long entry was got');
  code.bytes(0xa8, Pte.present); // test al, …
  code.jumpIf(Condition.zero, 'names no page');
  code.bytes(0xf7, 0xc2); // test edx, …
  code.word(MADE_READ_ONLY);
  code.jumpIf(Condition.zero, 'is as it was set');
  code.bytes(0x83, 0xc8, Pte.writable); // or eax, …
  code.bytes(0x81, 0xe2); // and edx, …
  code.word(~MADE_READ_ONLY >>> 0);
  code.label('is as it was set');
  code.bytes(0xf7, 0xc2); // test edx, …
  code.word(ENTRY_FRAME_HIGH);
  code.jumpIf(Condition.notZero, 'names no page');
  code.move(Reg.ecx, Reg.eax);
  code.bytes(0xc1, 0xe9, PAGE_SHIFT); // shr ecx, …
  code.bytes(0x3b, 0x8b); // cmp ecx, [ebx + …]
  code.distance('get the place', PAGES);
  code.jumpIf(Condition.aboveOrEqual, 'names no page');
  code.bytes(0x2b, 0x8b); // sub ecx, [ebx + …]
  code.distance('get the place', DISTANCE);
  code.jumpIf(Condition.aboveOrEqual, 'is in the memory');
  code.bytes(0x03, 0x8b); // add ecx, [ebx + …]
  code.distance('get the place', PAGES);
  code.label('is in the memory');
  code.bytes(0xc1, 0xe1, PAGE_SHIFT); // shl ecx, …
  code.bytes(0x25); // and eax, …
  code.word(~ENTRY_FRAME_LOW);
  code.bytes(0x09, 0xc8); // or eax, ecx
  code.label('names no page');
  code.pop(Reg.ebx);
  code.return();
}

/** EAX is stored at EDX. */
function setEntry(code: Assembler): void {
  code.label('set entry');
  code.store({ base: Reg.edx }, Reg.eax);
  code.label('entry is set');
  code.jump(APPEND);
}

/** EDX:EAX is stored at ECX, in one step for other processors that walk the table. */
function setEntryLong(code: Assembler): void {
  code.push(Reg.ebx);
  code.push(Reg.esi);
  code.move(Reg.esi, Reg.ecx);
  code.move(Reg.ebx, Reg.eax);
  code.move(Reg.ecx, Reg.edx);
  code.label('set long entry');
  code.load(Reg.eax, { base: Reg.esi });
  code.load(Reg.edx, { base: Reg.esi, displacement: 4 });
  code.label('exchange');
  code.bytes(0xf0, 0x0f, 0xc7, 0x0e); // lock cmpxchg8b [esi]
  code.jumpIf(Condition.notZero, 'exchange');
  code.label('long entry is set');
  code.move(Reg.edx, Reg.esi);
  code.pop(Reg.esi);
  code.pop(Reg.ebx);
  code.jump(APPEND);
}

/** The kernel has changed the entry at EAX by itself. */
function updateEntry(code: Assembler): void {
  code.move(Reg.edx, Reg.eax);
  code.jump(APPEND);
}

/** A descriptor, ECX and the word on the stack, goes to number EDX of the table at EAX. */
function writeDescriptor(code: Assembler): void {
  code.store({ base: Reg.eax, index: Reg.edx, scale: 8 }, Reg.ecx);
  code.load(Reg.ecx, { base: Reg.esp, displacement: 4 });
  code.store({ base: Reg.eax, index: Reg.edx, scale: 8, displacement: 4 }, Reg.ecx);
  code.return();
}

/** Nothing but the interrupt flag of EAX counts. */
function setInterruptMask(code: Assembler): void {
  code.bytes(0xf6, 0xc4, 0x02); // test ah, 2
  code.jumpIf(Condition.zero, 'interrupts off');
  code.bytes(0xfb); // sti
  code.return();
  code.label('interrupts off');
  code.bytes(0xfa); // cli
  code.return();
}

const IO_PRIVILEGE = 0x3000;

/** EAX has the I/O privilege where flags have it. */
function setIoPrivilege(code: Assembler): void {
  code.bytes(0x25); // and eax, …
  code.word(IO_PRIVILEGE);
  code.bytes(0x9c); // pushfd
  code.andNumber({ base: Reg.esp }, ~IO_PRIVILEGE >>> 0);
  code.or({ base: Reg.esp }, Reg.eax);
  code.bytes(0x9d); // popfd
  code.return();
}

/**
 * EAX is the mode, 0 for none. What waits may wait in any of them, and without, until a flush; leaving one makes everything
 * visible.
 */
function setLazyMode(code: Assembler): void {
  code.compareRegister(Reg.eax, 0);
  code.jumpIf(Condition.notZero, 'may wait');
  code.compareNumber(COUNT, 0);
  code.jumpIf(Condition.zero, 'may wait');
  goToHost(code, PrivateCall.drainLazy);
  code.label('may wait');
  code.return();
}

function getCycleFrequency(code: Assembler): void {
  code.moveNumber(Reg.eax, TSC_FREQUENCY);
  code.moveNumber(Reg.edx, 0);
  code.return();
}

export const CALL_CODE: Readonly<Record<Call, CallCode>> = {
  [Call.cpuid]: inline(0x0f, 0xa2), // cpuid
  [Call.writeMsr]: inline(0x0f, 0x30), // wrmsr
  [Call.readMsr]: inline(0x0f, 0x32), // rdmsr
  [Call.setGdt]: inline(0x0f, 0x01, 0x10), // lgdt [eax]
  [Call.setLdt]: inline(0x0f, 0x00, 0xd0), // lldt ax
  [Call.setIdt]: inline(0x0f, 0x01, 0x18), // lidt [eax]
  [Call.setTask]: inline(0x0f, 0x00, 0xd8), // ltr ax
  [Call.getGdt]: inline(0x0f, 0x01, 0x00), // sgdt [eax]
  [Call.getLdt]: inline(0x0f, 0x00, 0xc0), // sldt eax
  [Call.getIdt]: inline(0x0f, 0x01, 0x08), // sidt [eax]
  [Call.getTask]: inline(0x0f, 0x00, 0xc8), // str eax
  [Call.writeGdtEntry]: written(writeDescriptor),
  [Call.writeLdtEntry]: written(writeDescriptor),
  [Call.writeIdtEntry]: written(writeDescriptor),
  // The processor reads the task's segment, where the kernel has written the stack before.
  [Call.updateKernelStack]: NOTHING,
  [Call.setCr0]: inline(0x0f, 0x22, 0xc0), // mov cr0, eax
  [Call.setCr2]: inline(0x0f, 0x22, 0xd0), // mov cr2, eax
  [Call.setCr3]: inline(0x0f, 0x22, 0xd8), // mov cr3, eax
  [Call.setCr4]: inline(0x0f, 0x22, 0xe0), // mov cr4, eax
  [Call.getCr0]: inline(0x0f, 0x20, 0xc0), // mov eax, cr0
  [Call.getCr2]: inline(0x0f, 0x20, 0xd0), // mov eax, cr2
  [Call.getCr3]: inline(0x0f, 0x20, 0xd8), // mov eax, cr3
  [Call.getCr4]: inline(0x0f, 0x20, 0xe0), // mov eax, cr4
  [Call.writeBack]: NOTHING,
  [Call.setDebug]: host(Call.setDebug),
  [Call.getDebug]: host(Call.getDebug),
  [Call.readCounter]: inline(0x0f, 0x33), // rdpmc
  [Call.readTimeStamp]: inline(0x0f, 0x31), // rdtsc
  [Call.clearTaskSwitched]: inline(0x0f, 0x06), // clts
  [Call.enableInterrupts]: inline(0xfb), // sti
  [Call.disableInterrupts]: inline(0xfa), // cli
  [Call.getInterruptMask]: inline(0x9c, 0x58), // pushfd; pop eax
  [Call.setInterruptMask]: written(setInterruptMask),
  [Call.interruptReturn]: jump(0xcf), // iretd
  [Call.systemExit]: jump(0xfb, 0x0f, 0x35), // sti; sysexit
  [Call.halt]: inline(0xfb, 0xf4), // sti; hlt
  [Call.reboot]: host(Call.reboot),
  [Call.shutDown]: host(Call.shutDown),
  [Call.setEntry]: written(setEntry),
  [Call.setEntryLong]: written(setEntryLong),
  [Call.updateEntry]: written(updateEntry),
  [Call.updateEntryLong]: written(updateEntry),
  // Tables hold guest-physical numbers: EAX is argument and result.
  [Call.machineToPhysical]: inline(),
  [Call.physicalToMachine]: inline(),
  [Call.allocatePage]: host(Call.allocatePage),
  [Call.releasePage]: host(Call.releasePage),
  [Call.invalidatePage]: inline(0x0f, 0x01, 0x38), // invlpg [eax]
  [Call.flushTlb]: host(Call.flushTlb),
  [Call.setLinearMapping]: host(Call.setLinearMapping),
  [Call.getEntryLong]: NATIVE,
  [Call.swapEntryLong]: NATIVE,
  [Call.setIoPrivilege]: written(setIoPrivilege),
  [Call.setInitialApState]: host(Call.setInitialApState),
  [Call.apicWrite]: host(Call.apicWrite),
  [Call.apicRead]: host(Call.apicRead),
  [Call.ioDelay]: NOTHING,
  [Call.getCycleFrequency]: written(getCycleFrequency),
  [Call.getCycleCounter]: host(Call.getCycleCounter),
  [Call.setAlarm]: host(Call.setAlarm),
  [Call.cancelAlarm]: host(Call.cancelAlarm),
  [Call.getWallclock]: host(Call.getWallclock),
  // The host's clock is never set.
  [Call.wallclockUpdated]: inline(0x31, 0xc0), // xor eax, eax
  [Call.setLazyMode]: written(setLazyMode),
};

/** Without shadows everything is as on plain hardware; but the pointers to these two are poison, so they are replaced. */
export const NATIVE_CALL_CODE: Readonly<Partial<Record<Call, CallCode>>> = {
  [Call.interruptReturn]: CALL_CODE[Call.interruptReturn],
  [Call.systemExit]: CALL_CODE[Call.systemExit],
};

/** With direct paging entries go to the host, and nothing waits. What the kernel stores by itself has been examined then. */
export const DIRECT_CALL_CODE: Readonly<Record<Call, CallCode>> = {
  ...CALL_CODE,
  [Call.setEntry]: inline(0x89, 0x02), // mov [edx], eax
  [Call.setEntryLong]: written(askForLongEntry),
  [Call.updateEntry]: NOTHING,
  [Call.updateEntryLong]: NOTHING,
  [Call.getEntryLong]: written(getLongEntry),
  [Call.swapEntryLong]: written(swapLongEntry),
  [Call.machineToPhysical]: NATIVE,
  [Call.physicalToMachine]: NATIVE,
  [Call.setLazyMode]: NOTHING,
};

/** For numbers that are no call's. */
export const NO_CALL = NATIVE;
