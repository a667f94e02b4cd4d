import { describe, expect, it } from 'vitest';
import { InputError } from '../src/boot/input-error.ts';
import { parseGuestFile } from '../src/cli/guest-file.ts';
import { parseRunOptions } from '../src/cli/options.ts';

const MIB = 1024 * 1024;

function parse(text: string, ...args: readonly string[]) {
  const defaults = parseRunOptions(args);
  if (defaults === 'help') throw new Error('help was not asked for');
  return parseGuestFile('guest.cfg', text, defaults);
}

describe('a guest file', () => {
  it('says what xl would be told', () => {
    const text = `
      # the first of four
      name = "one"
      type = "pv"
      kernel = '/boot/vmlinuz'
      ramdisk = "/boot/initrd.img"
      extra = "quiet ring1.run=\\"true\\""
      memory = 128
      vcpus = 2
    `.replaceAll('\\"', '');
    expect(parse(text)).toEqual({
      name: 'one',
      kernel: '/boot/vmlinuz',
      initrd: '/boot/initrd.img',
      append: 'quiet ring1.run=true',
      memory: 128 * MIB,
      vcpus: 2,
      interface: 'xen',
      paging: 'direct',
      disks: [],
      network: false,
    });
  });

  it('leaves to the options what it does not say', () => {
    const guest = parse('name = "one"', '--memory', '64M', '--append', 'quiet', '--kernel', 'k');
    expect(guest).toMatchObject({ memory: 64 * MIB, append: 'quiet', kernel: 'k', vcpus: 1 });
  });

  it('takes disks as a list', () => {
    expect(parse('name = "one"\ninterface = "kvm"\ndisk = ["a.img", \'b.img,readonly\']').disks).toEqual([
      { path: 'a.img', isReadOnly: false, isSnapshot: false },
      { path: 'b.img', isReadOnly: true, isSnapshot: false },
    ]);
  });

  it.each([
    ['memory = 64', 'guest.cfg has no name'],
    ['name = "a b"', 'has other signs'],
    ['name = "a"\ncolour = "red"', 'guest.cfg:2: "colour" is not understood'],
    ['name = "a"\nhello', 'guest.cfg:2: "hello" is not understood'],
    ['name = a', 'guest.cfg:1: a is neither a string in quotes nor a number'],
    ['name = "a"\nmemory = "much"', 'guest.cfg: memory much is not a size'],
    ['name = "a"\nvcpus = 99', 'guest.cfg: vcpus 99 is not a number from 1 to 32'],
    ['name = "a"\ntype = "hvm"', 'type hvm is none of pv'],
    ['name = ["a"]', 'name is one value, not a list'],
  ])('with %j is refused: %s', (text, message) => {
    expect(() => parse(text)).toThrow(InputError);
    expect(() => parse(text)).toThrow(message);
  });
});
