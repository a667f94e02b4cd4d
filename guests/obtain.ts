import { writeFile } from 'node:fs/promises';
import { InputError } from '../src/boot/input-error.ts';
import { busybox, initramfs, kernel } from './recipes.ts';

/** `npx tsx guests/obtain.ts kernel cloud-amd64 | kernel amd64 | busybox | initramfs FILE`: prints the file's path. */
const [what, argument] = process.argv.slice(2);
try {
  if (what === 'kernel' && (argument === 'cloud-amd64' || argument === 'amd64')) {
    console.log(await kernel(argument));
  } else if (what === 'busybox') {
    console.log(await busybox());
  } else if (what === 'initramfs' && argument !== undefined) {
    await writeFile(argument, await initramfs());
    console.log(argument);
  } else {
    throw new InputError('give one of: kernel cloud-amd64, kernel amd64, busybox, initramfs FILE');
  }
} catch (error) {
  if (!(error instanceof InputError)) throw error;
  process.stderr.write(`obtain: ${error.message}\n`);
  process.exitCode = 1;
}
