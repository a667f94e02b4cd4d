import { execFile, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, copyFile, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { InputError } from '../src/boot/input-error.ts';

/**
 * Files out of packages of the Debian archive, by apt's own tools: `apt-cache` finds a package, `apt-get download`
 * fetches it, `dpkg-deb` opens it. Nothing is installed and no privilege is needed.
 *
 * Each file is taken once and kept in the cache directory; a directory there appears complete or not at all. To get
 * newer packages, delete it.
 */

/** RING1_CACHE, or `ring1` in the user's cache directory. */
export function cacheDirectory(): string {
  const { RING1_CACHE, XDG_CACHE_HOME } = process.env;
  if (RING1_CACHE) return RING1_CACHE;
  return join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'ring1');
}

/** Debian's names: x86-64, and 32-bit x86 from the Pentium Pro on. */
export type Architecture = 'amd64' | 'i386';

export interface PackageFile {
  /** Name of the directory in the cache. */
  readonly name: string;
  /** A package, or one whose first dependency that `dependency` matches is meant (a metapackage). */
  readonly packageName: string;
  readonly dependency?: RegExp;
  readonly architecture: Architecture;
  readonly files: readonly KeptFile[];
}

export interface KeptFile {
  /** By its path in the package, without a leading slash. */
  readonly path: RegExp;
  /** Where it is kept, below the directory; $1 is the first group of `path`. */
  readonly as: string;
  /** The package may do without. */
  readonly isOptional?: boolean;
}

/** Called with one line of progress, without newline. */
export type Progress = (line: string) => void;

export const progressOnStderr: Progress = (line) => void process.stderr.write(`ring1: ${line}\n`);

/**
 * @returns the directory in the cache that holds the files.
 * @throws InputError if they cannot be had, with a line that says how to do without.
 */
export async function obtain(wanted: PackageFile, progress: Progress): Promise<string> {
  const cache = cacheDirectory();
  const directory = join(cache, wanted.name);
  if (await exists(directory)) return directory;

  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb', 'tar']) {
    if (!(await isInPath(tool))) throw unobtainable(wanted, `${tool} is not installed`);
  }
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, `.${wanted.name}-`));
  try {
    const archive = await download(wanted, cache, temporary, progress);
    progress(`unpacking ${archive.packageName}`);
    const kept = join(temporary, 'kept');
    await unpack(wanted, archive.file, temporary, kept);
    await moveIntoPlace(kept, directory);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return directory;
}

function unobtainable(wanted: PackageFile, reason: string): InputError {
  return new InputError(
    `cannot get the Debian package ${wanted.packageName}: ${reason}; give files instead: --kernel FILE --initrd FILE`,
  );
}

/** Another process may have been faster; its result is as good. */
async function moveIntoPlace(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (!(await exists(to))) throw error;
  }
}

/**
 * Tries apt's package lists as they are on this machine, then lists of our own from an earlier time. Either may be
 * missing, or so old that they name packages no longer there; then fetches lists, where no privilege is needed.
 */
async function download(
  wanted: PackageFile,
  cache: string,
  directory: string,
  progress: Progress,
): Promise<{ packageName: string; file: string }> {
  const { architecture } = wanted;
  const kept = join(cache, `apt-${architecture}`);
  const older = (await exists(kept)) ? [aptOptions(kept, architecture)] : [];
  for (const options of [[], ...older]) {
    const found = await downloadWith(options, wanted, directory, progress).catch(() => undefined);
    if (found !== undefined) return found;
  }
  progress("fetching the archive's package lists");
  // Not where they are kept: apt gives up when another process fetches lists there at the same time.
  const fetched = join(directory, 'apt');
  await mkdir(join(fetched, 'lists', 'partial'), { recursive: true });
  await mkdir(join(fetched, 'archives', 'partial'), { recursive: true });
  const options = aptOptions(fetched, architecture);
  const failure = await run('apt-get', [...options, 'update'], directory).then(
    () => undefined,
    (error: unknown) => error,
  );
  try {
    // One source of several that cannot be reached need not matter.
    const found = await downloadWith(options, wanted, directory, progress);
    if (older.length > 0) await rename(kept, join(directory, 'older')).catch(() => {});
    await moveIntoPlace(fetched, kept);
    return found;
  } catch (error) {
    throw unobtainable(wanted, firstErrorLine(failure ?? error));
  }
}

