import { expect, test } from 'vitest';
import { profileText } from '../src/cli/profile-text.ts';
import type { Profile } from '../src/inspect/profile.ts';

const place = { samples: 1, instructions: 1000, regionInstructions: 900 };
const PROFILE: Profile = {
  guestSeconds: 6,
  hostSeconds: 2,
  instructions: 4_000_000,
  regionInstructions: 3_000_000,
  samples: 3,
  places: [
    { mode: 'kernel', name: 'clear_page', seconds: 3, ...place },
    { mode: 'user', name: '0x401000', seconds: 2, ...place },
    { mode: 'kernel', name: 'schedule', seconds: 1, ...place },
  ],
  hostWork: [
    { name: 'hypercall mmu_update', count: 1234, seconds: 1.5 },
    { name: 'exception 14', count: 7, seconds: 0.5 },
  ],
};

test('a profile shows how the time divides, then what took most of it', () => {
  expect(profileText(PROFILE, 2)).toBe(`\
kernel 4.00 s (50.0 %), user 2.00 s (25.0 %), host 2.00 s (25.0 %)
4 M instructions, 75.0 % of them compiled, 3 samples

 time %   seconds  compiled %  where
   37.5     3.000        90.0  kernel clear_page
   25.0     2.000        90.0  user   0x401000
   12.5     1.000              1 more places

 time %   seconds       times  what the host did
   18.8     1.500        1234  hypercall mmu_update
    6.3     0.500           7  exception 14
`);
});

test('a profile of a guest that did nothing has no lines', () => {
  const nothing: Profile = {
    ...{ guestSeconds: 0, hostSeconds: 0, instructions: 0, regionInstructions: 0, samples: 0 },
    ...{ places: [], hostWork: [] },
  };
  expect(profileText(nothing, 5)).toContain('kernel 0.00 s (0.0 %), user 0.00 s (0.0 %), host 0.00 s (0.0 %)');
});
