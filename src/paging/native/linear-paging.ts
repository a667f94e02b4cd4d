import type { FrameInvalidator } from '../../cpu/translation.ts';
import type { FramePool } from '../../memory/frame-pool.ts';
import type { Frame, Gfn } from '../../x86/brand.ts';
import { NestedPaging } from '../nested/nested-paging.ts';

/**
 * The native cell: the guest's tables are what the processor walks, and its memory is a fixed piece of the host's. That
 * is nested paging whose second level is a line: frame = base + guest-physical page, for ever.
 * @throws OutOfFrames
 */
export function createLinearPaging(pool: FramePool, invalidator: FrameInvalidator, pages: number): NestedPaging {
  const base = pool.allocateRun(pages);
  const paging = new NestedPaging(pool, invalidator, pages);
  for (let gfn = 0; gfn < pages; gfn++) paging.map(gfn as Gfn, (base + gfn) as Frame);
  return paging;
}
