import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Builds the reference guest with gcc and binutils: `npx tsx guests/reference/build.ts` writes the images that are kept
 * beside their sources. The same compiler makes the same bytes.
 */
const folder = fileURLToPath(new URL('.', import.meta.url));

/** The image that `ring1 run` and the tests boot. */
export const imagePath = join(folder, 'x86-64.elf');
/** What it was built with, as the compiler itself says. */
export const COMPILER = 'gcc (Debian 12.2.0-14+deb12u1) 12.2.0';

/**
 * - `paravirt`: for every interface
 * - `native`: without paravirtualization, for plain hardware alone
 * - `plain`: the same without accessors of page-table entries
 */
export type Variant = 'paravirt' | 'native' | 'plain';

const DEFINES: Readonly<Record<Variant, readonly string[]>> = {
  paravirt: ['-DPARAVIRT'],
  native: [],
  plain: ['-DPLAIN_ENTRIES'],
};

/** Folders of sources. */
const SOURCES: Readonly<Record<Variant, readonly string[]>> = {
  paravirt: ['kernel', 'paravirt', 'xen'],
  native: ['kernel'],
  plain: ['kernel'],
};

const FLAGS = [
  '-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -fno-pic -no-pie -fno-stack-protector',
  '-fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-builtin -fcf-protection=none -fno-common',
  '-mno-red-zone -mgeneral-regs-only -march=x86-64 -mtune=generic -Iinclude',
].flatMap((line) => line.split(' '));
const KERNEL_FLAGS = ['-mcmodel=kernel', '-fno-omit-frame-pointer'];

/** @returns what `gcc --version` begins with; undefined when there is none */
export function installedCompiler(): string | undefined {
  try {
    return execFileSync('gcc', ['--version'], { encoding: 'utf8' }).split('\n')[0];
  } catch {
    return undefined;
  }
}

/** Builds one variant. @returns the ELF file */
export function buildReference(variant: Variant): Uint8Array {
  const directory = mkdtempSync(join(tmpdir(), 'ring1-reference-'));
  const gcc = (...args: readonly string[]) => execFileSync('gcc', args, { cwd: folder });
  const linkerScript = (source: string) => {
    const output = join(directory, source.replace('/', '-'));
    gcc('-E', '-P', '-xc', '-D__ASSEMBLER__', '-Iinclude', source, '-o', output);
    return output;
  };
  try {
    const program = join(directory, 'program');
    const flat = '-Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments';
    gcc(
      ...FLAGS,
      flat,
      '-Wl,--oformat=binary',
      `-Wl,-T,${linkerScript('user/link.ld')}`,
      'user/program.c',
      '-o',
      program,
    );
    const objects = SOURCES[variant].flatMap((source) => compile(gcc, directory, source, variant));
    const image = join(directory, 'user-image.o');
    gcc(...FLAGS, `-DUSER_IMAGE="${program}"`, '-c', 'user/image.S', '-o', image);
    const output = join(directory, 'kernel.elf');
    gcc(...FLAGS, flat, `-Wl,-T,${linkerScript('link.ld')}`, ...objects, image, '-o', output);
    return readFileSync(output);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function compile(
  gcc: (...args: readonly string[]) => unknown,
  directory: string,
  source: string,
  variant: Variant,
): string[] {
  const files = readdirSync(join(folder, source)).filter((name) => /\.[cS]$/.test(name));
  return files.sort().map((name) => {
    const object = join(directory, `${source}-${name}.o`);
    gcc(...FLAGS, ...KERNEL_FLAGS, ...DEFINES[variant], '-c', join(source, name), '-o', object);
    return object;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(imagePath, buildReference('paravirt'));
