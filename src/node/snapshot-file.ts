import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { InputError } from '../boot/input-error.ts';
import type { SnapshotSource, SnapshotTarget } from '../snapshot/format.ts';
import { fileErrorReason } from './files.ts';

/**
 * Writes a snapshot so that at any time, even if the machine stops, `path` is the earlier file or the whole new one: into
 * a file beside it, which reaches the disk before it takes the name, and then the directory does.
 * @throws InputError with what went wrong; then the earlier file is as it was
 */
export async function saveSnapshotFile(path: string, write: (target: SnapshotTarget) => Promise<void>): Promise<void> {
  const directory = dirname(path);
  const temporary = join(directory, `${temporaryPrefix(path)}${process.pid}.${randomUUID()}.tmp`);
  await sweep(path);
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await write({ append: (bytes) => appendAll(file, bytes) });
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncDirectory(directory);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new InputError(`cannot save the guest to ${path}: ${fileErrorReason(error)}`);
  }
}

/** What the names of all files begin with that this machine writes in place of `path`; the number of a process follows. */
function temporaryPrefix(path: string): string {
  return `.${basename(path)}.${hostname()}.`;
}

/** Removes what processes of this machine left that were killed while they wrote. What cannot be removed stays. */
async function sweep(path: string): Promise<void> {
  const directory = dirname(path);
  const prefix = temporaryPrefix(path);
  const names = await readdir(directory).catch(() => []);
  for (const name of names) {
    if (!name.startsWith(prefix)) continue;
    const writer = /^(\d+)\.[-0-9a-f]+\.tmp$/.exec(name.slice(prefix.length))?.[1];
    if (writer !== undefined && !isAlive(Number(writer)))
      await rm(join(directory, name), { force: true }).catch(() => {});
  }
}

function isAlive(identifier: number): boolean {
  try {
    process.kill(identifier, 0);
    return true;
  } catch (error) {
    // Of another user.
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function appendAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done);
    done += bytesWritten;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** A snapshot in a file, to be closed when no guest needs it any more. */
export class SnapshotFile implements SnapshotSource {
  readonly name: string;
  readonly size: number;
  readonly #file: FileHandle;

  private constructor(path: string, size: number, file: FileHandle) {
    this.name = path;
    this.size = size;
    this.#file = file;
  }

  /** @throws InputError when there is no such file */
  static async open(path: string): Promise<SnapshotFile> {
    let file: FileHandle;
    try {
      file = await open(path, 'r');
    } catch (error) {
      throw new InputError(`cannot open the snapshot ${path}: ${fileErrorReason(error)}`);
    }
    const status = await file.stat();
    if (status.isFile()) return new SnapshotFile(path, status.size, file);
    await file.close();
    throw new InputError(`cannot open the snapshot ${path}: it is not a regular file`);
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    for (let done = 0; done < target.length; ) {
      const { bytesRead } = await this.#file.read(target, done, target.length - done, offset + done);
      if (bytesRead === 0) throw new InputError(`the snapshot ${this.name} has become shorter`);
      done += bytesRead;
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
