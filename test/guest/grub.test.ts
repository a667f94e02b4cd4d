import { afterEach, describe, expect, it } from 'vitest';
import { grub } from '../../guests/recipes.ts';
import { hasPackageArchive } from '../debian-kernel.ts';
import { GuestConsole } from './console.ts';

const TIME_LIMIT = 120_000;
const START = 100;

let guest: GuestConsole | undefined;
afterEach(() => guest?.kill());

/** Where GRUB's screen has scrolled to is said by cursor movements, which stand between any two things that it prints. */
const PROMPT = /grub> /;

/**
 * A paravirtual guest that is no Linux: no hypercall page, frame list and initrd in its initial mapping. The 32-bit one
 * begins at address 0.
 */
describe.skipIf(!hasPackageArchive)("Debian's GRUB for Xen", () => {
  it.each([64, 32] as const)(
    'answers at its %i-bit prompt, and halts',
    async (bits) => {
      guest = await GuestConsole.start('--kernel', await grub(bits));
      await guest.waitFor(PROMPT, START);
      for (const [command, answer] of [
        ['ls', /\(memdisk\)/],
        ['set', /prefix=\(memdisk\)/],
        ['help', /xen_ls/],
      ] as const) {
        guest.type(`${command}\r`);
        await guest.waitFor(answer);
        await guest.waitFor(PROMPT);
      }
      guest.type('halt\r');
      expect(await guest.ended).toEqual({ status: 0, stderr: '' });
    },
    TIME_LIMIT,
  );
});
