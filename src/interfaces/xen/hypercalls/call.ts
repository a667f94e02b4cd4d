import { Access } from '../../../cpu/exits.ts';
import { PagingError } from '../../../paging/direct/errors.ts';
import { type GuestVirtual, highWord, joinSigned, lowWord } from '../../../x86/brand.ts';
import type { Register } from '../../../x86/registers.ts';
import type { XenDomain } from '../domain.ts';
import { Errno } from '../errno.ts';
import type { GuestAbi } from '../guest-abi.ts';
import type { XenVcpu } from '../vcpu.ts';

/** Results of a handler besides the number for RAX (an `Errno` negated, or a value). */
export const enum Special {
  /** Bounded work is used up: the arguments tell what is left, the same call is made again later. */
  preempted = -0x1_0000,
  /** The handler has set all registers itself (iret), or the vCPU will not continue here. */
  noResult = -0x1_0001,
}

/** Places for arguments: registers, and longs of a multicall's entry. */
const PLACES = 6;
const NO_PAIRS: readonly number[] = [];

/**
 * One hypercall: who makes it, and its arguments, which a preempted handler may change.
 *
 * A page that a handler needs may be absent; then PageAbsent passes through the handler, and the call is made again
 * when the page is there. So a handler meets absent pages before it changes anything, or after it has put what is left
 * into the arguments.
 */
export class Call {
  readonly domain: XenDomain;
  readonly abi: GuestAbi;
  vcpu: XenVcpu;
  readonly low = new Uint32Array(PLACES);
  readonly high = new Uint32Array(PLACES);
  readonly #pair = new Uint32Array(2);
  /** Part of a multicall. */
  nested = false;

  constructor(domain: XenDomain, vcpu: XenVcpu) {
    this.domain = domain;
    this.abi = domain.abi;
    this.vcpu = vcpu;
  }

  loadFromRegisters(vcpu: XenVcpu, number: number): void {
    this.vcpu = vcpu;
    this.nested = false;
    const { argumentRegisters } = this.abi;
    for (let place = 0; place < argumentRegisters.length; place++) {
      const register = argumentRegisters[place] as Register;
      this.low[place] = vcpu.processor.low(register);
      this.high[place] = this.abi.longSize === 8 ? vcpu.processor.high(register) : 0;
    }
    this.#joinPairs(number);
  }

  storeToRegisters(number: number): void {
    this.#splitPairs(number);
    const { argumentRegisters } = this.abi;
    for (let place = 0; place < argumentRegisters.length; place++) {
      this.vcpu.processor.set(argumentRegisters[place] as Register, this.low[place]!, this.high[place]!); // a place each
    }
  }

  /** The same of an entry of a multicall. */
  loadFromEntry(entry: DataView, number: number): void {
    const { longSize, structures } = this.abi;
    for (let place = 0; place < PLACES; place++) {
      const at = structures.multicall.arguments + place * longSize;
      this.low[place] = entry.getUint32(at, true);
      this.high[place] = longSize === 8 ? entry.getUint32(at + 4, true) : 0;
    }
    this.#joinPairs(number);
  }

  storeToEntry(entry: DataView, number: number): void {
    this.#splitPairs(number);
    const { longSize, structures } = this.abi;
    for (let place = 0; place < PLACES; place++) {
      const at = structures.multicall.arguments + place * longSize;
      entry.setUint32(at, this.low[place]!, true); // a place each
      if (longSize === 8) entry.setUint32(at + 4, this.high[place]!, true);
    }
  }

