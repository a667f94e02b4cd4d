import { describe, expect, it } from 'vitest';
import { findForbiddenImports } from '../scripts/check-imports.ts';

function problems(path: string, text: string): string[] {
  return findForbiddenImports([{ path, text }]);
}

describe('the check of import directions', () => {
  it.each([
    ['src/cpu/processor.ts', "import { Domain } from '../domain/domain.ts';"],
    ['src/cpu/processor.ts', "import type { Domain } from '../domain/domain.ts';"],
    ['src/cpu/jit/region.ts', "export { a } from '../../interfaces/xen/traps.ts';"],
    ['src/paging/direct/types.ts', "import '../../interfaces/xen/mmu.ts';"],
    ['src/paging/direct/types.ts', "const x = await import('../../interfaces/xen/mmu.ts');"],
    ['src/memory/pool.ts', "import {\n  a,\n  b,\n} from '../cpu/state.ts';"],
    ['src/interfaces/xen/traps.ts', "import { x } from '../kvm/traps.ts';"],
    ['src/interfaces/xen/traps.ts', "import { readFileSync } from 'node:fs';"],
    ['src/interfaces/xen/traps.ts', "import { x } from '../../node/files.ts';"],
    ['src/boot/kernel.ts', "import { x } from '../../guests/recipes.ts';"],
    ['src/boot/kernel.ts', "import x from 'some-package';"],
    ['src/api.ts', "import { x } from './cli/run.ts';"],
    ['src/unknown/file.ts', "import { x } from '../cpu/state.ts';"],
  ])('refuses in %s: %s', (path, text) => {
    expect(problems(path, `const before = 1;\n${text}\n`)).toHaveLength(1);
  });

  it.each([
    ['src/cpu/processor.ts', "import { Pool } from '../memory/pool.ts';\nimport { x } from './state.ts';"],
    ['src/interfaces/xen/traps.ts', "import { a } from '../../ops/mmu.ts';\nimport { b } from './events.ts';"],
    ['src/boot/gzip.ts', "import { Inflate } from 'fflate';"],
    ['src/cli/run.ts', "import { once } from 'node:events';\nimport { kernel } from '../../guests/recipes.ts';"],
    ['src/cpu/processor.ts', "// import { x } from '../domain/domain.ts';\n/* import '../cli/run.ts'; */"],
    ['src/cpu/processor.ts', "const text = 'it is important, as in import'; export const from = 'there';"],
  ])('allows in %s: %s', (path, text) => {
    expect(problems(path, text)).toEqual([]);
  });
});
