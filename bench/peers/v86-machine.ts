import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

/**
 * A process that runs a guest on v86, with the guest's serial port as its stdout. Arguments: v86's directory, kernel,
 * initramfs, the two BIOS images, megabytes of memory, command line.
 */

/** What is used of the package; bench/peers.ts says why it is no dependency. */
interface V86Package {
  readonly V86: new (options: {
    readonly wasm_path: string;
    readonly memory_size: number;
    readonly vga_memory_size: number;
    readonly bios: { readonly buffer: ArrayBuffer };
    readonly vga_bios: { readonly buffer: ArrayBuffer };
    readonly bzimage: { readonly buffer: ArrayBuffer };
    readonly initrd: { readonly buffer: ArrayBuffer };
    readonly cmdline: string;
    readonly autostart: boolean;
  }) => { add_listener(event: 'serial0-output-byte', listener: (byte: number) => void): void };
}

const [directory = '', kernel = '', initrd = '', bios = '', vgaBios = '', megabytes = '', commandLine = ''] =
  process.argv.slice(2);

function bufferOf(path: string): { buffer: ArrayBuffer } {
  return { buffer: new Uint8Array(readFileSync(path)).buffer };
}

const { V86 } = (await import(pathToFileURL(`${directory}/build/libv86.mjs`).href)) as V86Package;
const machine = new V86({
  wasm_path: `${directory}/build/v86.wasm`,
  memory_size: Number(megabytes) << 20,
  vga_memory_size: 2 << 20,
  bios: bufferOf(bios),
  vga_bios: bufferOf(vgaBios),
  bzimage: bufferOf(kernel),
  initrd: bufferOf(initrd),
  cmdline: commandLine,
  autostart: true,
});
let line = '';
machine.add_listener('serial0-output-byte', (byte) => {
  line += String.fromCharCode(byte);
  if (byte !== 0x0a) return;
  process.stdout.write(line, 'latin1');
  line = '';
});
