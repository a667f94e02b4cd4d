import { EventSource } from '../../cpu/protection/event.ts';
import { DomainCrash } from '../../domain/crash.ts';
import { hexadecimal } from '../../inspect/text.ts';
import type { GuestVirtual } from '../../x86/brand.ts';
import { Vector } from '../../x86/registers.ts';
import { FIRST_EXTERNAL_VECTOR, SYSTEM_CALL_VECTOR } from './abi.ts';
import { enterHandler } from './enter-handler.ts';
import type { GuestData } from './guest-data.ts';
import type { LguestVcpu } from './vcpu.ts';

/** Exceptions whose frame has an error code (SDM vol. 3A, table 6-1). */
const WITH_ERROR: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17]);

/** Bit of an error code: it names a gate. */
const ERROR_GATE = 2;

/**
 * Hands an exception that stands in the processor to the guest's handler.
 * @param source whether an instruction raised it on purpose, which needs a gate for its ring
 * @throws PageAbsent with the exception still in the processor
 * @throws DomainCrash when the guest has no handler
 */
export function deliverTrap(vcpu: LguestVcpu, data: GuestData, source: EventSource): void {
  const { processor } = vcpu;
  const vector = processor.exitDetail;
  const gate = vcpu.tables.gate(vector);
  if (source === EventSource.software && gate && gate.privilege < processor.privilege) {
    // Behind INT3 and INTO, which have one byte: what refuses them belongs to the instruction.
    processor.rip = (processor.rip - 1) as GuestVirtual;
    refuseGate(vcpu, data, vector);
    return;
  }
  if (vector === Vector.pageFault && data.isNamed) data.cr2 = processor.cr2 >>> 0;
  const error = WITH_ERROR.has(vector) ? processor.exitError : undefined;
  if (!gate) {
    const told = vector === Vector.pageFault ? processor.cr2 >>> 0 : (error ?? 0);
    throw new DomainCrash(
      `the guest has no handler for trap ${vector} at ${hexadecimal(processor.rip)} (${hexadecimal(told)})`,
    );
  }
  const { exitError } = processor;
  try {
    enterHandler(vcpu, data, gate, { returnTo: processor.rip, error });
  } catch (absent) {
    // The access that met the page may have left it where the exception stood.
    processor.raise(vector, exitError);
    throw absent;
  }
}

/** INT n, which stands at RIP and is no hypercall. Vectors of interrupts do nothing, but for the system calls'. */
export function softwareInterrupt(vcpu: LguestVcpu, data: GuestData, vector: number): void {
  const { processor } = vcpu;
  const gate = vcpu.tables.gate(vector);
  if (gate === undefined || gate.privilege < processor.privilege) {
    refuseGate(vcpu, data, vector);
    return;
  }
  if (vector >= FIRST_EXTERNAL_VECTOR && vector !== SYSTEM_CALL_VECTOR) {
    processor.completeInstruction();
    return;
  }
  const next = (processor.rip + processor.exitLength) as GuestVirtual;
  enterHandler(vcpu, data, gate, { returnTo: next, error: undefined });
  processor.instructions++;
}

function refuseGate(vcpu: LguestVcpu, data: GuestData, vector: number): void {
  vcpu.processor.raise(Vector.generalProtection, vector * 8 + ERROR_GATE);
  deliverTrap(vcpu, data, EventSource.exception);
}
