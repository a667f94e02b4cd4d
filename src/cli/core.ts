import type { CreateHost, Host } from '../api.ts';
import { InputError } from '../boot/input-error.ts';
import { loadKernel } from '../boot/kernel.ts';
import { refuseHopelessMemory, requireMemory, requireXenNotes } from '../boot/requirements.ts';

/** Stands in for the library's createHost until there is one: checks what is given, then says that it cannot run it. */
export const createHost: CreateHost = async (): Promise<Host> => ({
  async boot({ kernel, initrd, memory }) {
    refuseHopelessMemory(kernel, initrd?.length ?? 0, memory);
    const image = loadKernel(kernel);
    requireXenNotes(image);
    requireMemory(image, initrd?.length ?? 0, memory);
    throw new InputError('the interface xen is not built yet');
  },
  statistics: () => ({}),
  close: () => {},
});
