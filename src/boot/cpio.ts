/**
 * Writes initramfs archives: cpio in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
 * Each entry is a header of "070701" and 13 numbers of 8 hexadecimal digits, the name with a NUL, and the data; name and
 * data are padded to fours. An entry "TRAILER!!!" ends the archive.
 */

export type CpioEntry =
  /** `mode` is the permission bits; the defaults are 0o644 for files, 0o755 for directories, 0o600 for devices. */
  | { readonly type: 'file'; readonly path: string; readonly data: Uint8Array | string; readonly mode?: number }
  | { readonly type: 'directory'; readonly path: string; readonly mode?: number }
  | { readonly type: 'symlink'; readonly path: string; readonly target: string }
  | {
      readonly type: 'character-device' | 'block-device';
      readonly path: string;
      readonly major: number;
      readonly minor: number;
      readonly mode?: number;
    };

/** File types of st_mode. */
const enum FileType {
  characterDevice = 0o020000,
  directory = 0o040000,
  blockDevice = 0o060000,
  regular = 0o100000,
  symlink = 0o120000,
}

const HEADER_SIZE = 110;
const TRAILER = 'TRAILER!!!';

interface RawEntry {
  readonly name: Uint8Array;
  readonly mode: number;
  readonly data: Uint8Array;
  readonly major: number;
  readonly minor: number;
}

/**
 * @param entries in the order in which the kernel shall create them; a path's directories come before it. Paths have
 *   no leading slash.
 * @returns the archive. Owner is root and times are 0, so equal entries give equal bytes.
 */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const raw = entries.map(rawEntry);
  raw.push({ name: encoder.encode(TRAILER), mode: 0, data: new Uint8Array(), major: 0, minor: 0 });
  const size = raw.reduce(
    (sum, { name, data }) => sum + padded(HEADER_SIZE + name.length + 1) + padded(data.length),
    0,
  );
  const archive = new Uint8Array(size);
  let at = 0;
  raw.forEach((entry, index) => {
    archive.set(header(entry, index + 1), at);
    archive.set(entry.name, at + HEADER_SIZE);
    at += padded(HEADER_SIZE + entry.name.length + 1);
    archive.set(entry.data, at);
    at += padded(entry.data.length);
  });
  return archive;
}

const encoder = new TextEncoder();

function rawEntry(entry: CpioEntry): RawEntry {
  const name = encoder.encode(entry.path);
  const plain = { name, data: new Uint8Array(), major: 0, minor: 0 };
  switch (entry.type) {
    case 'file': {
      const data = typeof entry.data === 'string' ? encoder.encode(entry.data) : entry.data;
      return { ...plain, data, mode: FileType.regular | (entry.mode ?? 0o644) };
    }
    case 'directory':
      return { ...plain, mode: FileType.directory | (entry.mode ?? 0o755) };
    case 'symlink':
      return { ...plain, data: encoder.encode(entry.target), mode: FileType.symlink | 0o777 };
    case 'character-device':
    case 'block-device': {
      const type = entry.type === 'block-device' ? FileType.blockDevice : FileType.characterDevice;
      return { ...plain, mode: type | (entry.mode ?? 0o600), major: entry.major, minor: entry.minor };
    }
  }
}

function header({ name, mode, data, major, minor }: RawEntry, inode: number): Uint8Array {
  const links = (mode & 0o170000) === FileType.directory ? 2 : 1;
  const fields = [
    inode,
    mode,
    0, // owner
    0, // group
    links,
    0, // time
    data.length,
    0, // device that the file is on, major and minor
    0,
    major,
    minor,
    name.length + 1,
    0, // checksum, unused in this format
  ];
  return encoder.encode(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
}

function padded(size: number): number {
  return (size + 3) & ~3;
}
