import type { ResumeOptions } from '../api.ts';
import type { Cell } from '../domain/cells.ts';
import type { SharedFile } from '../domain/shared-files.ts';
import { createKvmInterface } from '../interfaces/kvm/kvm-interface.ts';
import { createNativeInterface } from '../interfaces/native/native-interface.ts';
import { DirectTables } from '../interfaces/vmi/direct-tables.ts';
import { UpdateQueues, VmiInterface } from '../interfaces/vmi/vmi-interface.ts';
import { type BootImages, MicrovmDomain, type MicrovmOptions } from '../microvm/domain.ts';
import { createGuestDevices } from '../microvm/guest-devices.ts';
import { LOADED_PAGES } from '../microvm/layout.ts';
import { layOutKernel } from '../microvm/loader.ts';
import { createPagedMachine, followMemory, unpinLoadedPages } from '../microvm/paged-memory.ts';
import type { AddressSpace } from '../mm/address-space.ts';
import type { MemoryManager } from '../mm/memory-manager.ts';
import { bytesFile } from '../mm/page-cache.ts';
import { createLinearPaging } from '../paging/native/linear-paging.ts';
import type { PageFile } from '../snapshot/page-file.ts';
import { PAGE_SIZE } from '../x86/brand.ts';
import { noMemory, pagesMissing } from './no-memory.ts';

/** What all kinds of domains are made of. */
export type CommonOptions = Omit<
  MicrovmOptions,
  'paging' | 'paged' | 'createInterface' | 'translationsOf' | 'devices' | 'console'
>;

/** The files of one guest that is booted. */
export interface GuestFiles {
  readonly kernel: SharedFile;
  readonly initrd: SharedFile;
}

type MachineMemory = Pick<MicrovmOptions, 'paging' | 'paged'>;

/** What devices a guest has. */
type DeviceOptions = Pick<ResumeOptions, 'disks' | 'adapters'> & { readonly commandLine: string };

/** Builds a guest of the interfaces kvm, native and vmi and loads its kernel. @throws InputError */
export async function bootMicrovm(
  manager: MemoryManager,
  cell: Cell,
  common: CommonOptions,
  options: DeviceOptions & { readonly memory: number },
  files: GuestFiles,
): Promise<MicrovmDomain> {
  const images: BootImages = {
    kernel: files.kernel.kernel.image,
    initrd: files.initrd.bytes,
    commandLine: options.commandLine,
  };
  const memory = await bootMemory(manager, cell, common, options.memory, images, files);
  return withMemory(memory, async () => {
    const domain = assemble(cell, common, options, memory);
    domain.boot(images);
    if (memory.paged) unpinLoadedPages(memory.paged, LOADED_PAGES);
    return domain;
  });
}

async function bootMemory(
  manager: MemoryManager,
  { paging }: Cell,
  { group, id }: CommonOptions,
  bytes: number,
  { kernel, initrd }: BootImages,
  files: GuestFiles,
): Promise<MachineMemory> {
  const pages = Math.floor(bytes / PAGE_SIZE);
  const layout = layOutKernel(kernel, initrd.length, pages);
  if (paging === 'native') return { paging: createLinearPaging(group.parts.pool, group, pages) };
  const paged = await createPagedMachine({
    manager,
    group,
    pages,
    ramPages: pages,
    loaded: LOADED_PAGES,
    layout,
    kernel: files.kernel.pagesOf(layout),
    initrd: files.initrd.pagesOf(bytesFile('the initrd', initrd)),
    shadowed: paging === 'shadow',
    order: id,
  });
  if ('kind' in paged) throw noMemory(bytes, paged.message);
  return { paging: paged.paging, paged };
}

/** Where a guest that goes on finds its memory: an address space that has it, or what is to be copied into frames. */
export type SavedMemory = { readonly space: AddressSpace } | { readonly file: PageFile };

/**
 * Builds a guest whose state `restore` reads back.
 * @param options whether others may go on from the same state, which the guest is told then
 * @param restore is given the domain before anything of it is used
 * @throws InputError
 */
export async function resumeMicrovm(
  cell: Cell,
  common: CommonOptions,
  options: DeviceOptions & { readonly isCopy: boolean },
  pages: number,
  saved: SavedMemory,
  restore: (domain: MicrovmDomain) => void,
): Promise<MicrovmDomain> {
  const memory = await resumeMemory(cell, common, pages, saved);
  const domain = await withMemory(memory, async () => assemble(cell, common, options, memory));
  try {
    restore(domain);
    let failed = await memory.paged?.pager.restorePins();
    if (!failed) domain.interface.noteAbsence?.();
    if (options.isCopy) failed ??= await domain.renew();
    if (failed) throw pagesMissing(failed.message);
    return domain;
  } catch (error) {
    await domain.destroy();
    throw error;
  }
}

async function resumeMemory(
  cell: Cell,
  { group, id }: CommonOptions,
  pages: number,
  saved: SavedMemory,
): Promise<MachineMemory> {
  if ('space' in saved) {
    const paged = await followMemory(saved.space, { group, pages, order: id, shadowed: cell.paging === 'shadow' });
    return { paging: paged.paging, paged };
  }
  const paging = createLinearPaging(group.parts.pool, group, pages);
  await withMemory({ paging }, () => paging.load((page, target) => saved.file.read(page * PAGE_SIZE, target)));
  return { paging };
}

async function withMemory<Result>({ paging }: MachineMemory, build: () => Promise<Result>): Promise<Result> {
  try {
    return await build();
  } catch (error) {
    await paging.destroy();
    throw error;
  }
}

function assemble(cell: Cell, common: CommonOptions, options: DeviceOptions, memory: MachineMemory): MicrovmDomain {
  const { devices, console } = createGuestDevices(options, common.id, common.random, common.consoleSink);
  return new MicrovmDomain({ ...common, ...memory, devices, console, ...interfaceOf(cell, common, memory) });
}

function interfaceOf(
  cell: Cell,
  { group, vcpus }: CommonOptions,
  { paging }: MachineMemory,
): Pick<MicrovmOptions, 'createInterface' | 'translationsOf'> {
  switch (cell.interface) {
    case 'kvm':
      return { createInterface: createKvmInterface };
    case 'vmi': {
      if (cell.paging === 'direct') {
        const tables = new DirectTables({ memory: paging, group, vcpus });
        return {
          createInterface: (domain) => new VmiInterface(domain, new UpdateQueues(paging), tables),
          translationsOf: (vcpu, own) => tables.translations(vcpu, own),
        };
      }
      const queues = new UpdateQueues(paging);
      return {
        createInterface: (domain) => new VmiInterface(domain, queues),
        translationsOf: (vcpu, own) => queues.translations(vcpu, own),
      };
    }
    default:
      return { createInterface: createNativeInterface };
  }
}
