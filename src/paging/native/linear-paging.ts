import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import { MachineSpace } from '../../memory/machine-space.ts';
import type { Frame, Mfn } from '../../x86/brand.ts';
import { NestedPaging } from '../nested/nested-paging.ts';

/**
 * The native cell: the guest's tables are what the processor walks, and its memory is a fixed piece of the host's. That
 * is nested paging whose second level is a line: frame = base + guest-physical page, for ever.
 * @throws OutOfFrames
 */
export function createLinearPaging(pool: FramePool, invalidator: FrameInvalidator, pages: number): NestedPaging {
  const base = pool.allocateRun(pages);
  const space = new MachineSpace(pool, pages);
  for (let number = 0; number < pages; number++) space.attach(number as Mfn, (base + number) as Frame);
  return new NestedPaging(space, invalidator);
}
