import { describe, expect, it } from 'vitest';
import { initramfs } from '../../guests/recipes.ts';
import type { VirtualMachine } from '../../src/api.ts';
import { createHost, openSnapshot } from '../../src/index.ts';
import { debianKernel, hasPackageArchive } from '../debian-kernel.ts';
import { sourceOf } from '../snapshot-samples.ts';

const MEMORY = 96 << 20;
const CLONES = 3;
/** Milliseconds between the save and the first clone: more than it takes to ask for the time. */
const ABSENCE = 2500;
/** Hundredths of a second are what a kernel tells. */
const PRECISION = 0.01;
/** What a clone that runs a shell's builtin may write, in pages: 8 MiB. */
const MOST_PAGES = 2048;

/** What a guest prints from here on, until a pattern is met. */
function reader(machine: VirtualMachine): (pattern: RegExp) => Promise<string> {
  const stream = machine.console.output.getReader();
  let text = '';
  return async (pattern) => {
    while (!pattern.test(text)) {
      const { done, value } = await stream.read();
      if (done) throw new Error(`the guest ended: ${text.slice(-500)}`);
      text += new TextDecoder('latin1').decode(value);
    }
    return pattern.exec(text)?.[1] ?? '';
  };
}

async function answer(machine: VirtualMachine, number: number, read = reader(machine)): Promise<string> {
  machine.console.write(new TextEncoder().encode(`echo sum=$((${number} + 1000)).\n`));
  return read(/sum=(\d+)\./);
}

/** How much longer the host has run than the guest says, in seconds: at least, and at most. */
async function difference(machine: VirtualMachine, read: ReturnType<typeof reader>): Promise<[number, number]> {
  const before = performance.now() / 1000;
  machine.console.write(new TextEncoder().encode('read up rest < /proc/uptime; echo up=$up.\n'));
  const up = Number(await read(/up=(\d+\.\d+)\./));
  return [before - up - PRECISION, performance.now() / 1000 - up];
}

/** Numbers that a guest draws at once, by each of two ways. @param mark what no line before begins with */
async function draw(machine: VirtualMachine, mark: string, read = reader(machine)): Promise<string[]> {
  const bytes = '$(head -c 16 /dev/urandom | hexdump -ve \'/1 "%02x"\')';
  const command = `read id < /proc/sys/kernel/random/uuid; echo ${mark}=$id/${bytes}.\n`;
  machine.console.write(new TextEncoder().encode(command));
  return (await read(new RegExp(`${mark}=([0-9a-f-]{36}/[0-9a-f]{32})\\.`))).split('/');
}

describe.skipIf(!hasPackageArchive)('clones', () => {
  // The cloud's kernel has no driver for what tells a guest that it was copied.
  it.each([
    ['xen', 'direct', 'cloud-amd64'],
    ['kvm', 'nested', 'cloud-amd64'],
    ['native', 'shadow', 'amd64'],
  ] as const)(
    'of a booted guest each go their own way, and share what they do not change: %s with %s paging',
    async (name, paging, flavour) => {
      const kernel = await debianKernel(flavour);
      const initrd = await initramfs();
      const commandLine = name === 'xen' ? 'console=hvc0' : 'console=ttyS0 reboot=acpi panic=-1';
      const host = await createHost({ memory: 2 * MEMORY, guests: CLONES + 7 });
      const free = (): number => (host.statistics() as { frames: { available: number } }).frames.available;
      try {
        const cell = { interface: name, paging };
        const original = await host.boot({ kernel, initrd, commandLine, memory: MEMORY, vcpus: 1, ...cell });
        const readOriginal = reader(original);
        await readOriginal(/READY[\s\S]*# /);
        const [least, most] = await difference(original, readOriginal);
        const parts: Uint8Array[] = [];
        await original.snapshot({ append: async (bytes) => void parts.push(bytes) });
        const snapshot = await openSnapshot(sourceOf(Uint8Array.from(Buffer.concat(parts))));

        await new Promise((later) => setTimeout(later, ABSENCE));
        const first = await host.resume(snapshot, { fresh: true });
        const read = reader(first);
        expect(await answer(first, 1, read)).toBe('1001');
        // Kernels that can be told that they were stopped are not behind at all.
        if (name !== 'native') expect(first.behind).toBe(0);
        while (first.behind > 0) await new Promise((later) => setTimeout(later, 10));
        const [leastOfCopy, mostOfCopy] = await difference(first, read);
        expect(leastOfCopy).toBeLessThan(most);
        expect(mostOfCopy).toBeGreaterThan(least);
        if (flavour === 'amd64') await read(/(random: crng reseeded due to virtual machine fork)/);
        const before = free();
        const others: VirtualMachine[] = [];
        for (let number = 2; number <= CLONES; number++) others.push(await host.resume(snapshot, { fresh: true }));
        others.push(await first.clone());
        const numbers = others.map((_, index) => index + 2);
        const answers = await Promise.all(others.map((clone, index) => answer(clone, index + 2)));
        expect(answers).toEqual(numbers.map((number) => String(number + 1000)));
        expect(before - free()).toBeLessThan(others.length * MOST_PAGES);

        // The seed of a guest that has just drawn is young, and all that it is copied to have it.
        const drawn = [...(await draw(original, 'first', readOriginal)), ...(await draw(first, 'first', read))];
        const live = [await original.clone(), await original.clone(), await first.clone()];
        const resumed = [await host.resume(snapshot), await host.resume(snapshot)];
        for (const numbers of await Promise.all([...live, ...resumed].map((clone) => draw(clone, 'drawn'))))
          drawn.push(...numbers);
        for (const clone of [...live, ...resumed]) clone.stop();
        drawn.push(...(await draw(original, 'last', readOriginal)));
        expect(new Set(drawn).size).toBe(drawn.length);

        // Whom a clone was made of can end before it.
        first.stop();
        const last = others[others.length - 1] as VirtualMachine;
        last.console.write(new TextEncoder().encode('poweroff -f\n'));
        expect((await last.done).kind).toBe('poweroff');
      } finally {
        await host.close();
      }
    },
    300_000,
  );
});
