import { Access } from '../../../cpu/exits.ts';
import { type GuestVirtual, joinSigned } from '../../../x86/brand.ts';
import { Register } from '../../../x86/registers.ts';
import type { XenDomain } from '../domain.ts';
import { Errno } from '../errno.ts';
import type { XenVcpu } from '../vcpu.ts';

/** Results of a handler besides the number for RAX (an `Errno` negated, or a value). */
export const enum Special {
  /** Bounded work is used up: the arguments tell what is left, the same call is made again later. */
  preempted = -0x1_0000,
  /** The handler has set all registers itself (iret), or the vCPU will not continue here. */
  noResult = -0x1_0001,
}

const ARGUMENTS = 6;
const ARGUMENT_REGISTERS = [Register.rdi, Register.rsi, Register.rdx, Register.r10, Register.r8] as const;

/**
 * One hypercall: who makes it, and its arguments, which a preempted handler may change.
 *
 * A page that a handler needs may be absent; then PageAbsent passes through the handler, and the call is made again
 * when the page is there. So a handler meets absent pages before it changes anything, or after it has put what is left
 * into the arguments.
 */
export class Call {
  readonly domain: XenDomain;
  vcpu: XenVcpu;
  readonly low = new Uint32Array(ARGUMENTS);
  readonly high = new Uint32Array(ARGUMENTS);
  readonly #pair = new Uint32Array(2);
  /** Part of a multicall. */
  nested = false;

  constructor(domain: XenDomain, vcpu: XenVcpu) {
    this.domain = domain;
    this.vcpu = vcpu;
  }

  loadFromRegisters(vcpu: XenVcpu): void {
    this.vcpu = vcpu;
    this.nested = false;
    for (let index = 0; index < ARGUMENT_REGISTERS.length; index++) {
      const register = ARGUMENT_REGISTERS[index] as Register;
      this.low[index] = vcpu.processor.low(register);
      this.high[index] = vcpu.processor.high(register);
    }
  }

  storeToRegisters(): void {
    for (let index = 0; index < ARGUMENT_REGISTERS.length; index++) {
      const register = ARGUMENT_REGISTERS[index] as Register;
      this.vcpu.processor.set(register, this.low[index] as number, this.high[index] as number);
    }
  }

  /** An argument as a signed number: addresses, counts. */
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

  readLong(address: number): number | undefined {
    if (!this.vcpu.processor.memory.readLong(address as GuestVirtual, this.#pair)) return undefined;
    return joinSigned(this.#pair[0] as number, this.#pair[1] as number);
  }

  writeWord(address: number, value: number): boolean {
    return this.vcpu.processor.memory.writeWord(address as GuestVirtual, value);
  }

  writeLong(address: number, value: number): boolean {
    return this.vcpu.processor.memory.writeLong(
      address as GuestVirtual,
      value >>> 0,
      Math.floor(value / 0x1_0000_0000) >>> 0,
    );
  }
}

export type Handler = (call: Call) => number;

export const FAULT = -Errno.EFAULT;
export const INVALID = -Errno.EINVAL;
export const NOT_IMPLEMENTED = -Errno.ENOSYS;

/** 64 bits of a structure as a signed number. */
export function longAt(view: DataView, offset: number): number {
  return joinSigned(view.getUint32(offset, true), view.getUint32(offset + 4, true));
}
