import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

test('the thread that makes regions does not keep a process alive that has ended its work', () => {
  const program = fileURLToPath(new URL('jit-thread-alone.ts', import.meta.url));
  const { status, signal, stdout } = spawnSync(process.execPath, ['--import', 'tsx', program], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect({ status, signal, stdout }).toEqual({
    status: 0,
    signal: null,
    stdout: 'translations, module, translations, module, time, refused, refused',
  });
}, 40_000);
