/**
 * Opcodes of MMX and of SSE up to SSE4.2. Source: Intel SDM volume 2, appendix A and the instruction pages.
 *
 * Most come in families that differ only in the mandatory prefix. `packedInteger` and `floating` write those out.
 */
import type { TableSection } from '../rows.ts';

/** Lines of `opcode name`: without prefix on MMX registers, with 66 on XMM registers. */
function packedInteger(lines: string, mmxMemory = 'm64'): { mmx: string; xmm: string } {
  const entries = lines
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  return {
    mmx: entries
      .map(([opcode, name]) => `NP 0F ${opcode?.replace('.', ' ')} | ${name} | mm, mm/${mmxMemory} |`)
      .join('\n'),
    xmm: entries.map(([opcode, name]) => `66 0F ${opcode?.replace('.', ' ')} | ${name} | xmm, xmm/m128 |`).join('\n'),
  };
}

/** Lines of `opcode name`: the operation `name` with the suffixes ps, pd, ss and sd, of which `kinds` exist. */
function floating(lines: string, kinds: readonly ('ps' | 'pd' | 'ss' | 'sd')[], third = ''): string {
  const prefixes = { ps: 'NP', pd: '66', ss: 'F3', sd: 'F2' };
  const memory = { ps: 'm128', pd: 'm128', ss: 'm32', sd: 'm64' };
  return lines
    .trim()
    .split('\n')
    .flatMap((line) => {
      const [opcode, name] = line.trim().split(/\s+/);
      return kinds.map(
        (kind) => `${prefixes[kind]} 0F ${opcode} | ${name}${kind} | xmm, xmm/${memory[kind]}${third} |`,
      );
    })
    .join('\n');
}

const unpackLow = packedInteger(
  `
  60 punpcklbw
  61 punpcklwd
  62 punpckldq
  `,
  'm32',
);

/** On MMX registers since MMX, on XMM registers since SSE2. */
const sinceMmx = packedInteger(`
  63 packsswb
  64 pcmpgtb
  65 pcmpgtw
  66 pcmpgtd
  67 packuswb
  68 punpckhbw
  69 punpckhwd
  6A punpckhdq
  6B packssdw
  74 pcmpeqb
  75 pcmpeqw
  76 pcmpeqd
  D1 psrlw
  D2 psrld
  D3 psrlq
  D5 pmullw
  D8 psubusb
  D9 psubusw
  DB pand
  DC paddusb
  DD paddusw
  DF pandn
  E1 psraw
  E2 psrad
  E5 pmulhw
  E8 psubsb
  E9 psubsw
  EB por
  EC paddsb
  ED paddsw
  EF pxor
  F1 psllw
  F2 pslld
  F3 psllq
  F5 pmaddwd
  F8 psubb
  F9 psubw
  FA psubd
  FC paddb
  FD paddw
  FE paddd
`);

/** On MMX registers since SSE, on XMM registers since SSE2. */
const sinceSse = packedInteger(`
  DA pminub
  DE pmaxub
  E0 pavgb
  E3 pavgw
  E4 pmulhuw
  EA pminsw
  EE pmaxsw
  F6 psadbw
`);

/** On both kinds of registers since SSE2. */
const sinceSse2 = packedInteger(`
  D4 paddq
  F4 pmuludq
  FB psubq
`);

/** On both kinds of registers since SSSE3. */
const sinceSsse3 = packedInteger(`
  38.00 pshufb
  38.01 phaddw
  38.02 phaddd
  38.03 phaddsw
  38.04 pmaddubsw
  38.05 phsubw
  38.06 phsubd
  38.07 phsubsw
  38.08 psignb
  38.09 psignw
  38.0A psignd
  38.0B pmulhrsw
  38.1C pabsb
  38.1D pabsw
  38.1E pabsd
`);