  /** Arguments that took two places take one. */
  #joinPairs(number: number): void {
    for (const place of this.abi.pairedArguments[number] ?? NO_PAIRS) {
      this.high[place] = this.low[place + 1]!; // pairs end within the places
      this.low.copyWithin(place + 1, place + 2);
      this.high.copyWithin(place + 1, place + 2);
    }
  }

  /** The other way round. */
  #splitPairs(number: number): void {
    const pairs = this.abi.pairedArguments[number] ?? NO_PAIRS;
    for (let index = pairs.length - 1; index >= 0; index--) {
      const place = pairs[index]!; // below the length
      this.low.copyWithin(place + 2, place + 1);
      this.high.copyWithin(place + 2, place + 1);
      this.low[place + 1] = this.high[place]!; // pairs end within the places
      this.high[place] = 0;
      this.high[place + 1] = 0;
    }
  }

  /** An argument as a number, of 64-bit guests a signed one: addresses, counts. */
  value(index: number): number {
    return joinSigned(this.low[index] as number, this.high[index] as number);
  }

  address(index: number): GuestVirtual {
    return this.value(index) as GuestVirtual;
  }

  setValue(index: number, value: number): void {
    this.low[index] = value >>> 0;
    this.high[index] = Math.floor(value / 0x1_0000_0000) >>> 0;
  }

  read(address: number, bytes: number): Uint8Array | null {
    const target = new Uint8Array(bytes);
    return this.vcpu.processor.memory.read(address as GuestVirtual, target) ? target : null;
  }

  /** A structure of the guest as a view, or null when it cannot be read. */
  view(address: number, bytes: number): DataView | null {
    const target = this.read(address, bytes);
    return target ? new DataView(target.buffer) : null;
  }

  /**
   * Makes sure that what is to be written when the work is done will not have to wait then. Says nothing about whether
   * the guest may write there. @throws PageAbsent
   */
  prepareWrite(address: number, bytes: number): void {
    const { memory } = this.vcpu.processor;
    for (const at of [address, address + bytes - 1]) memory.translate(at as GuestVirtual, Access.write);
  }

  write(address: number, bytes: Uint8Array): boolean {
    return this.vcpu.processor.memory.write(address as GuestVirtual, bytes);
  }

  writeView(address: number, view: DataView): boolean {
    return this.write(address, new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  }

  /** A `long` of the guest, of 64-bit guests signed. */
  readLong(address: number): number | undefined {
    if (this.abi.longSize === 8) return this.readQuad(address);
    const word = this.vcpu.processor.memory.readWord(address as GuestVirtual);
    return word < 0 ? undefined : word;
  }

  /** 64 bits, whatever the guest. */
  readQuad(address: number): number | undefined {
    if (!this.vcpu.processor.memory.readLong(address as GuestVirtual, this.#pair)) return undefined;
    return joinSigned(this.#pair[0]!, this.#pair[1]!); // two words
  }

  writeWord(address: number, value: number): boolean {
    return this.vcpu.processor.memory.writeWord(address as GuestVirtual, value);
  }

  writeLong(address: number, value: number): boolean {
    const { memory } = this.vcpu.processor;
    if (this.abi.longSize === 4) return memory.writeWord(address as GuestVirtual, value >>> 0);
    return memory.writeLong(address as GuestVirtual, lowWord(value), highWord(value));
  }

  /** A `long` of a structure. */
  longAt(view: DataView, offset: number): number {
    return this.abi.longSize === 8 ? quadAt(view, offset) : view.getUint32(offset, true);
  }

  setLongAt(view: DataView, offset: number, value: number): void {
    view.setUint32(offset, lowWord(value), true);
    if (this.abi.longSize === 8) view.setUint32(offset + 4, highWord(value), true);
  }
}

export type Handler = (call: Call) => number;

export const FAULT = -Errno.EFAULT;
export const INVALID = -Errno.EINVAL;
export const NOT_IMPLEMENTED = -Errno.ENOSYS;

/** The answer to a call for a result of the paging. */
export function preemption(result: number): number {
  return result === PagingError.preempted ? Special.preempted : result;
}

/** 64 bits of a structure as a signed number. */
export function quadAt(view: DataView, offset: number): number {
  return joinSigned(view.getUint32(offset, true), view.getUint32(offset + 4, true));
}
