import type { BootOptions } from '../api.ts';
import type { BlockStore } from '../devices/block/store.ts';
import { XenDomain } from '../interfaces/xen/domain.ts';
import { planDomain } from '../interfaces/xen/domain-plan.ts';
import { GUEST_ABIS } from '../interfaces/xen/guest-abi.ts';
import { createPagedMemory, resumePagedMemory } from '../interfaces/xen/paged-memory.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import { bytesFile } from '../mm/page-cache.ts';
import { TABLE_RULES } from '../paging/direct/table-rules.ts';
import type { GuestDescription } from '../snapshot/format.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import type { CommonOptions, GuestFiles } from './microvm-guest.ts';
import { noMemory, pagesMissing } from './no-memory.ts';

/** Builds a guest of the interface xen. @throws InputError */
export async function bootXen(
  manager: MemoryManager,
  common: CommonOptions,
  options: BootOptions,
  files: GuestFiles,
): Promise<XenDomain> {
  const { memory, commandLine, disks } = options;
  const isTranslated = options.paging === 'translated';
  const plan = planDomain({
    kernel: files.kernel.kernel.image,
    initrd: files.initrd.bytes,
    commandLine,
    pages: Math.floor(memory / PAGE_SIZE),
    isTranslated,
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
    const domain = new XenDomain({
      ...common,
      uuid,
      bits: plan.abi.bits,
      pages: plan.pages,
      isTranslated,
      paged,
      disks,
    });
    domain.boot({ name: `guest${common.id}`, plan });
    return domain;
  } catch (error) {
    paged.shadow?.end();
    await paged.pager.end();
    throw error;
  }
}

const UUID_BYTES = 16;

/**
 * Builds a guest whose state `restore` reads back.
 * @param order place among the guests of the host; the domain keeps the identifier that it knows
 * @param guest what it was, and the width of its kernel
 * @param space has its memory
 * @param disks as many as it had
 * @throws InputError
 */
export async function resumeXen(
  common: CommonOptions,
  order: number,
  guest: Pick<GuestDescription, 'memory' | 'paging'> & { readonly bits: 64 | 32 },
  space: AddressSpace,
  disks: readonly BlockStore[] | undefined,
  restore: (domain: XenDomain) => void,
): Promise<XenDomain> {
  const pages = Math.floor(guest.memory / PAGE_SIZE);
  const shadowed = guest.paging === 'shadow';
  const isTranslated = guest.paging === 'translated';
  const paged = await resumePagedMemory(space, {
    group: common.group,
    order,
    pages,
    rules: TABLE_RULES[GUEST_ABIS[guest.bits].tables],
    shadowed,
    isTranslated,
  });
  let domain: XenDomain | undefined;
  try {
    const uuid = new Uint8Array(UUID_BYTES);
    domain = new XenDomain({ ...common, uuid, bits: guest.bits, pages, isTranslated, paged, disks });
    restore(domain);
    const failed = await paged.pager.restorePins();
    if (failed) throw pagesMissing(failed.message);
    domain.noteAbsence();
    return domain;
  } catch (error) {
    if (!domain) paged.shadow?.end();
    await (domain?.destroy() ?? paged.pager.end());
    throw error;
  }
}