/** Shifts by an immediate, groups 12–14: opcode, ModRM.reg, name. */
const immediateShifts = [
  ['71', '2', 'psrlw'],
  ['71', '4', 'psraw'],
  ['71', '6', 'psllw'],
  ['72', '2', 'psrld'],
  ['72', '4', 'psrad'],
  ['72', '6', 'pslld'],
  ['73', '2', 'psrlq'],
  ['73', '6', 'psllq'],
];

const mmxImmediateShifts = immediateShifts
  .map(([opcode, register, name]) => `NP 0F ${opcode} /${register} | ${name} | rm.mm, uimm8 |`)
  .join('\n');

const xmmImmediateShifts = immediateShifts
  .map(([opcode, register, name]) => `66 0F ${opcode} /${register} | ${name} | rm.xmm, uimm8 |`)
  .join('\n');

const mmx: TableSection = {
  feature: 'mmx',
  rows: `
    ${unpackLow.mmx}
    ${sinceMmx.mmx}
    ${mmxImmediateShifts}
    NP 0F 6E          | movd       | mm, r/m32              |
    REX.W NP 0F 6E    | movq       | mm, r/m64              |
    NP 0F 6F          | movq       | mm, mm/m64             |
    NP 0F 77          | emms       |                        |
    NP 0F 7E          | movd       | r/m32, mm              |
    REX.W NP 0F 7E    | movq       | r/m64, mm              |
    NP 0F 7F          | movq       | mm/m64, mm             |
  `,
};

const fxsr: TableSection = {
  feature: 'fxsr',
  rows: `
    NP 0F AE /0       | fxsave     | m512byte               |
    NP 0F AE /1       | fxrstor    | m512byte               |
  `,
};

const clflush: TableSection = { feature: 'clflush', rows: 'NP 0F AE /7 | clflush | m8 |' };

const sse: TableSection = {
  feature: 'sse',
  rows: `
    ${sinceSse.mmx}
    ${floating('51 sqrt\n58 add\n59 mul\n5C sub\n5D min\n5E div\n5F max', ['ps', 'ss'])}
    ${floating('52 rsqrt\n53 rcp', ['ps', 'ss'])}
    ${floating('14 unpckl\n15 unpckh\n54 and\n55 andn\n56 or\n57 xor', ['ps'])}
    ${floating('C2 cmp', ['ps', 'ss'], ', uimm8')}
    ${floating('C6 shuf', ['ps'], ', uimm8')}
    NP 0F 10          | movups     | xmm, xmm/m128          |
    NP 0F 11          | movups     | xmm/m128, xmm          |
    F3 0F 10          | movss      | xmm, xmm/m32           |
    F3 0F 11          | movss      | xmm/m32, xmm           |
    NP 0F 12          | movlps     | xmm, m64               |
    NP 0F 12          | movhlps    | xmm, rm.xmm            |
    NP 0F 13          | movlps     | m64, xmm               |
    NP 0F 16          | movhps     | xmm, m64               |
    NP 0F 16          | movlhps    | xmm, rm.xmm            |
    NP 0F 17          | movhps     | m64, xmm               |
    0F 18 /0          | prefetchnta| m0                     |
    0F 18 /1          | prefetcht0 | m0                     |
    0F 18 /2          | prefetcht1 | m0                     |
    0F 18 /3          | prefetcht2 | m0                     |
    NP 0F 28          | movaps     | xmm, xmm/m128          |
    NP 0F 29          | movaps     | xmm/m128, xmm          |
    NP 0F 2A          | cvtpi2ps   | xmm, mm/m64            |
    F3 0F 2A          | cvtsi2ss   | xmm, r/my              |
    NP 0F 2B          | movntps    | m128, xmm              |
    NP 0F 2C          | cvttps2pi  | mm, xmm/m64            |
    F3 0F 2C          | cvttss2si  | ry, xmm/m32            |
    NP 0F 2D          | cvtps2pi   | mm, xmm/m64            |
    F3 0F 2D          | cvtss2si   | ry, xmm/m32            |
    NP 0F 2E          | ucomiss    | xmm, xmm/m32           |
    NP 0F 2F          | comiss     | xmm, xmm/m32           |
    NP 0F 50          | movmskps   | ry, rm.xmm             |
    NP 0F 70          | pshufw     | mm, mm/m64, uimm8      |
    NP 0F AE /2       | ldmxcsr    | m32                    |
    NP 0F AE /3       | stmxcsr    | m32                    |
    NP 0F AE /7 reg   | sfence     |                        |
    NP 0F C4          | pinsrw     | mm, ry/m16, uimm8      |
    NP 0F C5          | pextrw     | ry, rm.mm, uimm8       |
    NP 0F D7          | pmovmskb   | ry, rm.mm              |
    NP 0F E7          | movntq     | m64, mm                |
    NP 0F F7          | maskmovq   | mm, rm.mm              |
  `,
};

