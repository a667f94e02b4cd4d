/**
 * Opcodes that are, or once were, beyond the reported level (features.ts). They exist in the tables of a decoder only
 * when their feature is passed to it; without it the same encodings are invalid, or what older processors make of them.
 */
import type { TableSection } from '../rows.ts';

export const extensionSections: readonly TableSection[] = [
  {
    feature: 'aes',
    rows: `
      66 0F 38 DB     | aesimc          | xmm, xmm/m128          |
      66 0F 38 DC     | aesenc          | xmm, xmm/m128          |
      66 0F 38 DD     | aesenclast      | xmm, xmm/m128          |
      66 0F 38 DE     | aesdec          | xmm, xmm/m128          |
      66 0F 38 DF     | aesdeclast      | xmm, xmm/m128          |
      66 0F 3A DF     | aeskeygenassist | xmm, xmm/m128, uimm8   |
    `,
  },
  { feature: 'pclmulqdq', rows: '66 0F 3A 44 | pclmulqdq | xmm, xmm/m128, uimm8 |' },
  { feature: 'clflushopt', rows: '66 0F AE /7 | clflushopt | m8 |' },
  { feature: 'clwb', rows: '66 0F AE /6 | clwb | m8 |' },
  {
    feature: 'fsgsbase',
    rows: `
      F3 0F AE /0     | rdfsbase        | rm.ry                  | long
      F3 0F AE /1     | rdgsbase        | rm.ry                  | long
      F3 0F AE /2     | wrfsbase        | rm.ry                  | long
      F3 0F AE /3     | wrgsbase        | rm.ry                  | long
    `,
  },
  { feature: 'lzcnt', rows: 'F3 0F BD | lzcnt | rv, r/mv |' },
  { feature: 'tzcnt', rows: 'F3 0F BC | tzcnt | rv, r/mv |' },
  {
    feature: 'movbe',
    rows: `
      NP+66 0F 38 F0  | movbe           | rv, mv                 |
      NP+66 0F 38 F1  | movbe           | mv, rv                 |
    `,
  },
  { feature: 'rdpid', rows: 'F3 0F C7 /7 | rdpid | rm.rn | native' },
  {
    feature: 'smap',
    rows: `
      NP 0F 01 CA     | clac            |                        |
      NP 0F 01 CB     | stac            |                        |
    `,
  },
  { feature: 'wbnoinvd', rows: 'F3 0F 09 | wbnoinvd | |' },
  {
    feature: 'xsave',
    rows: `
      NP 0F 01 D0     | xgetbv          |                        |
      NP 0F 01 D1     | xsetbv          |                        |
      NP 0F AE /4     | xsave           | m0                     |
      NP 0F AE /5     | xrstor          | m0                     |
    `,
  },
  { feature: 'xsaveopt', rows: 'NP 0F AE /6 | xsaveopt | m0 |' },
];
