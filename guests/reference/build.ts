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

/** One for each form of page tables: of four levels, of two, and of three. */
export const IMAGES = ['x86-64', 'i386', 'i386-pae'] as const;
export type Image = (typeof IMAGES)[number];

/** @returns where an image is kept; `ring1 run` boots that for x86-64. */
export function imagePath(image: Image): string {
  return join(folder, `${image}.elf`);
}

interface Target {
  /** Of what is the processor's, with the headers that the rest includes. */
  readonly folder: string;
  /** Interfaces that not every image has: folders of sources, by what the sources call them. */
  readonly interfaces: Readonly<Record<string, readonly string[]>>;
  readonly flags: readonly string[];
  /** Of the kernel, but not of programs. */
  readonly kernelFlags: readonly string[];
  /** The linker's name of the format. */
  readonly format: string;
}

const I386 = { folder: 'i386', kernelFlags: [], format: 'elf_i386' };
const I386_INTERFACES = { VMI: ['vmi'], LGUEST: ['lguest'] };
const I386_FLAGS = ['-m32', '-march=i686', '-mregparm=3', '-mpreferred-stack-boundary=2'];

const TARGETS: Readonly<Record<Image, Target>> = {
  'x86-64': {
    folder: 'x86-64',
    interfaces: { XEN: ['xen', 'xen-x86-64'] },
    flags: ['-march=x86-64', '-mno-red-zone'],
    kernelFlags: ['-mcmodel=kernel'],
    format: 'elf_x86_64',
  },
  i386: { ...I386, interfaces: I386_INTERFACES, flags: I386_FLAGS },
  'i386-pae': {
    ...I386,
    interfaces: { ...I386_INTERFACES, XEN: ['xen', 'xen-i386'] },
    flags: [...I386_FLAGS, '-DPAE'],
  },
};

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
  paravirt: ['kernel', 'paravirt'],
  native: ['kernel'],
  plain: ['kernel'],
};

const FLAGS = [
  '-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -fno-pic -no-pie -fno-stack-protector',
  '-fno-asynchronous-unwind-tables -fno-strict-aliasing -fno-builtin -fcf-protection=none -fno-common',
  '-mgeneral-regs-only -mtune=generic -Iinclude',
].flatMap((line) => line.split(' '));
const KERNEL_FLAGS = ['-fno-omit-frame-pointer'];

/** @returns what `gcc --version` begins with; undefined when there is none */
export function installedCompiler(): string | undefined {
  try {
    return execFileSync('gcc', ['--version'], { encoding: 'utf8' }).split('\n')[0];
  } catch {
    return undefined;
  }
}

/** Builds one variant of an image. @returns the ELF file */
export function buildReference(image: Image, variant: Variant): Uint8Array {
  const target = TARGETS[image];
  const directory = mkdtempSync(join(tmpdir(), 'ring1-reference-'));
  const flags = [...FLAGS, ...target.flags, `-I${target.folder}/include`];
  const gcc = (...args: readonly string[]) => execFileSync('gcc', [...flags, ...args], { cwd: folder });
  const linkerScript = (source: string) => {
    const output = join(directory, source.replace('/', '-'));
    gcc('-E', '-P', '-xc', '-D__ASSEMBLER__', source, '-o', output);
    return output;
  };
  try {
    const program = join(directory, 'program');
    const flat = `-Wl,-m,${target.format},--build-id=none,-z,noexecstack,-z,max-page-size=4096,--no-warn-rwx-segments`;
    gcc(flat, '-Wl,--oformat=binary', `-Wl,-T,${linkerScript('user/link.ld')}`, 'user/program.c', '-o', program);
    const interfaces = variant === 'paravirt' ? target.interfaces : {};
    const kernelFlags = [
      ...KERNEL_FLAGS,
      ...target.kernelFlags,
      ...DEFINES[variant],
      ...Object.keys(interfaces).map((name) => `-D${name}`),
    ];
    const objects = [target.folder, ...SOURCES[variant], ...Object.values(interfaces).flat()].flatMap((source) =>
      compile((...args) => gcc(...kernelFlags, ...args), directory, source),
    );
    const image = join(directory, 'user-image.o');
    gcc(`-DUSER_IMAGE="${program}"`, '-c', 'user/image.S', '-o', image);
    const output = join(directory, 'kernel.elf');
    gcc(flat, `-Wl,-T,${linkerScript('link.ld')}`, ...objects, image, '-o', output);
    return readFileSync(output);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function compile(gcc: (...args: readonly string[]) => unknown, directory: string, source: string): string[] {
  const files = readdirSync(join(folder, source)).filter((name) => /\.[cS]$/.test(name));
  return files.sort().map((name) => {
    const object = join(directory, `${source}-${name}.o`);
    gcc('-c', join(source, name), '-o', object);
    return object;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const image of IMAGES) writeFileSync(imagePath(image), buildReference(image, 'paravirt'));
}