const sse2: TableSection = {
  feature: 'sse2',
  rows: `
    ${unpackLow.xmm}
    ${sinceMmx.xmm}
    ${sinceSse.xmm}
    ${sinceSse2.mmx}
    ${sinceSse2.xmm}
    ${xmmImmediateShifts}
    ${floating('51 sqrt\n58 add\n59 mul\n5C sub\n5D min\n5E div\n5F max', ['pd', 'sd'])}
    ${floating('14 unpckl\n15 unpckh\n54 and\n55 andn\n56 or\n57 xor', ['pd'])}
    ${floating('C2 cmp', ['pd', 'sd'], ', uimm8')}
    ${floating('C6 shuf', ['pd'], ', uimm8')}
    66 0F 10          | movupd     | xmm, xmm/m128          |
    66 0F 11          | movupd     | xmm/m128, xmm          |
    F2 0F 10          | movsd      | xmm, xmm/m64           |
    F2 0F 11          | movsd      | xmm/m64, xmm           |
    66 0F 12          | movlpd     | xmm, m64               |
    66 0F 13          | movlpd     | m64, xmm               |
    66 0F 16          | movhpd     | xmm, m64               |
    66 0F 17          | movhpd     | m64, xmm               |
    66 0F 28          | movapd     | xmm, xmm/m128          |
    66 0F 29          | movapd     | xmm/m128, xmm          |
    66 0F 2A          | cvtpi2pd   | xmm, mm/m64            |
    F2 0F 2A          | cvtsi2sd   | xmm, r/my              |
    66 0F 2B          | movntpd    | m128, xmm              |
    66 0F 2C          | cvttpd2pi  | mm, xmm/m128           |
    F2 0F 2C          | cvttsd2si  | ry, xmm/m64            |
    66 0F 2D          | cvtpd2pi   | mm, xmm/m128           |
    F2 0F 2D          | cvtsd2si   | ry, xmm/m64            |
    66 0F 2E          | ucomisd    | xmm, xmm/m64           |
    66 0F 2F          | comisd     | xmm, xmm/m64           |
    66 0F 50          | movmskpd   | ry, rm.xmm             |
    NP 0F 5A          | cvtps2pd   | xmm, xmm/m64           |
    66 0F 5A          | cvtpd2ps   | xmm, xmm/m128          |
    F3 0F 5A          | cvtss2sd   | xmm, xmm/m32           |
    F2 0F 5A          | cvtsd2ss   | xmm, xmm/m64           |
    NP 0F 5B          | cvtdq2ps   | xmm, xmm/m128          |
    66 0F 5B          | cvtps2dq   | xmm, xmm/m128          |
    F3 0F 5B          | cvttps2dq  | xmm, xmm/m128          |
    66 0F 6C          | punpcklqdq | xmm, xmm/m128          |
    66 0F 6D          | punpckhqdq | xmm, xmm/m128          |
    66 0F 6E          | movd       | xmm, r/m32             |
    REX.W 66 0F 6E    | movq       | xmm, r/m64             |
    66 0F 6F          | movdqa     | xmm, xmm/m128          |
    F3 0F 6F          | movdqu     | xmm, xmm/m128          |
    66 0F 70          | pshufd     | xmm, xmm/m128, uimm8   |
    F3 0F 70          | pshufhw    | xmm, xmm/m128, uimm8   |
    F2 0F 70          | pshuflw    | xmm, xmm/m128, uimm8   |
    66 0F 73 /3       | psrldq     | rm.xmm, uimm8          |
    66 0F 73 /7       | pslldq     | rm.xmm, uimm8          |
    66 0F 7E          | movd       | r/m32, xmm             |
    REX.W 66 0F 7E    | movq       | r/m64, xmm             |
    F3 0F 7E          | movq       | xmm, xmm/m64           |
    66 0F 7F          | movdqa     | xmm/m128, xmm          |
    F3 0F 7F          | movdqu     | xmm/m128, xmm          |
    NP 0F AE /5 reg   | lfence     |                        |
    NP 0F AE /6 reg   | mfence     |                        |
    NP 0F C3          | movnti     | my, ry                 |
    66 0F C4          | pinsrw     | xmm, ry/m16, uimm8     |
    66 0F C5          | pextrw     | ry, rm.xmm, uimm8      |
    66 0F D6          | movq       | xmm/m64, xmm           |
    F3 0F D6          | movq2dq    | xmm, rm.mm             |
    F2 0F D6          | movdq2q    | mm, rm.xmm             |
    66 0F D7          | pmovmskb   | ry, rm.xmm             |
    66 0F E6          | cvttpd2dq  | xmm, xmm/m128          |
    F3 0F E6          | cvtdq2pd   | xmm, xmm/m64           |
    F2 0F E6          | cvtpd2dq   | xmm, xmm/m128          |
    66 0F E7          | movntdq    | m128, xmm              |
    66 0F F7          | maskmovdqu | xmm, rm.xmm            |
  `,
};

