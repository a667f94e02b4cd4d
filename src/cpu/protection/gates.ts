import type { GuestVirtual } from '../../x86/brand.ts';
import { Register, Vector } from '../../x86/registers.ts';
import { type Instruction, SegmentRegister } from '../decode/instruction.ts';
import {
  isCode,
  isConforming,
  isPresent,
  isSystem,
  limitOf,
  privilegeOf,
  SystemType,
  systemTypeOf,
} from '../descriptor.ts';
import { fault, loadStackSlot, SystemResult } from '../operands.ts';
import type { Descriptor } from '../processor-api.ts';
import { farTarget } from '../system.ts';
import { innerStack } from './inner-stack.ts';
import { StackFrame } from './stack-frame.ts';
import type { SystemState } from './system-state.ts';
import { switchTask, TaskSwitch } from './task-switch.ts';

/** Far JMP and CALL through call gates and to tasks, outside long mode (SDM vol. 3A, 5.8.3 to 5.8.5 and 7.3). */

const gate: Descriptor = { low: 0, high: 0 };
const code: Descriptor = { low: 0, high: 0 };

/** @returns `interface` where the target is no gate and no task, or long mode has none: a transfer as any other */
export function transferThroughGate(state: SystemState, instruction: Instruction): SystemResult {
  const { processor } = state;
  if (processor.realSegments || state.longMode) return SystemResult.interface;
  const target = farTarget(processor, instruction);
  if (!target) return SystemResult.fault;
  const { selector } = target;
  if ((selector & ~3) === 0 || !state.read(selector, gate) || !isSystem(gate)) return SystemResult.interface;
  const type = systemTypeOf(gate);
  const error = selector & 0xfffc;
  const handler = HANDLERS.get(type);
  const dpl = privilegeOf(gate);
  if (!handler || dpl < processor.privilege || dpl < (selector & 3)) {
    return fault(processor, Vector.generalProtection, error);
  }
  if (!isPresent(gate)) return fault(processor, Vector.segmentNotPresent, error);
  return handler(state, selector, instruction.operation === 'callf');
}

type Handler = (state: SystemState, selector: number, calls: boolean) => SystemResult;

const HANDLERS: ReadonlyMap<SystemType, Handler> = new Map<SystemType, Handler>([
  [SystemType.task16, enterTask],
  [SystemType.task, enterTask],
  [SystemType.taskGate, (state, _selector, calls) => enterTask(state, gate.low >>> 16, calls)],
  [SystemType.callGate16, (state, _selector, calls) => passGate(state, calls, 2)],
  [SystemType.callGate, (state, _selector, calls) => passGate(state, calls, 4)],
]);

function enterTask(state: SystemState, selector: number, calls: boolean): SystemResult {
  const { processor } = state;
  const returnTo = (processor.rip + processor.exitLength) as GuestVirtual;
  const kind = calls ? TaskSwitch.call : TaskSwitch.jump;
  if (!switchTask(state, selector, { kind, returnTo, resumes: false, external: 0 })) return SystemResult.fault;
  processor.instructions++;
  return SystemResult.done;
}

/** @param width bytes of what is pushed and of the parameters */
function passGate(state: SystemState, calls: boolean, width: 2 | 4): SystemResult {
  const { processor } = state;
  const selector = gate.low >>> 16;
  const error = selector & 0xfffc;
  if (error === 0) return fault(processor, Vector.generalProtection);
  const cpl = processor.privilege;
  if (!state.read(selector, code) || !isCode(code)) return fault(processor, Vector.generalProtection, error);
  const dpl = privilegeOf(code);
  // A JMP stays in its ring.
  const reachable = calls || isConforming(code) ? dpl <= cpl : dpl === cpl;
  if (!reachable) return fault(processor, Vector.generalProtection, error);
  if (!isPresent(code)) return fault(processor, Vector.segmentNotPresent, error);
  const offset = width === 4 ? ((gate.low & 0xffff) | (gate.high & 0xffff_0000)) >>> 0 : gate.low & 0xffff;
  if (offset > limitOf(code)) return fault(processor, Vector.generalProtection);
  const ring = isConforming(code) ? cpl : dpl;
  if (calls && !(ring < cpl ? callInner(state, ring, width) : pushReturn(state, StackFrame.current(state), width))) {
    return SystemResult.fault;
  }
  state.loadSegment(SegmentRegister.cs, (selector & ~3) | ring, code);
  processor.rip = offset as GuestVirtual;
  processor.userMode = ring === 3;
  processor.instructions++;
  return SystemResult.done;
}

/** Changes to the inner ring's stack, with the old one's place and the gate's count of parameters on it. */
function callInner(state: SystemState, ring: number, width: 2 | 4): boolean {
  const { processor } = state;
  const parameters: number[] = [];
  for (let index = (gate.high & 0x1f) - 1; index >= 0; index--) {
    const value = loadStackSlot(processor, index * width, width);
    if (value === undefined) return false;
    parameters.push(value);
  }
  return state.asSupervisor(() => {
    const stack = innerStack(state, ring, 0);
    if (!stack) return false;
    const frame = StackFrame.on(state, stack.descriptor, stack.pointer, stack.selector & 0xfffc);
    const written =
      frame.push(processor.selector(SegmentRegister.ss), width) &&
      frame.push(processor.low(Register.rsp), width) &&
      parameters.every((value) => frame.push(value, width));
    if (!written || !pushReturn(state, frame, width)) return false;
    state.loadSegment(SegmentRegister.ss, stack.selector, stack.descriptor);
    return true;
  });
}

/** The last of a frame: where the call came from. */
function pushReturn(state: SystemState, frame: StackFrame, width: 2 | 4): boolean {
  const { processor } = state;
  const next = processor.rip + processor.exitLength;
  if (!frame.push(processor.selector(SegmentRegister.cs), width) || !frame.push(next, width)) return false;
  processor.set(Register.rsp, frame.pointer, 0);
  return true;
}
