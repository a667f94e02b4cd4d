import { writeFile } from 'node:fs/promises';
import { InputError } from '../src/boot/input-error.ts';
import { busybox, grub, initramfs, KERNEL_FLAVOURS, kernel } from './recipes.ts';

/** `npx tsx guests/obtain.ts kernel FLAVOUR | grub BITS | busybox | initramfs FILE`: prints the file's path. */
const [what, argument] = process.argv.slice(2);
try {
  const flavour = KERNEL_FLAVOURS.find((name) => name === argument);
  if (what === 'kernel' && flavour !== undefined) {
    console.log(await kernel(flavour));
  } else if (what === 'grub' && (argument === '64' || argument === '32')) {
    console.log(await grub(argument === '64' ? 64 : 32));
  } else if (what === 'busybox') {
    console.log(await busybox());
  } else if (what === 'initramfs' && argument !== undefined) {
    await writeFile(argument, await initramfs());
    console.log(argument);
  } else {
    const kernels = KERNEL_FLAVOURS.map((name) => `kernel ${name}`).join(', ');
    throw new InputError(`give one of: ${kernels}, grub 64, grub 32, busybox, initramfs FILE`);
  }
} catch (error) {
  if (!(error instanceof InputError)) throw error;
  process.stderr.write(`obtain: ${error.message}\n`);
  process.exitCode = 1;
}
