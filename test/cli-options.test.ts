import { describe, expect, it } from 'vitest';
import { InputError } from '../src/boot/input-error.ts';
import { parseProfileOptions, parseRunOptions, type RunOptions } from '../src/cli/options.ts';

const MIB = 1024 * 1024;

function parse(...args: readonly string[]): RunOptions {
  const options = parseRunOptions(args);
  if (options === 'help') throw new Error('help was not asked for');
  return options;
}

describe('the options of ring1 run', () => {
  it('have defaults', () => {
    expect(parse()).toEqual({
      kernel: undefined,
      initrd: undefined,
      append: '',
      memory: 256 * MIB,
      vcpus: 1,
      interface: 'xen',
      paging: 'direct',
      disks: [],
      network: false,
      guestFiles: [],
      hostMemory: undefined,
      swap: undefined,
      save: undefined,
      snapshot: undefined,
      timeoutSeconds: undefined,
      stats: undefined,
      trace: undefined,
      afterburn: false,
      check: false,
      deterministic: false,
    });
  });

  it.each([
    ['256M', 256 * MIB],
    ['1G', 1024 * MIB],
    ['1.5', undefined],
    ['65536K', 64 * MIB],
    ['128', 128 * MIB],
    ['64MiB', 64 * MIB],
    ['64mb', 64 * MIB],
    ['0', undefined],
    ['5K', undefined],
    ['-1', undefined],
    ['4G', undefined],
    ['M', undefined],
    ['', undefined],
  ])('take --memory %s as %s bytes', (text, bytes) => {
    if (bytes === undefined) expect(() => parse(`--memory=${text}`)).toThrow(InputError);
    else expect(parse(`--memory=${text}`).memory).toBe(bytes);
  });

  it('take disks in order, each with its way of being written', () => {
    expect(parse('--disk', 'a,b.img', '--disk=c,readonly', '--disk', 'd,snapshot', '--disk', 'e,raw').disks).toEqual([
      { path: 'a,b.img', isReadOnly: false, isSnapshot: false },
      { path: 'c', isReadOnly: true, isSnapshot: false },
      { path: 'd', isReadOnly: false, isSnapshot: true },
      { path: 'e,raw', isReadOnly: false, isSnapshot: false },
    ]);
  });

  it.each([
    [['--bogus'], "unknown option '--bogus'; see"],
    [['--kernel'], "option '--kernel <value>' argument missing; see"],
    [['--vcpus', '-1'], '--vcpus has no value; one that begins with a dash is written --vcpus=VALUE'],
    [['--kernel', '--check'], '--kernel has no value; one that begins with a dash is written --kernel=VALUE'],
    [['--kernel', ''], '--kernel is empty'],
    [['--stats='], '--stats is empty'],
    [['--memory=-5'], '--memory -5 is not a size'],
    [['--timeout=-1'], '--timeout -1 is not a number of seconds'],
    [['--check=1'], "option '--check' does not take an argument; see"],
    [['--vcpus', '0'], '--vcpus 0 is not a number from 1 to 32'],
    [['--vcpus', '2.5'], '--vcpus 2.5 is not a number from 1 to 32'],
    [['--vcpus', '33'], '--vcpus 33 is not a number from 1 to 32'],
    [['--timeout', '0'], '--timeout 0 is not a number of seconds'],
    [['--timeout', 'soon'], '--timeout soon is not a number of seconds'],
    [['--timeout', '3000000'], '--timeout 3000000 is not a number of seconds'],
    [
      ['--interface', 'vmi', '--paging', 'nested'],
      'the interface vmi does not go with nested paging; give shadow or direct or native',
    ],
    [['--interface', 'qemu'], '--interface qemu does not exist; give one of xen, kvm, native, vmi, lguest'],
    [['--paging', 'nested'], 'the interface xen does not go with nested paging; give direct or shadow or translated'],
    [
      ['--interface', 'native', '--paging', 'direct'],
      'the interface native does not go with direct paging; give native or nested',
    ],
    [['--paging', 'none'], '--paging none does not exist'],
    [['--disk', ',readonly'], '--disk ,readonly names no file'],
  ])('refuse %j with one line', (args, message) => {
    expect(() => parse(...args)).toThrow(message);
    expect(() => parse(...args)).toThrow(/^[^\n]+$/);
  });

  it('name an era of lguest only for its guests', () => {
    expect(() => parse('--lguest-era', 'L1')).toThrow('--lguest-era is for --interface lguest');
    expect(parse('--interface', 'lguest', '--lguest-era', 'L1')).toMatchObject({ lguestEra: 'L1' });
  });

  it('name the files of several guests', () => {
    expect(parse('one.cfg', '--host-memory', '128M', 'two.cfg')).toMatchObject({
      guestFiles: ['one.cfg', 'two.cfg'],
      hostMemory: 128 * MIB,
    });
  });

  it('ask for help', () => {
    expect(parseRunOptions(['--help'])).toBe('help');
    expect(parseRunOptions(['-h', '--memory', '1G'])).toBe('help');
  });
});

describe('the options of ring1 profile', () => {
  it('are those of ring1 run, and how the profile is shown', () => {
    const options = parseProfileOptions([
      ...['--memory', '64M', '--after', 'READY', '--top', '7', '--output', 'profile.txt'],
    ]);
    expect(options).toEqual({
      ...parse('--memory', '64M'),
      profile: { after: 'READY', top: 7, output: 'profile.txt' },
    });
  });

  it('have defaults', () => {
    expect(parseProfileOptions([])).toMatchObject({ profile: { top: 25, output: undefined } });
    expect(parse().profile).toBeUndefined();
  });

  it.each([
    ['--top', '0'],
    ['--top', 'many'],
    ['--output', ''],
  ])('refuse %s %j', (option, value) => {
    expect(() => parseProfileOptions([`${option}=${value}`])).toThrow(InputError);
  });

  it('describe one guest', () => {
    expect(() => parseProfileOptions(['web.guest'])).toThrow('a profile is of one guest');
  });

  it('are not taken by ring1 run', () => {
    expect(() => parse('--top', '7')).toThrow('see "ring1 help run"');
    expect(() => parseProfileOptions(['--tip', '7'])).toThrow('see "ring1 help profile"');
  });
});
