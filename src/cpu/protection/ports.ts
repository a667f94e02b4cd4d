import type { GuestVirtual } from '../../x86/brand.ts';
import { Flag } from '../../x86/registers.ts';
import type { SystemState } from './system-state.ts';

/** Offset of the bitmap's own offset in a TSS. */
const TSS_BITMAP_BASE = 0x66;

const pair = new Uint32Array(2);

/** Whether the program may use ports: by its I/O privilege, or by the bitmap of its task (SDM vol. 1, 19.5). */
export function mayUsePorts(state: SystemState, port: number, bytes: number): boolean {
  const { processor, task } = state;
  if (processor.privilege <= (processor.flags & Flag.iopl) >>> Flag.ioplShift) return true;
  if (task.type === 0 || TSS_BITMAP_BASE + 1 > task.limit) return false;
  return state.asSupervisor(() => {
    const start = readHalf(state, TSS_BITMAP_BASE);
    if (start === undefined) return false;
    const at = start + (port >>> 3);
    // Two bytes are always read, so the last one of the bitmap is followed by another.
    if (at + 1 > task.limit) return false;
    const bits = readHalf(state, at);
    return bits !== undefined && ((bits >>> (port & 7)) & ((1 << bytes) - 1)) === 0;
  });
}

function readHalf({ processor, task }: SystemState, offset: number): number | undefined {
  if (!processor.memory.loadAt((task.base + offset) as GuestVirtual, 2)) return undefined;
  processor.loadedValue(pair);
  return (pair[0] as number) & 0xffff;
}
