import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { imagePath } from '../guests/reference/build.ts';
import { createHost, openSnapshot, type VirtualMachine } from '../src/index.ts';
import type { StatisticsReport } from '../src/inspect/statistics.ts';
import { sourceOf } from './snapshot-samples.ts';

const MEMORY = 24 << 20;

/** Collects what a guest prints. */
function record(machine: VirtualMachine): {
  readonly text: () => string;
  readonly until: (wanted: string) => Promise<void>;
} {
  let text = '';
  const reader = machine.console.output.getReader();
  const decoder = new TextDecoder();
  const next = async (): Promise<boolean> => {
    const { done, value } = await reader.read();
    if (!done) text += decoder.decode(value);
    return !done;
  };
  return {
    text: () => text,
    until: async (wanted) => {
      while (!text.includes(wanted) && (await next()));
    },
  };
}

/** Of each way of paging that no other test saves a guest of. */
const CELLS = [
  ['i386', 'lguest', 'shadow', 1, '4f94be216aa956bc'],
  ['i386-pae', 'vmi', 'direct', 2, '4f94be216aa956bc'],
  ['x86-64', 'xen', 'translated', 2, 'ac3b97e3c7642bee'],
] as const;

describe.each(CELLS)(
  'the image for %s on %s with %s paging, saved while it works',
  (image, name, paging, vcpus, hash) => {
    it('goes on as if nothing had been, from the file and as a clone', async () => {
      const host = await createHost({ memory: 3 * MEMORY, guests: 3 });
      try {
        const kernel = new Uint8Array(readFileSync(imagePath(image)));
        const options = {
          kernel,
          commandLine: '',
          memory: MEMORY,
          vcpus,
          interface: name,
          paging,
          deterministic: true,
        } as const;
        const original = await host.boot(options);
        const first = record(original);
        await first.until(`processors ${vcpus}`);
        const pieces: Uint8Array[] = [];
        await original.snapshot({ append: async (bytes) => void pieces.push(bytes.slice()) });
        const before = first.text();
        const clone = await original.clone();
        const resumed = await host.resume(await openSnapshot(sourceOf(new Uint8Array(Buffer.concat(pieces)))));
        for (const machine of [original, clone, resumed]) {
          const printed = machine === original ? first : record(machine);
          await printed.until('\ndone\n');
          expect((await machine.done).kind).toBe('poweroff');
          expect(printed.text().endsWith('\ndone\n')).toBe(true);
          if (machine !== original)
            expect(before.concat(printed.text())).toContain(`round patched: processes 10 hash ${hash}`);
        }
        const instructions = [original, resumed].map(
          (machine) => (machine.statistics() as StatisticsReport).instructions,
        );
        expect(instructions[1]).toBe(instructions[0]);
      } finally {
        await host.close();
      }
    });
  },
);
