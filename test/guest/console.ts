import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundleCommand } from '../../scripts/bundle.ts';

/**
 * A whole guest as a person uses it: `ring1 run` as a process, keys typed at its stdin, and what the guest prints read
 * from its stdout.
 */

const root = fileURLToPath(new URL('../..', import.meta.url));
let installed: Promise<string> | undefined;

/** The command, bundled from the sources as they are, in a directory of its own. */
export function command(): Promise<string> {
  installed ??= (async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ring1-guest-'));
    process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
    mkdirSync(join(directory, 'bin'));
    copyFileSync(join(root, 'bin/ring1'), join(directory, 'bin/ring1'));
    copyFileSync(join(root, 'package.json'), join(directory, 'package.json'));
    await bundleCommand(join(directory, 'dist'));
    return join(directory, 'bin/ring1');
  })();
  return installed;
}

/** The shell's prompt at the end of what was printed. */
export const PROMPT = /\/\S* # $/;
/** What the shell's line editor asks a terminal: where is the cursor? */
const CURSOR_QUERY = '\x1b[6n';

/** Longest wait for a boot, in seconds: on a machine that is busy with much else. */
const BOOT = 200;
const ANSWER = 60;

/** Lines that a healthy kernel never prints. */
const COMPLAINT =
  /WARNING:|BUG:|\bOops\b|Call Trace|rcu.*stall|soft lockup|hung task|blocked for more than|general protection|segfault|multicall.*failed|unchecked MSR|traps:/;

export interface Ended {
  readonly status: number | string;
  readonly stderr: string;
}

export class GuestConsole {
  readonly process: ChildProcess;
  readonly ended: Promise<Ended>;
  /** All that was printed, without carriage returns and cursor queries. */
  text = '';
  #stderr = '';
  /** What `waitFor` has not passed yet begins here. */
  #position = 0;
  #isOver = false;
  #changed: () => void = () => {};

  private constructor(path: string, args: readonly string[]) {
    this.process = spawn(path, args, { cwd: root });
    this.process.stdout?.setEncoding('latin1').on('data', (chunk: string) => {
      const printed = this.text.slice(this.#position) + chunk;
      this.text = this.text.slice(0, this.#position) + printed.replaceAll('\r', '').replaceAll(CURSOR_QUERY, '');
      this.#changed();
    });
    this.process.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    this.process.stdin?.on('error', () => {});
    this.ended = once(this.process, 'close').then(([status, signal]) => {
      this.#isOver = true;
      this.#changed();
      return { status: (status ?? signal) as number | string, stderr: this.#stderr };
    });
  }

  static async start(...args: readonly string[]): Promise<GuestConsole> {
    return new GuestConsole(await command(), ['run', ...args]);
  }

  /**
   * Starts a guest in a terminal of its own, by script(1): what is typed are keys, and the command's stderr is printed
   * there too. @param after shell commands that look at the terminal when the guest has ended
   */
  static async startInTerminal(after: string, ...args: readonly string[]): Promise<GuestConsole> {
    const words = [await command(), 'run', ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    const line = `stty rows 43 cols 500; ${words.join(' ')}; status=$?; ${after}; exit $status`;
    return new GuestConsole('script', ['-qefc', line, '/dev/null']);
  }

  /** Starts a guest and waits for its shell. */
  static async boot(...args: readonly string[]): Promise<GuestConsole> {
    const console = await GuestConsole.start(...args);
    await console.waitForShell();
    return console;
  }

  async waitForShell(): Promise<void> {
    await this.waitFor(/^READY\n/m, BOOT);
    await this.waitFor(PROMPT);
    // Longer lines than any in the tests, so that the echo of what is typed is not broken.
    await this.command('stty cols 500');
  }

  type(keys: string): void {
    this.process.stdin?.write(keys, 'latin1');
  }

  send(line: string): void {
    this.type(`${line}\n`);
  }

  /** Types a command at the shell's prompt. Returns what was printed between the command and the next prompt. */
  async command(line: string, seconds = ANSWER): Promise<string> {
    this.send(line);
    await this.waitFor(/\n/, seconds);
    const printed = await this.waitFor(PROMPT, seconds);
    return printed.replace(PROMPT, '').trim();
  }

  /** Waits until the pattern matches what was printed since the last match. Returns all up to its end. */
  async waitFor(pattern: RegExp, seconds = ANSWER): Promise<string> {
    const end = performance.now() + seconds * 1000;
    for (;;) {
      const rest = this.text.slice(this.#position);
      const match = pattern.exec(rest);
      if (match) {
        const length = match.index + match[0].length;
        this.#position += length;
        return rest.slice(0, length);
      }
      const left = end - performance.now();
      if (this.#isOver || left <= 0) {
        const what = this.#isOver ? 'the guest ended' : `nothing in ${seconds} seconds`;
        throw new Error(`${what}: no ${pattern} in\n${rest.slice(-2000)}\nstderr: ${this.#stderr}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Lines that say that something went wrong in the guest. */
  get complaints(): string[] {
    return this.text.split('\n').filter((line) => COMPLAINT.test(line));
  }

  /** Processor time that the host spent on the guest, in seconds. */
  get processorSeconds(): number {
    const fields = readFileSync(`/proc/${this.process.pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? [];
    const TICKS = 100;
    return (Number(fields[11]) + Number(fields[12])) / TICKS;
  }

  /**
   * Whether its host comes to spend less than a share of a processor on it while nobody uses it: what is compiled aside may
   * be under way for a while after the last command.
   */
  async comesToRest(share: number): Promise<boolean> {
    const [windows, length] = [10, 3];
    for (let window = 0; window < windows; window++) {
      const before = this.processorSeconds;
      await seconds(length);
      if (this.processorSeconds - before < length * share) return true;
    }
    return false;
  }

  /** Most memory that the process ever had, in bytes. */
  get peakMemory(): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, 'latin1');
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
  }

  /** Ends the process, however it stands. */
  async kill(): Promise<void> {
    if (this.#isOver) return;
    this.process.kill('SIGKILL');
    await this.ended;
  }
}

export const seconds = (count: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, count * 1000));
