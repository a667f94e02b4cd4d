import { randomUUID } from 'node:crypto';
import { access, constants, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InputError } from '../boot/input-error.ts';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'permission denied',
  EISDIR: 'it is a directory',
  ENOTDIR: 'a part of the path is not a directory',
  ENOSPC: 'no space left on the device',
  EROFS: 'the file system is read-only',
  ERR_FS_FILE_TOO_LARGE: 'it is larger than 2 GiB',
};

/** What went wrong with a file, in words. */
export function fileErrorReason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return REASONS[code] ?? (error instanceof Error ? error.message : String(error));
}

/** Reads a file or a pipe. @param what the file is, for the message: "kernel". */
export async function readInputFile(path: string, what: string): Promise<Uint8Array> {
  const cannotRead = (reason: string): InputError => new InputError(`cannot read the ${what} ${path}: ${reason}`);
  let content: Uint8Array;
  try {
    const status = await stat(path);
    // A device may never end.
    if (status.isCharacterDevice() || status.isBlockDevice()) throw cannotRead('it is a device; give a file');
    content = await readFile(path);
  } catch (error) {
    throw error instanceof InputError ? error : cannotRead(fileErrorReason(error));
  }
  if (content.length === 0) throw new InputError(`the ${what} ${path} is empty`);
  return content;
}

/** Fails early if a file could not be written to `path` later. */
export async function requireWritable(path: string, what: string): Promise<void> {
  const cannotWrite = (error: unknown): InputError =>
    new InputError(`cannot write the ${what} ${path}: ${fileErrorReason(error)}`);
  const existing = await stat(path).catch(() => undefined);
  if (existing?.isDirectory()) throw cannotWrite({ code: 'EISDIR' });
  // A file is replaced, which its directory must allow; anything else is written to.
  const written = existing === undefined || existing.isFile() ? dirname(path) : path;
  await access(written, constants.W_OK).catch((error) => {
    throw cannotWrite(error);
  });
}

/** Writes a file so that others see all of it or nothing. Devices and pipes are written to directly. */
export async function writeFileAtomically(path: string, content: string): Promise<void> {
  const existing = await stat(path).catch(() => undefined);
  if (existing !== undefined && !existing.isFile()) return writeFile(path, content);
  const temporary = join(dirname(path), `.${randomUUID()}.tmp`);
  try {
    await writeFile(temporary, content);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