const sse3: TableSection = {
  feature: 'sse3',
  rows: `
    F2 0F 12          | movddup    | xmm, xmm/m64           |
    F3 0F 12          | movsldup   | xmm, xmm/m128          |
    F3 0F 16          | movshdup   | xmm, xmm/m128          |
    66 0F 7C          | haddpd     | xmm, xmm/m128          |
    F2 0F 7C          | haddps     | xmm, xmm/m128          |
    66 0F 7D          | hsubpd     | xmm, xmm/m128          |
    F2 0F 7D          | hsubps     | xmm, xmm/m128          |
    66 0F D0          | addsubpd   | xmm, xmm/m128          |
    F2 0F D0          | addsubps   | xmm, xmm/m128          |
    F2 0F F0          | lddqu      | xmm, m128              |
  `,
};

const ssse3: TableSection = {
  feature: 'ssse3',
  rows: `
    ${sinceSsse3.mmx}
    ${sinceSsse3.xmm}
    NP 0F 3A 0F       | palignr    | mm, mm/m64, uimm8      |
    66 0F 3A 0F       | palignr    | xmm, xmm/m128, uimm8   |
  `,
};

const sse41: TableSection = {
  feature: 'sse4.1',
  rows: `
    66 0F 38 10       | pblendvb   | xmm, xmm/m128          |
    66 0F 38 14       | blendvps   | xmm, xmm/m128          |
    66 0F 38 15       | blendvpd   | xmm, xmm/m128          |
    66 0F 38 17       | ptest      | xmm, xmm/m128          |
    66 0F 38 20       | pmovsxbw   | xmm, xmm/m64           |
    66 0F 38 21       | pmovsxbd   | xmm, xmm/m32           |
    66 0F 38 22       | pmovsxbq   | xmm, xmm/m16           |
    66 0F 38 23       | pmovsxwd   | xmm, xmm/m64           |
    66 0F 38 24       | pmovsxwq   | xmm, xmm/m32           |
    66 0F 38 25       | pmovsxdq   | xmm, xmm/m64           |
    66 0F 38 28       | pmuldq     | xmm, xmm/m128          |
    66 0F 38 29       | pcmpeqq    | xmm, xmm/m128          |
    66 0F 38 2A       | movntdqa   | xmm, m128              |
    66 0F 38 2B       | packusdw   | xmm, xmm/m128          |
    66 0F 38 30       | pmovzxbw   | xmm, xmm/m64           |
    66 0F 38 31       | pmovzxbd   | xmm, xmm/m32           |
    66 0F 38 32       | pmovzxbq   | xmm, xmm/m16           |
    66 0F 38 33       | pmovzxwd   | xmm, xmm/m64           |
    66 0F 38 34       | pmovzxwq   | xmm, xmm/m32           |
    66 0F 38 35       | pmovzxdq   | xmm, xmm/m64           |
    66 0F 38 38       | pminsb     | xmm, xmm/m128          |
    66 0F 38 39       | pminsd     | xmm, xmm/m128          |
    66 0F 38 3A       | pminuw     | xmm, xmm/m128          |
    66 0F 38 3B       | pminud     | xmm, xmm/m128          |
    66 0F 38 3C       | pmaxsb     | xmm, xmm/m128          |
    66 0F 38 3D       | pmaxsd     | xmm, xmm/m128          |
    66 0F 38 3E       | pmaxuw     | xmm, xmm/m128          |
    66 0F 38 3F       | pmaxud     | xmm, xmm/m128          |
    66 0F 38 40       | pmulld     | xmm, xmm/m128          |
    66 0F 38 41       | phminposuw | xmm, xmm/m128          |
    66 0F 3A 08       | roundps    | xmm, xmm/m128, uimm8   |
    66 0F 3A 09       | roundpd    | xmm, xmm/m128, uimm8   |
    66 0F 3A 0A       | roundss    | xmm, xmm/m32, uimm8    |
    66 0F 3A 0B       | roundsd    | xmm, xmm/m64, uimm8    |
    66 0F 3A 0C       | blendps    | xmm, xmm/m128, uimm8   |
    66 0F 3A 0D       | blendpd    | xmm, xmm/m128, uimm8   |
    66 0F 3A 0E       | pblendw    | xmm, xmm/m128, uimm8   |
    66 0F 3A 14       | pextrb     | ry/m8, xmm, uimm8      |
    66 0F 3A 15       | pextrw     | ry/m16, xmm, uimm8     |
    66 0F 3A 16       | pextrd     | r/m32, xmm, uimm8      |
    REX.W 66 0F 3A 16 | pextrq     | r/m64, xmm, uimm8      |
    66 0F 3A 17       | extractps  | ry/m32, xmm, uimm8     |
    66 0F 3A 20       | pinsrb     | xmm, ry/m8, uimm8      |
    66 0F 3A 21       | insertps   | xmm, xmm/m32, uimm8    |
    66 0F 3A 22       | pinsrd     | xmm, r/m32, uimm8      |
    REX.W 66 0F 3A 22 | pinsrq     | xmm, r/m64, uimm8      |
    66 0F 3A 40       | dpps       | xmm, xmm/m128, uimm8   |
    66 0F 3A 41       | dppd       | xmm, xmm/m128, uimm8   |
    66 0F 3A 42       | mpsadbw    | xmm, xmm/m128, uimm8   |
  `,
};

const sse42: TableSection = {
  feature: 'sse4.2',
  rows: `
    66 0F 38 37       | pcmpgtq    | xmm, xmm/m128          |
    F2 0F 38 F0       | crc32      | ry, r/m8               |
    F2 0F 38 F1       | crc32      | ry, r/mv               |
    66 0F 3A 60       | pcmpestrm  | xmm, xmm/m128, uimm8   |
    66 0F 3A 61       | pcmpestri  | xmm, xmm/m128, uimm8   |
    66 0F 3A 62       | pcmpistrm  | xmm, xmm/m128, uimm8   |
    66 0F 3A 63       | pcmpistri  | xmm, xmm/m128, uimm8   |
  `,
};

export const vectorSections: readonly TableSection[] = [mmx, fxsr, clflush, sse, sse2, sse3, ssse3, sse41, sse42];
