/**
 * Saves and clones guests while their disks and networks are at work, lets each copy go on with what the disk held then,
 * and has all of them prove that nothing of it was lost:
 *
 *   npx tsx test/busy-snapshots.ts [--cells xen/direct,kvm/nested] [--copies 3]
 *
 * Time is the host's here, so requests are under way whenever a copy is made. Ends with status 1 when a guest finds other
 * data than it wrote, or does not come to its end.
 */
import { parseArgs } from 'node:util';
import { initramfs, kernelModules } from '../guests/recipes.ts';
import type { Host, InterfaceName, PagingName, VirtualMachine } from '../src/api.ts';
import { openNetwork } from '../src/cli/guest-network.ts';
import { MemoryStore } from '../src/devices/block/memory-store.ts';
import { createHost, openSnapshot } from '../src/index.ts';
import { debianKernel } from './debian-kernel.ts';
import { sourceOf } from './snapshot-samples.ts';

const CELLS = 'xen/direct,xen/shadow,kvm/nested,kvm/shadow,native/nested,native/shadow,native/native';
const MEMORY = 96 << 20;
const DISK_BYTES = 8 << 20;
const WRITERS = 3;
const ROUNDS = 12;
/** Blocks of 4 KiB that a writer writes in a round. */
const BLOCKS = 16;

/** Each writer has its own part of the disk, and reads from the disk what it wrote. */
function load(disk: string, pings: boolean): string {
  const place = `$(($1*${ROUNDS * BLOCKS}+$i*${BLOCKS}))`;
  const round = [
    `head -c ${BLOCKS * 4096} /dev/urandom > /tmp/$1`,
    `dd if=/tmp/$1 of=${disk} bs=4k seek=${place} conv=notrunc,fsync 2>/dev/null`,
    'echo 3 > /proc/sys/vm/drop_caches',
    `dd if=${disk} bs=4k skip=${place} count=${BLOCKS} 2>/dev/null | cmp - /tmp/$1 && echo round $1 $i. || echo lost $1 $i.`,
  ];
  const writers = Array.from({ length: WRITERS }, (_none, writer) => `writer ${writer} & w${writer}=$!`);
  return [
    `writer() { i=0; while [ $i -lt ${ROUNDS} ]; do ${round.join('; ')}; i=$((i+1)); done; }`,
    ...(pings ? ['(until ping -c 1 -W 1 10.0.2.2 >/dev/null; do :; done; ping -i 0 10.0.2.2 >/dev/null) &'] : []),
    `${writers.join('; ')}; wait ${writers.map((_, writer) => `$w${writer}`).join(' ')}`,
    ...(pings ? ['ping -c 3 10.0.2.2 >/dev/null && echo reached || echo lost network'] : []),
    'echo over.; sleep 1000',
  ].join('\n');
}

class Output {
  text = '';
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(machine: VirtualMachine) {
    this.#reader = machine.console.output.getReader();
  }

  async until(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.text)) {
      const { done, value } = await this.#reader.read();
      if (done) throw new Error(`the guest ended: ${this.text.slice(-500)}`);
      this.text += new TextDecoder('latin1').decode(value);
    }
  }
}

interface Copy {
  readonly how: string;
  readonly output: Output;
  readonly machine: VirtualMachine;
}

async function saveWithDisk(
  machine: VirtualMachine,
  bytes: Uint8Array,
): Promise<{ file: Uint8Array; disk: Uint8Array }> {
  let disk = new Uint8Array(0);
  const parts: Uint8Array[] = [];
  await machine.snapshot({
    append: async (part) => {
      // The first bytes come when the guest stands still.
      if (parts.length === 0) disk = bytes.slice();
      parts.push(part);
    },
  });
  return { file: Uint8Array.from(Buffer.concat(parts)), disk };
}

async function copyWhileBusy(name: InterfaceName, paging: PagingName, copies: number): Promise<boolean> {
  const [guestDisk, bytes] = [name === 'xen' ? '/dev/xvda' : '/dev/vda', new Uint8Array(DISK_BYTES)];
  const hasNetwork = name !== 'xen';
  const networks = Array.from({ length: hasNetwork ? 1 + 2 * copies : 0 }, openNetwork);
  const adapter = () => networks.splice(0, 1).map((network) => network.adapter(1));
  const opened = [...networks];
  const script = {
    type: 'file',
    path: 'root/load',
    data: new TextEncoder().encode(load(guestDisk, hasNetwork)),
  } as const;
  const initrd = await initramfs({ modules: await kernelModules('cloud-amd64'), extra: [{ ...script, mode: 0o755 }] });
  const host: Host = await createHost({ memory: (2 + copies) * 2 * MEMORY, guests: 2 + copies });
  try {
    const console = name === 'xen' ? 'console=hvc0' : 'console=ttyS0 reboot=acpi panic=-1';
    const original = await host.boot({
      ...{ kernel: await debianKernel('cloud-amd64'), initrd, memory: MEMORY, vcpus: 2, interface: name, paging },
      commandLine: `${console} quiet ring1.run="sh /root/load"`,
      disks: [new MemoryStore(bytes)],
      adapters: adapter(),
    });
    const output = new Output(original);
    const made: Copy[] = [];
    const add = (how: string, machine: VirtualMachine) => made.push({ how, machine, output: new Output(machine) });
    const saved: { readonly file: Uint8Array; readonly disk: Uint8Array }[] = [];
    for (let copy = 1; copy <= copies; copy++) {
      await output.until(new RegExp(`round \\d ${Math.floor((copy * ROUNDS) / (copies + 1))}\\.`));
      const disks = async () => [new MemoryStore(bytes.slice())];
      if (paging !== 'native') add(`clone ${copy}`, await original.clone({ disks, adapters: adapter() }));
      saved.push(await saveWithDisk(original, bytes));
    }
    for (const [copy, { file, disk }] of saved.entries()) {
      const snapshot = await openSnapshot(sourceOf(file));
      const disks = [new MemoryStore(disk)];
      add(`snapshot ${copy + 1}`, await host.resume(snapshot, { disks, adapters: adapter() }));
    }
    made.push({ how: 'original', machine: original, output });
    let isWell = true;
    for (const { how, output, machine } of made) {
      await output.until(/over\.|lost \d|Kernel panic/);
      const rounds = output.text.match(/round \d+ \d+\./g)?.length ?? 0;
      const wasGood = /over\./.test(output.text) && !/lost|Kernel panic/.test(output.text);
      const verdict = wasGood ? `went on for ${rounds} rounds` : `FAILED: ${output.text.slice(-300)}`;
      process.stdout.write(`${name}/${paging} ${how}: ${verdict}\n`);
      isWell &&= wasGood && rounds > 0;
      machine.stop();
    }
    return isWell;
  } finally {
    await host.close();
    for (const { gateway } of opened) gateway.close();
  }
}

const { values } = parseArgs({
  options: { cells: { type: 'string', default: CELLS }, copies: { type: 'string', default: '3' } },
});
for (const cell of values.cells.split(',')) {
  const [name, paging] = cell.split('/') as [InterfaceName, PagingName];
  if (!(await copyWhileBusy(name, paging, Number(values.copies)))) process.exitCode = 1;
}
