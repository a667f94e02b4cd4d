import { initramfs, kernelModules, kernel as kernelRecipe } from '../../guests/recipes.ts';
import type { BootOptions, Disk, InterfaceName, PagingName } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { bitsOfKernel } from '../boot/kernel.ts';
import { OverlayStore } from '../devices/block/overlay-store.ts';
import { FileStore } from '../node/file-store.ts';
import { readInputFile } from '../node/files.ts';
import type { Snapshot } from '../snapshot/snapshot.ts';
import type { DiskOption, GuestOptions, RunOptions } from './options.ts';
import { warn } from './session.ts';

/** What one guest is booted with; the disks are to be closed in the end. */
export async function prepareGuest(
  options: GuestOptions & Pick<RunOptions, 'afterburn' | 'check' | 'deterministic'>,
): Promise<BootOptions & { readonly disks: readonly Disk[] }> {
  const disks = await openDisks(options.disks);
  return { ...(await prepareBoot(options)), disks };
}

/** What a saved guest goes on with, and what it is booted with when it restarts; the disks are to be closed in the end. */
export async function prepareSavedGuest(
  { guest, kernel, initrd }: Snapshot,
  options: Pick<GuestOptions, 'disks'>,
): Promise<BootOptions & { readonly disks: readonly Disk[] }> {
  const { memory, vcpus, commandLine, deterministic } = guest;
  const cell = { interface: guest.interface as InterfaceName, paging: guest.paging as PagingName };
  return { ...cell, kernel, initrd, memory, vcpus, commandLine, deterministic, disks: await openDisks(options.disks) };
}

async function openDisks(wanted: readonly DiskOption[]): Promise<Disk[]> {
  const disks: Disk[] = [];
  for (const { path, isReadOnly, isSnapshot } of wanted) {
    const file = await FileStore.open(path, { isReadOnly: isReadOnly || isSnapshot, report: warn });
    disks.push(isSnapshot ? new OverlayStore(file) : file);
  }
  return disks;
}

async function prepareBoot(
  options: GuestOptions & Pick<RunOptions, 'afterburn' | 'check' | 'deterministic'>,
): Promise<BootOptions> {
  return {
    ...(await prepareFiles(options)),
    commandLine: commandLine(options),
    memory: options.memory,
    vcpus: options.vcpus,
    interface: options.interface,
    paging: options.paging,
    ...(options.lguestEra ? { lguestEra: options.lguestEra } : {}),
    afterburn: options.afterburn,
    check: options.check,
    deterministic: options.deterministic,
  };
}

/**
 * Names that stand for the reference guest's images where a kernel's file could stand. They are part of the command
 * itself, so that there is always something to run.
 */
const REFERENCES = {
  reference: () => import('../../guests/reference/x86-64.elf'),
  'reference-i386': () => import('../../guests/reference/i386.elf'),
  'reference-i386-pae': () => import('../../guests/reference/i386-pae.elf'),
};
type Reference = keyof typeof REFERENCES;

const isReference = (name: string): name is Reference => Object.hasOwn(REFERENCES, name);

/** What is booted where no kernel can be had: the image that serves all ways of paging that the interface goes with. */
const EMBEDDED: Readonly<Record<InterfaceName, Reference>> = {
  xen: 'reference',
  kvm: 'reference',
  native: 'reference',
  vmi: 'reference-i386-pae',
  lguest: 'reference-i386-pae',
};

async function prepareFiles(options: GuestOptions): Promise<Pick<BootOptions, 'kernel' | 'initrd'>> {
  if (options.kernel !== undefined && isReference(options.kernel)) return referenceGuest(options.kernel);
  if (options.kernel === undefined && options.interface === 'lguest') {
    warn('no kernel of the archive speaks to lguest; this is the reference guest, which ends by itself');
    return referenceGuest(EMBEDDED.lguest);
  }
  try {
    const kernel = await readInputFile(options.kernel ?? (await kernelRecipe('cloud-amd64')), 'kernel');
    const initrd =
      options.initrd === undefined
        ? await ownInitramfs(options, bitsOfKernel(kernel))
        : await readInputFile(options.initrd, 'initrd');
    return { kernel, initrd };
  } catch (error) {
    const givesFiles = options.kernel !== undefined || options.initrd !== undefined;
    if (givesFiles || !(error instanceof InputError)) throw error;
    warn(`${error.message}; this is the reference guest, which ends by itself`);
    return referenceGuest(EMBEDDED[options.interface]);
  }
}

async function referenceGuest(name: Reference): Promise<Pick<BootOptions, 'kernel' | 'initrd'>> {
  const { default: kernel } = await REFERENCES[name]();
  return { kernel, initrd: new Uint8Array() };
}

/** The modules are those of the kernel that is booted when none is given. A guest of Xen needs them for its disks only. */
async function ownInitramfs({ interface: name, disks }: GuestOptions, bits: 32 | 64): Promise<Uint8Array> {
  if (bits === 32) return initramfs({ architecture: 'i386' });
  const needsNone = name === 'xen' && disks.length === 0;
  return needsNone ? initramfs() : initramfs({ modules: await kernelModules('cloud-amd64') });
}

function commandLine(options: GuestOptions & Pick<RunOptions, 'deterministic'>): string {
  const words = [options.append];
  // These say themselves that they have panicked, and have no other console.
  const isParavirtual = options.interface === 'xen' || options.interface === 'lguest';
  // A machine has no way to report a panic but to restart at once; the domain looks where that came from. Without EFI a
  // kernel would restart a machine of this kind by its BIOS, and leave its stack before.
  if (!isParavirtual && !/(^|\s)panic=/.test(options.append)) words.unshift('panic=-1');
  if (!isParavirtual && !/(^|\s)reboot=/.test(options.append)) words.unshift('reboot=acpi');
  if (!/(^|\s)console=/.test(options.append)) {
    words.unshift(isParavirtual ? 'console=hvc0' : 'console=ttyS0');
  }
  // A guest's console cannot ask for the terminal's size; our own initramfs takes it from here.
  const { columns, rows, isTTY } = process.stdout;
  if (options.initrd === undefined && !options.deterministic && isTTY && columns > 0 && rows > 0) {
    words.push(`ring1.size=${columns}x${rows}`);
  }
  return words.filter((word) => word !== '').join(' ');
}
