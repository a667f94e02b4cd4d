/**
 * How translations are cached and how code is executed is nobody's business but the host's: Debian's kernel, booted with
 * virtual time, leaves the same exits, console, registers and memory behind, accessed and dirty bits included.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import type { ProcessorGroupOptions } from '../src/cpu/processor.ts';
import { HOT_SHAPES } from '../src/cpu/semantics/shapes/index.ts';
import { hasPackageArchive } from './debian-kernel.ts';
import { type RunOptions, runDeterministically, type Trail } from './determinism.ts';

/** The least that the kernel takes, since all of it is hashed. */
const PAGES = 22_016;
/** Into the kernel's own initialisation of memory; a one-entry TLB walks for almost every access. */
const EARLY = 40_000_000;
const LONG = 600_000;
/** Processes, their page tables, copies on write and signals. */
const COMMAND = 'for i in 1 2 3; do (echo $i | sha256sum | cut -c1-8) & wait; done; ls -l /bin | md5sum; poweroff -f';

async function trail(options: RunOptions): Promise<Omit<Trail, 'figures'>> {
  const { figures: _figures, ...rest } = await runDeterministically({ pages: PAGES, ...options });
  return rest;
}

describe.skipIf(!hasPackageArchive)('a guest with virtual time', () => {
  describe('in its first instructions', () => {
    let expected: Omit<Trail, 'figures'>;
    beforeAll(async () => {
      expected = await trail({ instructions: EARLY });
    }, LONG);

    test.each<[string, ProcessorGroupOptions]>([
      ['a TLB of one entry', { tlbEntries: 1, jit: { threshold: 20 } }],
      [
        'large TLBs and handlers made together',
        { tlbEntries: 4096, tlbRoots: 3, hotShapes: {}, commonShapes: HOT_SHAPES },
      ],
      ['that all its code is interpreted', { jit: { threshold: 0 } }],
      ['that all its code is compiled at once', { jit: { threshold: 1 } }],
      [
        'that compiled code is evicted all the time',
        { jit: { threshold: 5, maximumModules: 300, regionsPerModule: 1 } },
      ],
    ])(
      'does not notice %s',
      async (_what, group) => {
        expect(await trail({ instructions: EARLY, group })).toEqual(expected);
      },
      LONG,
    );
  });

  describe('from its start to its end', () => {
    let expected: Omit<Trail, 'figures'>;
    beforeAll(async () => {
      expected = await trail({ command: COMMAND });
    }, LONG);

    test('runs its programs', () => {
      expect(expected.console).toContain('4355a46b');
      expect(expected.console).toContain('reboot: System halted');
    });

    test.each<[string, ProcessorGroupOptions]>([
      ['small TLBs that are flushed on every switch', { tlbEntries: 64, tlbRoots: 1, jit: { threshold: 20 } }],
      ['that all its code is interpreted', { jit: { threshold: 0 } }],
    ])(
      'does not notice %s',
      async (_what, group) => {
        expect(await trail({ command: COMMAND, group })).toEqual(expected);
      },
      LONG,
    );

    test(
      'writes the same on its console when its machine frames are in another order',
      async () => {
        const permutation = (pfn: number) => (pfn * 10_487 + 977) % PAGES;
        const permuted = await trail({ command: COMMAND, permutation });
        expect(permuted.console).toBe(expected.console);
        expect(permuted.memory).not.toBe(expected.memory);
      },
      LONG,
    );
  });
});
