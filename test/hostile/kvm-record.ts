import { Hypercall, HypercallError } from '../../src/interfaces/kvm/abi.ts';
import { PageAbsent } from '../../src/memory/page-absent.ts';
import type { MicrovmDomain } from '../../src/microvm/domain.ts';
import type { MicrovmVcpu } from '../../src/microvm/vcpu.ts';
import type { GuestPhysical } from '../../src/x86/brand.ts';
import { Register } from '../../src/x86/registers.ts';
import type { HostileRecord } from './record.ts';

/** The registers that the interface has, and their neighbours. */
const FIRST_MSR = 0x4b56_4d00;
const LAST_MSR = 0x4b56_4d05;
const OLD_MSRS: readonly number[] = [0x11, 0x12];

/** Records of changes of page tables that have a meaning. */
const RECORD_NAMES = ['0', 'write', 'flush', 'release'];

const ERRORS: Readonly<Record<number, string>> = {
  [HypercallError.notPermitted]: 'EPERM',
  [HypercallError.fault]: 'EFAULT',
  [HypercallError.invalid]: 'EINVAL',
  [HypercallError.unknown]: 'ENOSYS',
};

/** Keeps the record of a KVM guest's hypercalls and of what it does to the interface's registers. */
export function watchKvm(domain: MicrovmDomain, record: HostileRecord): void {
  const own = domain.interface;
  const hypercall = own.hypercall.bind(own);
  own.hypercall = (vcpu) => {
    const call = callName(domain, vcpu);
    try {
      const outcome = hypercall(vcpu);
      record.made(call, resultName(vcpu.processor.low(Register.rax) | 0));
      return outcome;
    } catch (absent) {
      if (absent instanceof PageAbsent) record.found(call, 'page absent');
      throw absent;
    }
  };
  const writeMsr = own.writeMsr.bind(own);
  own.writeMsr = (vcpu, register, low, high) => {
    const accepted = writeMsr(vcpu, register, low, high);
    if (isOwn(register)) record.made(`write ${register.toString(16)}`, accepted ? 'success' : '#GP');
    return accepted;
  };
  const readMsr = own.readMsr.bind(own);
  own.readMsr = (vcpu, register, out) => {
    const known = readMsr(vcpu, register, out);
    if (isOwn(register)) record.made(`read ${register.toString(16)}`, known ? 'success' : '#GP');
    return known;
  };
}

function isOwn(register: number): boolean {
  return OLD_MSRS.includes(register) || (register >= FIRST_MSR && register <= LAST_MSR);
}

/** The number, and of changes of page tables what the first record is. */
function callName({ paging, group }: MicrovmDomain, { processor }: MicrovmVcpu): string {
  const number = processor.low(Register.rax);
  if (number !== Hypercall.mmuOperations) return number < 16 ? `hypercall ${number}` : 'hypercall other';
  const high = processor.codeSize === 64 ? processor.high(Register.rcx) : processor.low(Register.rdx);
  const physical = high * 0x1_0000_0000 + processor.low(Register.rcx);
  if (physical % 4 !== 0 || physical >= paging.pages * 0x1000) return 'mmu_op nowhere';
  try {
    const type = group.parts.memory.view.getUint32(paging.addressOf(physical as GuestPhysical), true);
    return `mmu_op ${RECORD_NAMES[type] ?? 'other'}`;
  } catch (absent) {
    if (!(absent instanceof PageAbsent)) throw absent;
    return 'mmu_op absent';
  }
}

function resultName(result: number): string {
  return result >= 0 ? 'success' : (ERRORS[result] ?? `error ${-result}`);
}
