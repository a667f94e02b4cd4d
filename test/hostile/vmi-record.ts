import { SystemResult } from '../../src/cpu/operands.ts';
import { CALL_NAMES, type Call } from '../../src/interfaces/vmi/abi.ts';
import { HOST_CALL_NAMES } from '../../src/interfaces/vmi/host-call.ts';
import { PageAbsent } from '../../src/memory/page-absent.ts';
import type { MicrovmDomain } from '../../src/microvm/domain.ts';
import { Register } from '../../src/x86/registers.ts';
import type { HostileRecord } from './record.ts';

/**
 * The ROM carries out most calls without its host, so the guest says by two ports what it calls and what came of it
 * (guests/reference/vmi/hostile.c): 0 when the call returned, else the exception's vector and 1, with a flag if it was in
 * ring 3.
 */
const REPORT_PORT = 0x5e0;
const REPORT_BYTES = 8;
const IN_PROGRAM = 0x100;

const HOST_RESULTS: Readonly<Record<SystemResult, string>> = {
  [SystemResult.done]: 'done',
  [SystemResult.fault]: 'page fault',
  [SystemResult.interface]: 'no such call',
};

/** Keeps the record of a VMI guest's calls. @returns to be called when the guest has ended */
export function watchVmi(domain: MicrovmDomain, record: HostileRecord): () => void {
  let current: string | undefined;
  const end = (result: string): void => {
    if (current !== undefined) record.made(current, result);
    current = undefined;
  };
  domain.ports.add(REPORT_PORT, REPORT_BYTES, {
    read: () => 0,
    write: (offset, _bytes, value) => {
      if (offset === 0) current = CALL_NAMES[value as Call] ?? 'without a name';
      else if (value & IN_PROGRAM) end('went to a program');
      else end(value === 0 ? 'returned' : `exception ${value - 1}`);
    },
  });
  const own = domain.interface;
  const hypercall = own.hypercall.bind(own);
  own.hypercall = (vcpu) => {
    const call = `host: ${HOST_CALL_NAMES[vcpu.processor.low(Register.rbx)] ?? 'without a name'}`;
    try {
      const result = hypercall(vcpu);
      record.found(call, HOST_RESULTS[result]);
      return result;
    } catch (error) {
      record.found(call, error instanceof PageAbsent ? 'page absent' : 'ended the guest');
      throw error;
    }
  };
  return () => end('ended the guest');
}
