import type { BootOptions, ResumeOptions } from '../api.ts';
import { KernelPages } from '../domain/kernel-pages.ts';
import { busPages } from '../interfaces/lguest/bus.ts';
import { LguestDomain } from '../interfaces/lguest/domain.ts';
import { createLguestDevices } from '../interfaces/lguest/guest-devices.ts';
import { layOutGuest, loadedPages } from '../interfaces/lguest/loader.ts';
import { recogniseKernel } from '../interfaces/lguest/recognise.ts';
import { createPagedMachine, followMemory, type PagedMemory, unpinLoadedPages } from '../microvm/paged-memory.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import { bytesFile } from '../mm/page-cache.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import type { CommonOptions, GuestFiles } from './microvm-guest.ts';
import { noMemory, pagesMissing } from './no-memory.ts';

/** Builds a guest of the interface lguest and loads its kernel. @throws InputError */
export async function bootLguest(
  manager: MemoryManager,
  common: CommonOptions,
  options: BootOptions,
  files: GuestFiles,
): Promise<LguestDomain> {
  const kernel = files.kernel.kernel.image;
  const recognised = recogniseKernel(kernel, options.lguestEra);
  const devices = createLguestDevices(options, common);
  const pages = Math.floor(options.memory / PAGE_SIZE);
  const ramPages = pages - busPages(devices.devices);
  const kernelPages = new KernelPages(kernel, 0);
  const layout = layOutGuest(recognised, ramPages, kernelPages.endPfn, files.initrd.bytes.length);
  const loaded = loadedPages(layout);
  const paged = await createPagedMachine({
    manager,
    group: common.group,
    pages,
    ramPages,
    // The bus's first page stays; all others are the guest's from here on.
    loaded: [...loaded, ramPages],
    layout: kernelPages,
    kernel: files.kernel.pagesOf(kernelPages),
    initrd: files.initrd.pagesOf(bytesFile('the initrd', files.initrd.bytes)),
    shadowed: true,
    order: common.id,
  });
  if ('kind' in paged) throw noMemory(options.memory, paged.message);
  return withMemory(paged, () => {
    const domain = new LguestDomain({ ...common, ...devices, paged });
    domain.boot({ kernel, recognised, layout, commandLine: options.commandLine });
    unpinLoadedPages(paged, [...loaded, ramPages]);
    return domain;
  });
}

/**
 * Builds a guest whose state `restore` reads back.
 * @param restore is given the domain before anything of it is used
 * @throws InputError
 */
export async function resumeLguest(
  common: CommonOptions,
  options: Pick<ResumeOptions, 'disks' | 'adapters'>,
  pages: number,
  space: AddressSpace,
  restore: (domain: LguestDomain) => void,
): Promise<LguestDomain> {
  const paged = await followMemory(space, { group: common.group, pages, order: common.id, shadowed: true });
  const domain = await withMemory(paged, () => {
    return new LguestDomain({ ...common, ...createLguestDevices(options, common), paged });
  });
  try {
    restore(domain);
    const failed = await paged.pager.restorePins();
    if (failed) throw pagesMissing(failed.message);
    return domain;
  } catch (error) {
    await domain.destroy();
    throw error;
  }
}

async function withMemory({ paging }: PagedMemory, build: () => LguestDomain): Promise<LguestDomain> {
  try {
    return build();
  } catch (error) {
    await paging.destroy();
    throw error;
  }
}
