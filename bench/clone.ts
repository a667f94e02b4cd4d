/**
 * Clones of a booted guest: how long one takes beside a fresh boot, and what all of them together add to the memory of
 * the process.
 *
 *   npx tsx bench/clone.ts [--interface xen,kvm] [--count 100] [--memory 128]
 *
 * A guest boots to its shell and is saved, and the copies go on from the file. Each carries out a command of its own, of
 * those below in turn, which all start programs; all of them stay until the last has answered. Resident memory is read before the first copy and after the
 * last answer, garbage collected both times; each interface has a process of its own, since what one leaves behind would
 * hide what the next needs. Ends with status 1 when an answer is wrong, or the growth above 300 MB.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { initramfs, kernelModules, kernel as kernelRecipe } from '../guests/recipes.ts';
import type { InterfaceName, VirtualMachine } from '../src/api.ts';
import { createHost, openSnapshot } from '../src/index.ts';
import { tuneEngine } from '../src/node/engine.ts';
import { readInputFile } from '../src/node/files.ts';
import { collectGarbage } from '../src/node/garbage.ts';
import { SnapshotFile, saveSnapshotFile } from '../src/node/snapshot-file.ts';
import { jitOfCommand } from './engine.ts';

const MIB = 1 << 20;
const MOST_GROWTH = 300;
/** Frames for what each copy writes. */
const CLONE_MEMORY = 8 * MIB;

/** Commands for a copy by its number, each with what it has to answer. */
const COMMANDS: readonly { readonly command: (copy: number) => string; readonly answer: (copy: number) => string }[] = [
  { command: (copy) => `expr ${copy} \\* ${copy} + 7`, answer: (copy) => `${copy * copy + 7}` },
  { command: (copy) => `seq ${copy + 100} | wc -l`, answer: (copy) => `${copy + 100}` },
  { command: (copy) => `awk 'BEGIN { print ${copy} % 7, ${copy} / 2 }'`, answer: (copy) => `${copy % 7} ${copy / 2}` },
  {
    command: (copy) => `printf copy${copy} | sha256sum | cut -c1-16`,
    answer: (copy) => createHash('sha256').update(`copy${copy}`).digest('hex').slice(0, 16),
  },
];

/** What a guest prints, as text that can be waited for. */
class Console {
  readonly #machine: VirtualMachine;
  #text = '';
  #changed: () => void = () => {};

  constructor(machine: VirtualMachine) {
    this.#machine = machine;
    void this.#read();
  }

  async #read(): Promise<void> {
    const reader = this.#machine.console.output.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#text += new TextDecoder('latin1').decode(value);
      this.#changed();
    }
  }

  type(text: string): void {
    this.#machine.console.write(new TextEncoder().encode(text));
  }

  async waitFor(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.#text);
      if (match) return match;
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

function residentMegabytes(): number {
  collectGarbage();
  return process.memoryUsage().rss / MIB;
}

async function measure(name: InterfaceName, count: number, memory: number): Promise<boolean> {
  const kernel = await readInputFile(await kernelRecipe('cloud-amd64'), 'kernel');
  const initrd = await (name === 'xen' ? initramfs() : initramfs({ modules: await kernelModules('cloud-amd64') }));
  const directory = mkdtempSync(join(tmpdir(), 'ring1-clone-'));
  const host = await createHost({
    memory: memory + count * CLONE_MEMORY,
    guests: count + 1,
    jit: jitOfCommand(),
  });
  try {
    const bootStart = performance.now();
    const consoleOption = name === 'xen' ? 'console=hvc0' : 'console=ttyS0 reboot=acpi panic=-1';
    const original = await host.boot({ kernel, initrd, commandLine: consoleOption, memory, vcpus: 1, interface: name });
    const shell = new Console(original);
    await shell.waitFor(/READY[\s\S]*# /);
    const bootSeconds = (performance.now() - bootStart) / 1000;
    const path = join(directory, 'guest.ring1');
    const saveStart = performance.now();
    await saveSnapshotFile(path, (target) => original.snapshot(target));
    const saveSeconds = (performance.now() - saveStart) / 1000;
    original.stop();

    const file = await SnapshotFile.open(path);
    const snapshot = await openSnapshot(file);
    const before = residentMegabytes();
    const clones: Console[] = [];
    let cloneSeconds = 0;
    let answerSeconds = 0;
    let wrong = 0;
    for (let clone = 1; clone <= count; clone++) {
      const start = performance.now();
      const machine = await host.resume(snapshot, { fresh: true });
      cloneSeconds += (performance.now() - start) / 1000;
      const console = new Console(machine);
      clones.push(console);
      const { command, answer } = COMMANDS[clone % COMMANDS.length] as (typeof COMMANDS)[number]; // within the list
      console.type(`echo "answer: $(${command(clone)})."\n`);
      const [, answered] = await console.waitFor(/answer: ([^$]*)\.\r/);
      if (answered !== answer(clone)) wrong++;
      answerSeconds += (performance.now() - start) / 1000;
    }
    const growth = residentMegabytes() - before;
    const live = await liveClone(clones.length, host, snapshot);
    console.log(
      `${name}: boot ${bootSeconds.toFixed(2)} s, save ${saveSeconds.toFixed(2)} s; ` +
        `${count} clones: ${((cloneSeconds / count) * 1000).toFixed(1)} ms each (boot/clone ${((bootSeconds * count) / cloneSeconds).toFixed(0)}), ` +
        `${((answerSeconds / count) * 1000).toFixed(0)} ms to the answer, ${wrong} wrong, ` +
        `memory +${growth.toFixed(0)} MB (${(growth / count).toFixed(2)} each); clone of a running guest ${live.toFixed(1)} ms`,
    );
    await file.close();
    return wrong === 0 && growth < MOST_GROWTH;
  } finally {
    await host.close();
    rmSync(directory, { recursive: true });
  }
}

/** Milliseconds that a clone of a guest takes which was never saved. */
async function liveClone(
  count: number,
  host: Awaited<ReturnType<typeof createHost>>,
  snapshot: Awaited<ReturnType<typeof openSnapshot>>,
): Promise<number> {
  const parent = await host.resume(snapshot);
  const start = performance.now();
  const child = await parent.clone();
  const milliseconds = performance.now() - start;
  const console = new Console(child);
  console.type(`echo child=$((${count} + 1))\n`);
  await console.waitFor(/child=\d+/);
  return milliseconds;
}

const { values } = parseArgs({
  options: {
    interface: { type: 'string', default: 'xen,kvm' },
    count: { type: 'string', default: '100' },
    memory: { type: 'string', default: '128' },
  },
});
const names = values.interface.split(',');
const [only = ''] = names;
if (names.length === 1) {
  tuneEngine();
  const isWell = await measure(only as InterfaceName, Number(values.count), Number(values.memory) * MIB);
  if (!isWell) process.exitCode = 1;
} else {
  for (const name of names) {
    const [, script = ''] = process.argv;
    const words = [
      ...process.execArgv,
      script,
      '--count',
      values.count,
      '--memory',
      values.memory,
      '--interface',
      name,
    ];
    const { status } = spawnSync(process.execPath, words, { stdio: 'inherit' });
    if (status !== 0) process.exitCode = 1;
  }
}
