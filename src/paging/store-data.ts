import type { FrameInvalidator } from '../cpu/translation.ts';
import type { MachineSpace } from '../memory/machine-space.ts';
import { PageAbsent } from '../memory/page-absent.ts';
import type { MemoryError } from '../mm/errors.ts';
import { type Mfn, PAGE_SIZE } from '../x86/brand.ts';
import type { Pager } from './pager.ts';

/** Changes bytes within a page of a guest that stands still, which is brought in first where that is needed. */
export async function storeData(
  space: MachineSpace,
  pager: Pager | undefined,
  invalidator: Pick<FrameInvalidator, 'frameWritten'>,
  page: Mfn,
  offset: number,
  bytes: Uint8Array,
): Promise<MemoryError | undefined> {
  if (offset + bytes.length > PAGE_SIZE) throw new RangeError('what is stored crosses a page');
  for (;;) {
    try {
      const address = space.writableAddressOf(page);
      if (address < 0) return undefined;
      space.pool.memory.u8.set(bytes, address + offset);
      invalidator.frameWritten(space.frameOf(page), offset, bytes.length);
      return undefined;
    } catch (absent) {
      if (!(absent instanceof PageAbsent)) throw absent;
      const failed = await pager?.bringIn(absent.page as Mfn, absent.write);
      if (failed) return failed;
    }
  }
}
