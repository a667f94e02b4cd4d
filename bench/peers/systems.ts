import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { InputError } from '../../src/boot/input-error.ts';
import { type NodeProgram, ring1Command } from '../command.ts';
import type { Peer } from './session.ts';

export interface GuestFiles {
  readonly kernel: string;
  readonly initrd: string;
}

const MEGABYTES = 256;

/** @param options of `ring1 run` */
export function ring1(node: NodeProgram, options: readonly string[], { kernel, initrd }: GuestFiles): Peer {
  const files = ['--kernel', kernel, '--initrd', initrd];
  return {
    name: 'ring1',
    command: (commandLine) =>
      ring1Command(node, ['run', ...options, ...files, '--memory', `${MEGABYTES}M`, '--append', commandLine]),
  };
}

/** QEMU's machines: one made for virtual machines, without devices to look for, and a PC of today. */
const QEMU_MACHINES: Readonly<Record<string, string>> = {
  'qemu microvm': 'microvm,acpi=off',
  'qemu q35': 'q35',
};

/**
 * QEMU with its translator, if it is installed. Its default model of processor is the fastest: an AMD one, for which the
 * kernel does not isolate page tables, and without the string instructions that the translator executes byte by byte.
 */
export function qemu({ kernel, initrd }: GuestFiles): Peer[] {
  if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) return [];
  const files = ['-kernel', kernel, '-initrd', initrd];
  return Object.entries(QEMU_MACHINES).map(([name, machine]) => ({
    name,
    command: (commandLine) => ({
      program: 'qemu-system-x86_64',
      args: [
        ...['-machine', machine, '-accel', 'tcg', '-m', String(MEGABYTES)],
        ...['-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
        ...[...files, '-append', `console=ttyS0 ${commandLine}`],
      ],
    }),
  }));
}

export interface V86Files extends GuestFiles {
  /** Images of a BIOS and of a graphics adapter's. */
  readonly bios: string;
  readonly vgaBios: string;
}

/** @throws InputError when v86's package is not in the directory */
export function requireV86(directory: string): void {
  const missing = ['build/libv86.mjs', 'build/v86.wasm'].find((file) => !existsSync(join(directory, file)));
  if (missing !== undefined)
    throw new InputError(`--v86 ${directory} is no directory of the package v86: no ${missing}`);
}

/**
 * v86 in the same Node.js as this. It knows 32-bit code only.
 * @param v86 directory of the package
 * @param directory where its program may be put
 * @param flavour of the kernel, which may be another one than the other peers have
 */
export function v86(v86: string, directory: string, flavour: string, files: V86Files): Peer {
  const { kernel, initrd, bios, vgaBios } = files;
  const program = join(directory, 'v86-machine.mjs');
  buildSync({
    entryPoints: [fileURLToPath(new URL('v86-machine.ts', import.meta.url))],
    outfile: program,
    platform: 'node',
    format: 'esm',
  });
  return {
    name: `v86 ${flavour}`,
    command: (commandLine) => ({
      program: process.execPath,
      args: [program, v86, kernel, initrd, bios, vgaBios, String(MEGABYTES), `console=ttyS0 ${commandLine}`],
    }),
  };
}