async function downloadWith(
  options: readonly string[],
  wanted: PackageFile,
  directory: string,
  progress: Progress,
): Promise<{ packageName: string; file: string }> {
  const packageName = await resolvePackage(options, wanted, directory);
  progress(`downloading ${packageName}`);
  // Started as root, apt would drop to a user who cannot write to our directory, and warn about it.
  const sandbox = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  await run('apt-get', [...options, ...sandbox, 'download', `${packageName}:${wanted.architecture}`], directory);
  const file = (await readdir(directory)).find((name) => name.endsWith('.deb'));
  if (file === undefined) throw new Error('apt-get downloaded nothing');
  return { packageName, file: join(directory, file) };
}

async function resolvePackage(options: readonly string[], wanted: PackageFile, directory: string): Promise<string> {
  const { dependency, packageName, architecture } = wanted;
  if (dependency === undefined) {
    await run('apt-cache', [...options, 'show', `${packageName}:${architecture}`], directory);
    return packageName;
  }
  const output = await run(
    'apt-cache',
    [...options, 'depends', '--important', `${packageName}:${architecture}`],
    directory,
  );
  const names = [...output.matchAll(/^\s*\|?Depends: ([^\s:]+)/gm)].map((match) => match[1] as string);
  const found = names.find((name) => dependency.test(name));
  if (found === undefined) throw new Error(`the package lists name no package ${packageName}`);
  return found;
}

/** Package lists and downloads of our own, below a directory; sources and keys are the system's. */
function aptOptions(root: string, architecture: Architecture): string[] {
  const settings = {
    'Dir::State': root,
    'Dir::State::lists': join(root, 'lists'),
    'Dir::State::status': '/dev/null',
    'Dir::Cache': root,
    'Dir::Cache::archives': join(root, 'archives'),
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'Acquire::Languages': 'none',
    'APT::Update::Error-Mode': 'any',
    'Acquire::Retries': '1',
    'Acquire::http::Timeout': '20',
  };
  const options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  return process.getuid?.() === 0 ? [...options, '-o', 'APT::Sandbox::User=root'] : options;
}

async function unpack(wanted: PackageFile, archive: string, temporary: string, kept: string): Promise<void> {
  const tree = join(temporary, 'tree');
  await mkdir(tree);
  await mkdir(kept);
  const listed = (await listArchive(archive)).map((path) => path.replace(/^\.\//, ''));
  const found = new Map<string, string>();
  for (const { path, as, isOptional } of wanted.files) {
    const member = listed.find((name) => path.test(name));
    if (member !== undefined) found.set(member, member.replace(path, as));
    else if (!isOptional) throw unobtainable(wanted, `it has no file that matches ${path.source}`);
  }
  await extract(
    archive,
    tree,
    [...found.keys()].map((member) => `./${member}`),
  );
  for (const [member, as] of found) {
    await mkdir(dirname(join(kept, as)), { recursive: true });
    await copyFile(join(tree, member), join(kept, as));
  }
}

async function listArchive(archive: string): Promise<string[]> {
  return (await pipeToTar(archive, ['--list'])).split('\n');
}

async function extract(archive: string, directory: string, members: readonly string[]): Promise<void> {
  await pipeToTar(archive, ['--extract', '--directory', directory, ...members]);
}

/** A kernel's package holds hundreds of megabytes of modules, so only what is wanted is written to disk. */
function pipeToTar(archive: string, tarArguments: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const source = spawn('dpkg-deb', ['--fsys-tarfile', archive], { stdio: ['ignore', 'pipe', 'pipe'] });
    const tar = spawn('tar', [...tarArguments, '--file', '-'], { stdio: ['pipe', 'pipe', 'pipe'] });
    let output = '';
    let errors = '';
    tar.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    for (const stream of [source.stderr, tar.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        errors += chunk.toString();
      });
    }
    source.on('error', reject);
    tar.on('error', reject);
    // tar may close early, once it has what it wants.
    tar.stdin.on('error', () => {});
    source.stdout.pipe(tar.stdin);
    tar.on('close', (status) => {
      if (status === 0) resolve(output);
      else reject(new Error(`cannot open ${archive}: ${errors.trim().split('\n')[0] ?? `tar status ${status}`}`));
    });
  });
}

function run(command: string, commandArguments: readonly string[], directory: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { cwd: directory, env: { ...process.env, LC_ALL: 'C' }, maxBuffer: 64 * 1024 * 1024 };
    execFile(command, commandArguments, options, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${stderr}\n${command} failed`.trim()));
    });
  });
}

/** apt puts what went wrong on lines that begin with "E:". */
function firstErrorLine(error: unknown): string {
  const lines = (error instanceof Error ? error.message : String(error)).split('\n');
  const line = lines.find((candidate) => candidate.startsWith('E:')) ?? lines[0] ?? '';
  return line.replace(/^E:\s*/, '').trim();
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function isInPath(tool: string): Promise<boolean> {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const found = await access(join(directory, tool), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}
