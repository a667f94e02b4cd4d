import type { GuestVirtual } from '../../x86/brand.ts';
import { Vector } from '../../x86/registers.ts';
import { isPresent, isWritableData, privilegeOf } from '../descriptor.ts';
import type { Descriptor } from '../processor-api.ts';
import type { SystemState } from './system-state.ts';
import { layoutOfTask } from './task-layout.ts';

/** The stack of an inner ring, as the task names it (SDM vol. 3A, 5.8.5). */
export interface InnerStack {
  readonly selector: number;
  readonly descriptor: Descriptor;
  readonly pointer: number;
}

/**
 * Outside long mode.
 * @param external added to the error codes of what is refused
 * @returns undefined with the exception left
 */
export function innerStack(state: SystemState, ring: number, external: 0 | 1): InnerStack | undefined {
  const { processor, task } = state;
  const refuse = (exception: Vector, error: number): undefined => {
    processor.raise(exception, error + external);
    return undefined;
  };
  const { word, innerStacks } = layoutOfTask(task.type);
  const at = innerStacks + ring * 2 * word;
  if (task.type === 0 || at + word + 1 > task.limit) return refuse(Vector.invalidTss, task.selector & 0xfffc);
  const pointer = state.loadWord((task.base + at) as GuestVirtual, word);
  const selector = pointer === undefined ? undefined : state.loadWord((task.base + at + word) as GuestVirtual, 2);
  if (pointer === undefined || selector === undefined) return undefined;
  const error = selector & 0xfffc;
  if (error === 0) return refuse(Vector.invalidTss, 0);
  const descriptor: Descriptor = { low: 0, high: 0 };
  const right = state.read(selector, descriptor) && isWritableData(descriptor) && privilegeOf(descriptor) === ring;
  if (!right || (selector & 3) !== ring) return refuse(Vector.invalidTss, error);
  if (!isPresent(descriptor)) return refuse(Vector.stackFault, error);
  return { selector, descriptor, pointer };
}
