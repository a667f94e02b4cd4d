import type { LguestEra } from '../../api.ts';
import { InputError } from '../../boot/input-error.ts';
import type { KernelImage } from '../../boot/kernel.ts';
import { PAGE_SIZE } from '../../x86/brand.ts';
import { ERA_NAMES, ERAS, type Era, HYPERCALL_VECTOR, RING_SLOTS, SLOT_FREE, SYSTEM_CALL_VECTOR } from './abi.ts';
import type { DescriptorFormat } from './device-descriptor.ts';

/**
 * Finds out of a kernel whether it can be a guest, and of which era. Such kernels carry no note that says it, but the code
 * of their entry is known, and it names the data that the kernel shares with its host, part of which the kernel's file
 * holds: the fields' places tell the era.
 */

export interface LguestKernel {
  readonly era: Era;
  /** Format of its page tables. */
  readonly format: 'two-level' | 'pae';
  /** Linear address from which on all address spaces are alike. */
  readonly kernelAddress: number;
  /** How it reads descriptions of devices. */
  readonly deviceFormat: DescriptorFormat;
}

/** mov eax, 1 (the number of the first call); what follows loads the address of the data into EDX or EBX, and calls. */
const FIRST_CALL = [0xb8, 1, 0, 0, 0];
const MOVE_TO_EDX = 0xba;
const MOVE_TO_EBX = 0xbb;
const INT = [0xcd, HYPERCALL_VECTOR];
const VMCALL = [0x0f, 0x01, 0xc1];
const ADDRESS_BYTES = 4;

/** Printed with the tables of a fault, by kernels with PAE only. */
const PAE_TEXT = new TextEncoder().encode('*pdpt = ');

/** What a driver says that looks for a queue among fields. */
const FIELDS_TEXT = new TextEncoder().encode('Unexpected virtio config len');

/** @param wanted the era that the user says it is. @throws InputError for a kernel that is no guest of lguest */
export function recogniseKernel(kernel: KernelImage, wanted?: LguestEra): LguestKernel {
  if (kernel.bits !== 32) throw new InputError('guests of lguest are 32-bit kernels, and this is a 64-bit one');
  const format = contains(kernel, PAE_TEXT) ? 'pae' : 'two-level';
  const data = findSharedData(kernel);
  if (data === undefined) {
    throw new InputError(
      'the kernel has no entry for lguest; give one from 2.6.24 to 3.x built with CONFIG_LGUEST_GUEST',
    );
  }
  const found = wanted ?? ERA_NAMES.find((name) => fits(ERAS[name], data));
  if (!found)
    throw new InputError(
      `the kernel speaks to lguest in a way of no known era; say which it is: ${ERA_NAMES.join(', ')}`,
    );
  const era = ERAS[found];
  if (!isPage(wordAt(data, era.layout.kernelAddress))) {
    throw new InputError(`the kernel does not speak to lguest as kernels of era ${found} do; leave out --lguest-era`);
  }
  const deviceFormat = contains(kernel, FIELDS_TEXT) ? 'fields' : 'counts';
  return { era, format, kernelAddress: wordAt(data, era.layout.kernelAddress), deviceFormat };
}

/** Whether the data begins as a kernel of that era has it in its file: no call waits, and INT 0x80 is a system call. */
function fits({ layout }: Era, data: Uint8Array): boolean {
  if (data.length < layout.size) return false;
  const states = data.subarray(layout.slotStates, layout.slotStates + RING_SLOTS);
  return (
    states.every((state) => state === SLOT_FREE) &&
    wordAt(data, layout.systemCallVector) === SYSTEM_CALL_VECTOR &&
    isPage(wordAt(data, layout.kernelAddress))
  );
}

/** Of the addresses that a kernel can say it begins at. */
function isPage(address: number): boolean {
  return address > 0 && address % PAGE_SIZE === 0;
}

/** The shared data as the kernel's file has it, up to the end of its segment. */
function findSharedData({ segments }: KernelImage): Uint8Array | undefined {
  for (const { data } of segments) {
    for (let at = indexOf(data, FIRST_CALL, 0); at >= 0; at = indexOf(data, FIRST_CALL, at + 1)) {
      const move = at + FIRST_CALL.length;
      const call = move + 1 + ADDRESS_BYTES;
      const isMove = data[move] === MOVE_TO_EDX || data[move] === MOVE_TO_EBX;
      if (!isMove || (!standsAt(data, call, INT) && !standsAt(data, call, VMCALL))) continue;
      const physical = wordAt(data, move + 1);
      const holder = segments.find(({ paddr, data: bytes }) => physical >= paddr && physical < paddr + bytes.length);
      if (holder) return holder.data.subarray(physical - holder.paddr);
    }
  }
  return undefined;
}

function contains({ segments }: KernelImage, bytes: Uint8Array): boolean {
  return segments.some(({ data }) => indexOf(data, bytes, 0) >= 0);
}

function indexOf(data: Uint8Array, bytes: ArrayLike<number>, from: number): number {
  const first = bytes[0] as number; // what is looked for is never empty
  for (let at = data.indexOf(first, from); at >= 0; at = data.indexOf(first, at + 1)) {
    if (standsAt(data, at, bytes)) return at;
  }
  return -1;
}

function standsAt(data: Uint8Array, at: number, bytes: ArrayLike<number>): boolean {
  for (let index = 0; index < bytes.length; index++) if (data[at + index] !== bytes[index]) return false;
  return true;
}

/** 0 beyond the end. */
function wordAt(data: Uint8Array, at: number): number {
  return at + 4 <= data.length ? new DataView(data.buffer, data.byteOffset + at, 4).getUint32(0, true) : 0;
}
