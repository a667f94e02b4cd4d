import { spawnSync } from 'node:child_process';
import { mkdtempSync, symlinkSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError } from '../src/boot/input-error.ts';
import { fileErrorReason } from '../src/node/files.ts';

const RING1 = fileURLToPath(new URL('../bin/ring1', import.meta.url));

/** A Node.js that can run ring1. */
export interface NodeProgram {
  /** What it says itself, as in v20.20.2. */
  readonly version: string;
  /** Has the program by the name of `node`, and nothing else. */
  readonly directory: string;
}

/** Milliseconds in which a Node.js says its version, even on a busy machine. */
const LONGEST_ANSWER = 30_000;

/**
 * @param path of the program, whatever its name is
 * @param temporary directory that stays as long as the program is used
 * @throws InputError when it is no Node.js
 */
export function openNode(path: string, temporary: string): NodeProgram {
  const directory = mkdtempSync(join(temporary, 'node-'));
  const link = join(directory, 'node');
  symlinkSync(resolve(path), link);
  const { error, stdout } = spawnSync(link, ['--version'], { encoding: 'utf8', timeout: LONGEST_ANSWER });
  if (error) throw new InputError(`cannot execute the Node.js ${path}: ${fileErrorReason(error)}`);
  const [, version] = /^(v\d+\.\d+\.\d+\S*)\n$/.exec(stdout) ?? [];
  if (version === undefined) throw new InputError(`${path} is no Node.js: it answers --version with no version of one`);
  return { version, directory };
}

/**
 * The command as users start it: its first line says what it asks of the Node.js that comes first in PATH. Needs what
 * `npm run build` makes.
 */
export function ring1Command({ directory }: NodeProgram, args: readonly string[]): { program: string; args: string[] } {
  return { program: 'env', args: [`PATH=${directory}${delimiter}${process.env.PATH}`, RING1, ...args] };
}
