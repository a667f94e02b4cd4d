import { writeSync } from 'node:fs';
import type { BootOptions, CreateHost, Outcome, VirtualMachine } from '../src/api.ts';
import { InputError } from '../src/boot/input-error.ts';
import { parseProfileOptions, parseRunOptions } from '../src/cli/options.ts';
import { run } from '../src/cli/run.ts';
import { runGuests } from '../src/cli/run-guests.ts';
import type { Profile } from '../src/inspect/profile.ts';
import type { SnapshotTarget } from '../src/snapshot/format.ts';

/**
 * `ring1 run` with a host that boots nothing: node --import tsx test/cli-fake-host.ts GUEST OPTIONS…
 * What the guest is given goes to stderr as lines "fake: …".
 */
type Guest = (machine: FakeMachine, boot: number) => void | Promise<void>;

const GUESTS: Record<string, Guest> = {
  /** Prints its command line and ends. */
  poweroff: (machine) => {
    machine.print(`command line: ${machine.options.commandLine}\n`);
    machine.end({ kind: 'poweroff' });
  },
  /** Reads the first sector of each disk and prints how it begins. */
  disks: async (machine) => {
    for (const disk of machine.options.disks ?? []) {
      const sector = new Uint8Array(512);
      const result = await disk.read(0, sector);
      machine.print(`${disk.identifier} ${disk.isReadOnly ? 'ro' : 'rw'} ${result} ${sector[0]}\n`);
    }
    machine.end({ kind: 'poweroff' });
  },
  /** Prints what is typed; ends at "off". */
  echo: (machine) => machine.print('ready\n'),
  hang: (machine) => machine.print('ready\n'),
  crash: (machine) => machine.end({ kind: 'crash', reason: 'it fell over', report: 'rip 1234\n  at schedule+5' }),
  reboot: (machine, boot) => {
    machine.print(`boot ${boot}\n`);
    machine.end({ kind: boot < 3 ? 'reboot' : 'poweroff' });
  },
  /** Prints more than a pipe holds, for ever. */
  flood: (machine) => {
    const timer = setInterval(() => machine.print(`${'x'.repeat(99_999)}\n`), 1);
    void machine.done.then(() => clearInterval(timer));
  },
  /** Boots and ends, by `ring1 profile`. */
  profile: (machine) => {
    machine.print('REA');
    machine.print('DY\n');
    setTimeout(() => machine.end({ kind: 'poweroff' }), 50);
  },
  trace: (machine) => {
    for (let line = 0; line < 3; line++) machine.options.trace?.(`operation ${line}\n`);
    machine.end({ kind: 'poweroff' });
  },
};

class FakeMachine implements VirtualMachine {
  readonly options: BootOptions;
  readonly behind = 0;
  readonly done: Promise<Outcome>;
  readonly console: VirtualMachine['console'];
  #resolve: (outcome: Outcome) => void = () => {};
  #output: ReadableStreamDefaultController<Uint8Array> | undefined;
  #hasEnded = false;

  constructor(options: BootOptions) {
    this.options = options;
    this.done = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.console = {
      output: new ReadableStream<Uint8Array>({
        start: (controller) => {
          this.#output = controller;
        },
      }),
      write: (bytes) => {
        const text = new TextDecoder().decode(bytes);
        note(`typed ${JSON.stringify(text)}`);
        this.print(text);
        if (text.includes('off')) this.end({ kind: 'poweroff' });
      },
      resize: (columns, rows) => note(`terminal of ${columns}x${rows}`),
    };
  }

  print(text: string): void {
    if (!this.#hasEnded) this.#output?.enqueue(new TextEncoder().encode(text));
  }

  end(outcome: Outcome): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#output?.close();
    this.#resolve(outcome);
  }

  async snapshot(target: SnapshotTarget): Promise<void> {
    await target.append(new TextEncoder().encode('all of the guest'));
  }

  clone(): Promise<VirtualMachine> {
    return Promise.reject(new InputError('no guest of this kind can be cloned'));
  }

  stop(): void {
    this.end({ kind: 'stopped' });
  }

  audit(): undefined {}

  profile(): Profile | undefined {
    if (!this.options.profile) return undefined;
    const place = { mode: 'kernel', name: 'schedule', samples: 3, seconds: 3 } as const;
    const instructions = { instructions: 200, regionInstructions: 150 };
    const hostWork = [{ name: 'exception 14', count: 7, seconds: 1 }];
    return {
      guestSeconds: 3,
      hostSeconds: 1,
      samples: 3,
      ...instructions,
      places: [{ ...place, ...instructions }],
      hostWork,
    };
  }

  startDirtyLog(): void {}

  readDirtyLog(): number[] {
    return [];
  }

  stopDirtyLog(): void {}

  restartProfile(): void {
    note('profile begins');
  }

  statistics(): object {
    return { instructions: 42 };
  }
}

function note(line: string): void {
  writeSync(2, `fake: ${line}\n`);
}

const [name = '', ...args] = process.argv.slice(2);
const guest = GUESTS[name];
const options = (name === 'profile' ? parseProfileOptions : parseRunOptions)(args);
if (guest === undefined || options === 'help') throw new Error(`no guest ${name}`);

let boots = 0;
/** Guests whose memory is not given back yet. */
let alive = 0;
const createHost: CreateHost = async () => ({
  async boot(bootOptions) {
    const machine = new FakeMachine(bootOptions);
    boots++;
    alive++;
    void Promise.all([machine.done]).then(() => alive--);
    setTimeout(() => void guest(machine, boots), 0);
    return machine;
  },
  resume: () => Promise.reject(new InputError('no guest of this kind can be saved')),
  statistics: () => ({ frames: alive > 0 ? 7 : 0 }),
  close: async () => note('closed'),
});
process.exitCode = await (options.guestFiles.length > 0 ? runGuests : run)(options, createHost);
