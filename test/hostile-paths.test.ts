import { describe, expect, it } from 'vitest';
import type { Hole } from './hostile/paths.ts';
import { reasonOf, unexplained } from './hostile/unreached.ts';

const FILE = 'src/handler.ts';
const LINES = ['close(port: number): void {', '  if (port < 0) return;', '  this.used--;', '}'];
const SMALL = { file: FILE, text: 'if (port < 0) return;', why: 'ports are not negative' };

const hole = (line: number, last = line): Hole => ({
  file: FILE,
  line,
  text: LINES[line - 1]?.trim() ?? '',
  inside: LINES.slice(line - 1, last).join('\n'),
  code: '',
});
const [WHOLE, INNER] = [hole(1, 4), hole(2)];

describe('reasons for paths that hostile guests do not take', () => {
  it('explain what begins on their line', () => {
    expect(reasonOf(INNER, [SMALL])).toBe(SMALL.why);
    expect(unexplained([INNER], [SMALL])).toEqual({ holes: [], reasons: [] });
  });

  it('do not excuse a whole function for a line in it, and still hold', () => {
    expect(unexplained([WHOLE], [SMALL])).toEqual({ holes: [WHOLE], reasons: [] });
  });

  it('hold no more once their line was executed, nor for another file', () => {
    expect(unexplained([hole(3)], [SMALL])).toEqual({ holes: [hole(3)], reasons: [SMALL] });
    const other = { ...INNER, file: 'src/other.ts' };
    expect(unexplained([other], [SMALL])).toEqual({ holes: [other], reasons: [SMALL] });
  });
});
