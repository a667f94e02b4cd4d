import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename } from 'node:path';
import { InputError } from '../boot/input-error.ts';
import { type BlockResult, type BlockStore, SECTOR } from '../devices/block/store.ts';
import { fileErrorReason } from './files.ts';

export interface FileStoreOptions {
  readonly isReadOnly: boolean;
  /** Takes one line for the user when an operation fails. */
  readonly report: (line: string) => void;
}

/** A disk in a file, as its raw contents. */
export class FileStore implements BlockStore {
  readonly sectors: number;
  readonly isReadOnly: boolean;
  readonly identifier: string;
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #report: (line: string) => void;

  private constructor(file: FileHandle, path: string, bytes: number, options: FileStoreOptions) {
    this.#file = file;
    this.#path = path;
    this.#report = options.report;
    this.sectors = bytes / SECTOR;
    this.isReadOnly = options.isReadOnly;
    this.identifier = basename(path).replace(/[^\x20-\x7e]/g, '?');
  }

  /** @throws InputError when the file cannot be a disk */
  static async open(path: string, options: FileStoreOptions): Promise<FileStore> {
    let file: FileHandle;
    try {
      file = await open(path, options.isReadOnly ? constants.O_RDONLY : constants.O_RDWR);
    } catch (error) {
      throw new InputError(`cannot open the disk ${path}: ${fileErrorReason(error)}`);
    }
    const status = await file.stat();
    const problem = !status.isFile()
      ? 'it is not a regular file'
      : status.size === 0 || status.size % SECTOR !== 0
        ? `its ${status.size} bytes are not a number of sectors of ${SECTOR} bytes`
        : undefined;
    if (problem !== undefined) {
      await file.close();
      throw new InputError(`cannot use the disk ${path}: ${problem}`);
    }
    return new FileStore(file, path, status.size, options);
  }

  async read(sector: number, target: Uint8Array): Promise<BlockResult> {
    return this.#all('read', target.length, async (done) => {
      const { bytesRead } = await this.#file.read(target, done, target.length - done, sector * SECTOR + done);
      return bytesRead;
    });
  }

  async write(sector: number, source: Uint8Array): Promise<BlockResult> {
    return this.#all('write', source.length, async (done) => {
      const { bytesWritten } = await this.#file.write(source, done, source.length - done, sector * SECTOR + done);
      return bytesWritten;
    });
  }

  async flush(): Promise<BlockResult> {
    try {
      if (!this.isReadOnly) await this.#file.datasync();
      return 'done';
    } catch (error) {
      return this.#failed('write', fileErrorReason(error));
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /** An operation may do less than it was asked; nothing at all means that the file has become shorter. */
  async #all(what: string, length: number, step: (done: number) => Promise<number>): Promise<BlockResult> {
    try {
      for (let done = 0; done < length; ) {
        const count = await step(done);
        if (count === 0) return this.#failed(what, 'the file ends too early');
        done += count;
      }
      return 'done';
    } catch (error) {
      return this.#failed(what, fileErrorReason(error));
    }
  }

  #failed(what: string, reason: string): BlockResult {
    this.#report(`cannot ${what} the disk ${this.#path}: ${reason}`);
    return 'failed';
  }
}
