import type { BootOptions } from '../api.ts';
import { XenDomain } from '../interfaces/xen/domain.ts';
import { planDomain } from '../interfaces/xen/domain-plan.ts';
import { createPagedMemory } from '../interfaces/xen/paged-memory.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import { bytesFile } from '../mm/page-cache.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import type { CommonOptions, GuestFiles } from './microvm-guest.ts';
import { noMemory } from './no-memory.ts';

/** Builds a guest of the interface xen. @throws InputError */
export async function bootXen(
  manager: MemoryManager,
  common: CommonOptions,
  options: BootOptions,
  files: GuestFiles,
): Promise<XenDomain> {
  const { memory, check = false, commandLine } = options;
  const plan = planDomain({
    kernel: files.kernel.kernel.image,
    initrd: files.initrd.bytes,
    commandLine,
    pages: Math.floor(memory / PAGE_SIZE),
  });
  const words = new Uint32Array(4);
  for (let half = 0; half < 2; half++) common.random(words.subarray(half * 2, half * 2 + 2));
  const uuid = new Uint8Array(words.buffer);
  const paged = await createPagedMemory({
    manager,
    group: common.group,
    plan,
    kernel: files.kernel.pagesOf(plan.kernelPages),
    initrd: files.initrd.pagesOf(bytesFile('the initrd', plan.initrd)),
    shadowed: options.paging === 'shadow',
    order: common.id,
  });
  if ('kind' in paged) throw noMemory(plan.pages * PAGE_SIZE, paged.message);
  try {
    return new XenDomain({ ...common, name: `guest${common.id}`, uuid, plan, paged, check });
  } catch (error) {
    paged.shadow?.end();
    await paged.pager.end();
    throw error;
  }
}
