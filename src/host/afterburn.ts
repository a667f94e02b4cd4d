import type { Choice } from '../boot/call-sites.ts';
import { type PatchingInterface, patchCallSites } from '../boot/patch-sites.ts';
import type { Cell } from '../domain/cells.ts';
import { offeredFeatures } from '../interfaces/kvm/kvm-interface.ts';
import { createRom } from '../interfaces/vmi/rom.ts';
import { Physical } from '../microvm/layout.ts';

/** What choices of kernels call the interfaces. */
const NUMBERS: Readonly<Record<Cell['interface'], number>> = { native: 0, xen: 1, kvm: 2, vmi: 3, lguest: 4 };

/** The condition of choices for Xen that tables of machine frames are to be kept. */
const NEEDS_MACHINE_FRAMES = 1;

/** What a kernel would put into its operation tables in a cell. */
export function patchingInterface({ interface: name, paging }: Cell): PatchingInterface {
  const number = NUMBERS[name];
  const isShadowed = paging === 'shadow';
  switch (name) {
    case 'kvm': {
      const features = offeredFeatures(isShadowed);
      return { number, resolve: (choice) => ((choice.condition & ~features) === 0 ? choice.function : undefined) };
    }
    case 'vmi': {
      const { calls } = createRom(isShadowed || paging === 'direct' ? paging : 'native');
      return {
        number,
        resolve: (choice, base) => {
          const code = calls.get(choice.condition);
          if (code === undefined || choice.function !== 0) return code === undefined ? undefined : choice.function;
          return code === 'nothing' ? code : base + Physical.optionRom + code;
        },
      };
    }
    case 'xen': {
      const isNeeded = ({ condition }: Choice): boolean =>
        paging !== 'translated' || condition !== NEEDS_MACHINE_FRAMES;
      return { number, resolve: (choice) => (isNeeded(choice) ? choice.function : undefined) };
    }
    default:
      return { number, resolve: (choice) => choice.function };
  }
}

/** Patches the call sites of a kernel for a cell, as the kernel itself would. @throws InputError when it records none */
export function afterburn(kernel: Uint8Array, cell: Cell): Uint8Array<ArrayBuffer> {
  return patchCallSites(kernel, patchingInterface(cell)).file;
}
