import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BootOptions, InterfaceName, Outcome } from '../../src/api.ts';
import { createHost } from '../../src/index.ts';

/** Where the kernels of this folder begin, and where the pages begin that their programs of ring 3 may use. */
const TEXT = '0x110000';
const USER = '0x180000';
/** Of each guest, in bytes. */
export const MEMORY = 32 << 20;

export interface Printed {
  readonly lines: readonly string[];
  readonly outcome: Outcome;
}

/** Assembles a kernel out of this folder. @param defines names for the preprocessor, as in `ERA=2` */
export function assemble(name: string, bits: 32 | 64 = 64, defines: readonly string[] = []): Uint8Array {
  const directory = mkdtempSync(join(tmpdir(), 'ring1-kernel-'));
  const output = join(directory, 'kernel');
  const source = fileURLToPath(new URL(name, import.meta.url));
  const linker = `-Wl,-Ttext=${TEXT},--section-start=.user=${USER},--build-id=none,-z,noexecstack`;
  const names = defines.map((define) => `-D${define}`);
  execFileSync('gcc', [`-m${bits}`, '-nostdlib', '-static', '-no-pie', linker, ...names, '-o', output, source]);
  const kernel = readFileSync(output);
  rmSync(directory, { recursive: true });
  return kernel;
}

/** Boots a kernel with virtual time, and returns what it printed when it has ended. */
export async function runKernel(
  kernel: Uint8Array,
  name: InterfaceName,
  vcpus: number,
  more: Partial<Pick<BootOptions, 'commandLine' | 'paging'>> = {},
): Promise<Printed> {
  const host = await createHost({ memory: MEMORY });
  try {
    const options = { kernel, commandLine: '', memory: MEMORY, vcpus, interface: name, deterministic: true, ...more };
    const machine = await host.boot(options);
    const reader = machine.console.output.getReader();
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      text += decoder.decode(value, { stream: true });
    }
    return { lines: text.split('\n').filter((line) => line !== ''), outcome: await machine.done };
  } finally {
    host.close();
  }
}
