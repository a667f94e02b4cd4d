import packageJson from '../../package.json' with { type: 'json' };
import { InputError } from '../boot/input-error.ts';
import { tuneEngine } from '../node/engine.ts';
import { clone } from './clone.ts';
import { parseCloneOptions } from './clone-options.ts';
import { createHost } from './core.ts';
import { parseAuditOptions, parseProfileOptions, parseRunOptions, type RunOptions } from './options.ts';
import { run } from './run.ts';
import { runGuests } from './run-guests.ts';
import { ExitStatus } from './session.ts';
import { AUDIT_USAGE, CLONE_USAGE, PROFILE_USAGE, RUN_USAGE, USAGE } from './usage.ts';

/** The command. @param args without the program's name. @returns the exit status. */
export async function main(args: readonly string[]): Promise<number> {
  try {
    return await dispatch(args);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    process.stderr.write(`ring1: ${error.message}\n`);
    return ExitStatus.badInput;
  }
}

async function dispatch([command, ...rest]: readonly string[]): Promise<number> {
  switch (command) {
    case 'run':
      return start(parseRunOptions(rest), RUN_USAGE);
    case 'profile':
      return start(parseProfileOptions(rest), PROFILE_USAGE);
    case 'audit':
      return start(parseAuditOptions(rest), AUDIT_USAGE);
    case 'clone':
      return startClones(rest);
    case 'help':
    case '--help':
    case '-h':
      return print(usageOf(rest[0]));
    case '--version':
      return print(`ring1 ${packageJson.version}\n`);
    case undefined:
      throw new InputError('no command given; try "ring1 run", or "ring1 --help"');
    default:
      throw unknownCommand(command);
  }
}

function start(options: RunOptions | 'help', usage: string): Promise<number> | number {
  if (options === 'help') return print(usage);
  tuneEngine();
  return options.guestFiles.length > 0 ? runGuests(options, createHost) : run(options, createHost);
}

function startClones(args: readonly string[]): Promise<number> | number {
  const options = parseCloneOptions(args);
  if (options === 'help') return print(CLONE_USAGE);
  tuneEngine();
  return clone(options, createHost);
}

const USAGES: ReadonlyMap<string | undefined, string> = new Map([
  [undefined, USAGE],
  ['help', USAGE],
  ['run', RUN_USAGE],
  ['profile', PROFILE_USAGE],
  ['audit', AUDIT_USAGE],
  ['clone', CLONE_USAGE],
]);

function usageOf(command: string | undefined): string {
  const usage = USAGES.get(command);
  if (usage === undefined) throw unknownCommand(command);
  return usage;
}

function unknownCommand(command: string | undefined): InputError {
  return new InputError(`"${command}" is not a command; see "ring1 --help"`);
}

function print(text: string): number {
  process.stdout.write(text);
  return ExitStatus.success;
}
