import { Efer, Flag, Vector } from '../x86/registers.ts';
import type { Instruction } from './decode/instruction.ts';
import { DescriptorBit, isCode, isConforming, isSystem, limitOf, privilegeOf, systemTypeOf } from './descriptor.ts';
import { complete, readOperand, SystemResult, writeOperand } from './operands.ts';
import type { Processor } from './processor.ts';
import type { Descriptor } from './processor-api.ts';

/** LAR, LSL, VERR, VERW and ARPL: what a program may know of descriptors (SDM vol. 3A, 5.10). */

const pair = new Uint32Array(2);

/** Types of system descriptors that LAR and LSL accept (SDM vol. 2A, LAR and LSL); in long mode fewer exist. */
const LAR_SYSTEM = 0b0001_1010_0011_1110;
const LAR_SYSTEM_LONG = 0b1001_1010_0000_0100;
const LSL_SYSTEM = 0b0000_1010_0000_1110;
const LSL_SYSTEM_LONG = 0b0000_1010_0000_0100;

function questionableTypes({ efer }: Processor, access: boolean): number {
  if ((efer & Efer.longModeActive) !== 0) return access ? LAR_SYSTEM_LONG : LSL_SYSTEM_LONG;
  return access ? LAR_SYSTEM : LSL_SYSTEM;
}

/** In real and virtual-8086 mode there are no descriptors to ask about, and no such instructions. */
function readSelector(processor: Processor, instruction: Instruction, operand: 0 | 1): number | undefined {
  if (processor.realSegments) processor.raise(Vector.invalidOpcode);
  else if (readOperand(processor, instruction, operand, pair, 2)) return (pair[0] as number) & 0xffff;
  return undefined;
}

export function descriptorQuestion(processor: Processor, instruction: Instruction): SystemResult {
  const selector = readSelector(processor, instruction, 1);
  if (selector === undefined) return SystemResult.fault;
  const descriptor: Descriptor = { low: 0, high: 0 };
  const access = instruction.operation === 'lar';
  let valid = (selector & ~3) !== 0 && processor.descriptors.read(selector, descriptor);
  if (valid) {
    const types = questionableTypes(processor, access);
    if (isSystem(descriptor)) valid = (types & (1 << systemTypeOf(descriptor))) !== 0;
    const dpl = privilegeOf(descriptor);
    if (!isConforming(descriptor) && (processor.privilege > dpl || (selector & 3) > dpl)) valid = false;
  }
  if (valid) {
    writeOperand(processor, instruction, 0, access ? descriptor.high & 0x00ff_ff00 : limitOf(descriptor), 0);
  }
  processor.flags = (processor.flags & ~Flag.zero) | (valid ? Flag.zero : 0);
  return complete(processor);
}

export function verify(processor: Processor, instruction: Instruction): SystemResult {
  const selector = readSelector(processor, instruction, 0);
  if (selector === undefined) return SystemResult.fault;
  const descriptor: Descriptor = { low: 0, high: 0 };
  let valid = (selector & ~3) !== 0 && processor.descriptors.read(selector, descriptor);
  if (valid) {
    const dpl = privilegeOf(descriptor);
    const code = isCode(descriptor);
    const enabled = (descriptor.high & DescriptorBit.readableOrWritable) !== 0;
    const reachable = isConforming(descriptor) || (processor.privilege <= dpl && (selector & 3) <= dpl);
    valid =
      !isSystem(descriptor) && reachable && (instruction.operation === 'verw' ? !code && enabled : !code || enabled);
  }
  processor.flags = (processor.flags & ~Flag.zero) | (valid ? Flag.zero : 0);
  return complete(processor);
}

export function adjustPrivilege(processor: Processor, instruction: Instruction): SystemResult {
  const source = readSelector(processor, instruction, 1);
  const target = source === undefined ? undefined : readSelector(processor, instruction, 0);
  if (source === undefined || target === undefined) return SystemResult.fault;
  const rpl = source & 3;
  const lower = (target & 3) < rpl;
  if (lower && !writeOperand(processor, instruction, 0, (target & ~3) | rpl, 0)) return SystemResult.fault;
  processor.flags = (processor.flags & ~Flag.zero) | (lower ? Flag.zero : 0);
  return complete(processor);
}
