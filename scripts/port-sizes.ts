import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * Counts the tables of docs/sizes.md anew: what each interface takes on both sides, in lines that are neither empty nor
 * comment. `npx tsx scripts/port-sizes.ts`
 */
const root = fileURLToPath(new URL('..', import.meta.url));

export const documentPath = join(root, 'docs/sizes.md');

export interface PartSize {
  readonly what: string;
  readonly files: number;
  readonly lines: number;
}

interface Part {
  readonly what: string;
  /** Files and folders. */
  readonly paths: readonly string[];
}

const guest = (...names: readonly string[]) => names.map((name) => `guests/reference/${name}`);

const PARTS: Readonly<Record<string, readonly Part[]>> = {
  'guest side (the reference guest)': [
    {
      what: 'plain hardware',
      paths: guest('kernel/native.c', 'kernel/native-mmu.c', 'kernel/apic.c', 'kernel/acpi.c'),
    },
    { what: 'entries, segments and call sites of 64 bits', paths: guest('x86-64') },
    { what: 'entries, segments and call sites of 32 bits', paths: guest('i386') },
    { what: 'KVM, beyond plain hardware', paths: guest('paravirt/kvm.c', 'kernel/pvclock.c') },
    { what: 'VMI, beyond plain hardware', paths: guest('vmi') },
    { what: 'lguest', paths: guest('lguest', 'include/lguest-abi.h') },
    { what: 'Xen, direct paging', paths: guest('xen', 'include/xen-abi.h') },
    { what: 'Xen, of 64 bits', paths: guest('xen-x86-64') },
    { what: 'Xen, of 32 bits', paths: guest('xen-i386') },
    {
      what: 'operations, patching and counting, for all of them',
      paths: guest(
        'paravirt/count',
        'paravirt/native-instructions.c',
        'paravirt/operations.c',
        'paravirt/patch.c',
        'include/operations.h',
        'include/paravirt',
        'include/site',
      ),
    },
  ],
  'host side': [
    { what: 'the machine of KVM, VMI and plain hardware', paths: ['src/microvm'] },
    { what: 'plain hardware, beyond the machine', paths: ['src/interfaces/native'] },
    { what: 'KVM, beyond the machine', paths: ['src/interfaces/kvm'] },
    { what: 'VMI, beyond the machine, with its ROM', paths: ['src/interfaces/vmi'] },
    { what: 'lguest', paths: ['src/interfaces/lguest'] },
    { what: 'Xen', paths: ['src/interfaces/xen'] },
    { what: 'direct paging (Xen, VMI)', paths: ['src/paging/direct', 'src/paging/domain-paging.ts'] },
    { what: 'translated frames (Xen), beyond shadows', paths: ['src/paging/translated'] },
    { what: 'nested paging (KVM, plain hardware)', paths: ['src/paging/nested'] },
    { what: 'shadow paging (all)', paths: ['src/paging/shadow'] },
  ],
  'drivers, host side': [
    { what: "a PC's controllers, timers, serial port (KVM, VMI, plain hardware)", paths: ['src/devices/pc'] },
    { what: 'virtio (KVM, VMI, lguest, plain hardware)', paths: ['src/devices/virtio'] },
    { what: "Xen's rings and XenStore", paths: ['src/devices/xen', 'src/devices/xenstore'] },
  ],
};

/** What is hostile on purpose is no part of a port. */
const NO_PORT = /hostile/;

/** Paths are prefixes of files, so that `src/devices/xenstore` means all files that begin so. */
function filesOf(path: string): string[] {
  const full = join(root, path);
  const folder = path.slice(0, path.lastIndexOf('/'));
  const matching = readdirSync(join(root, folder)).filter((name) => `${folder}/${name}`.startsWith(path));
  const found = matching.flatMap((name) => {
    const file = join(root, folder, name);
    if (!statSync(file).isDirectory()) return [file];
    return file === full ? readdirSync(file, { recursive: true }).map((entry) => join(file, String(entry))) : [];
  });
  return found.filter((file) => !NO_PORT.test(basename(file)));
}

function linesOf(file: string): number {
  if (!/\.(ts|c|h|S)$/.test(file)) return 0;
  const text = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
  return text.split('\n').filter((line) => line.trim() !== '' && !line.trim().startsWith('//')).length;
}

/** The tables by their titles, for the sources as they are. */
export function countPorts(): ReadonlyMap<string, readonly PartSize[]> {
  const sizeOf = ({ what, paths }: Part): PartSize => {
    const counts = [...new Set(paths.flatMap(filesOf))].map(linesOf).filter((lines) => lines > 0);
    return { what, files: counts.length, lines: counts.reduce((sum, lines) => sum + lines, 0) };
  };
  return new Map(Object.entries(PARTS).map(([side, parts]) => [side, parts.map(sizeOf)]));
}

/** A table that has files and lines in its columns, with its title. */
const TABLE = /^\| (.+) \| files \| lines \|\n\|---\|---:\|---:\|\n((?:\|.*\n)*)/gm;

/** The tables by their titles, as a document has them. */
export function readPorts(document: string): ReadonlyMap<string, readonly PartSize[]> {
  const sizesOf = (rows: string): PartSize[] =>
    [...rows.matchAll(/^\| (.+) \| (\d+) \| (\d+) \|$/gm)].map(([, what = '', files, lines]) => ({
      what,
      files: Number(files),
      lines: Number(lines),
    }));
  return new Map([...document.matchAll(TABLE)].map(([, side = '', rows = '']) => [side, sizesOf(rows)]));
}

function renderPorts(document: string): string {
  const counted = countPorts();
  return document.replace(TABLE, (table, side: string) => {
    const rows = (counted.get(side) ?? []).map(({ what, files, lines }) => `| ${what} | ${files} | ${lines} |\n`);
    return [
      ...table
        .split('\n')
        .slice(0, 2)
        .map((line) => `${line}\n`),
      ...rows,
    ].join('');
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(documentPath, renderPorts(readFileSync(documentPath, 'utf8')));
}
