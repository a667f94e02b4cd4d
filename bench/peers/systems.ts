import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Peer } from './session.ts';

export interface GuestFiles {
  readonly kernel: string;
  readonly initrd: string;
}

const MEGABYTES = 256;
const RING1 = fileURLToPath(new URL('../../bin/ring1', import.meta.url));

/** @param node the Node.js that runs it */
export function ring1(node: string, { kernel, initrd }: GuestFiles): Peer {
  const files = ['--kernel', kernel, '--initrd', initrd];
  return {
    name: 'ring1 xen',
    command: (commandLine) => ({
      program: node,
      args: [RING1, 'run', ...files, '--memory', `${MEGABYTES}M`, '--append', commandLine],
    }),
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
