import { describe, expect, it } from 'vitest';
import { writeCpio } from '../src/boot/cpio.ts';

/** Reads an archive back by the format's description. */
function readCpio(archive: Uint8Array) {
  const text = (start: number, end: number): string => new TextDecoder().decode(archive.subarray(start, end));
  const entries: { name: string; data: string; fields: number[] }[] = [];
  for (let at = 0; at < archive.length; ) {
    expect(text(at, at + 6)).toBe('070701');
    const fields = Array.from({ length: 13 }, (_, index) =>
      Number.parseInt(text(at + 6 + index * 8, at + 14 + index * 8), 16),
    );
    const nameEnd = at + 110 + (fields[11] as number);
    expect(archive[nameEnd - 1]).toBe(0);
    const dataStart = Math.ceil(nameEnd / 4) * 4;
    const dataEnd = dataStart + (fields[6] as number);
    entries.push({ name: text(at + 110, nameEnd - 1), data: text(dataStart, dataEnd), fields });
    at = Math.ceil(dataEnd / 4) * 4;
  }
  return entries;
}

describe('writeCpio', () => {
  const entries = readCpio(
    writeCpio([
      { type: 'directory', path: 'dev' },
      { type: 'file', path: 'init', data: '#!/bin/sh\n', mode: 0o755 },
      { type: 'symlink', path: 'bin', target: 'usr/bin' },
      { type: 'character-device', path: 'dev/console', major: 5, minor: 1 },
      { type: 'block-device', path: 'dev/xvda', major: 202, minor: 0, mode: 0o660 },
      { type: 'file', path: 'bytes', data: Uint8Array.of(0x61, 0x62, 0x63) },
    ]),
  );

  it('keeps names, contents and order, and ends with the trailer', () => {
    expect(entries.map(({ name, data }) => [name, data])).toEqual([
      ['dev', ''],
      ['init', '#!/bin/sh\n'],
      ['bin', 'usr/bin'],
      ['dev/console', ''],
      ['dev/xvda', ''],
      ['bytes', 'abc'],
      ['TRAILER!!!', ''],
    ]);
  });

  it('gives each entry its type, permissions and device numbers', () => {
    expect(entries.map(({ fields }) => fields[1])).toEqual([
      0o40755, 0o100755, 0o120777, 0o20600, 0o60660, 0o100644, 0,
    ]);
    expect(entries.map(({ fields }) => [fields[9], fields[10]]).slice(3, 5)).toEqual([
      [5, 1],
      [202, 0],
    ]);
  });

  it('numbers the entries, so that none is taken for a hard link of another', () => {
    expect(new Set(entries.map(({ fields }) => fields[0])).size).toBe(entries.length);
  });

  it('has owner root and no times, so that equal entries give equal bytes', () => {
    for (const { fields } of entries) expect([fields[2], fields[3], fields[5]]).toEqual([0, 0, 0]);
  });
});
