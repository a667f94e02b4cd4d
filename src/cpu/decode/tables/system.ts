/**
 * Opcodes of the system instructions: privileged ones, those that serve descriptor tables and model-specific registers,
 * and hypercalls. Source: Intel SDM volume 2; for VMMCALL, SYSCALL and SWAPGS also AMD APM volume 3.
 */
import type { TableSection } from '../rows.ts';

export const systemSections: readonly TableSection[] = [
  {
    feature: 'base',
    rows: `
      F4             | hlt      |              |
      FA             | cli      |              |
      FB             | sti      |              |
      0F 00 /0       | sldt     | rv/m16       |
      0F 00 /1       | str      | rv/m16       |
      0F 00 /2       | lldt     | r/m16        |
      0F 00 /3       | ltr      | r/m16        |
      0F 00 /4       | verr     | r/m16        |
      0F 00 /5       | verw     | r/m16        |
      0F 01 /0       | sgdt     | m16&n        | f64
      0F 01 /1       | sidt     | m16&n        | f64
      0F 01 /2       | lgdt     | m16&n        | f64
      0F 01 /3       | lidt     | m16&n        | f64
      0F 01 /4       | smsw     | rv/m16       |
      0F 01 /6       | lmsw     | r/m16        |
      0F 01 /7       | invlpg   | m0           |
      0F 01 F8       | swapgs   |              | long
      0F 02          | lar      | rv, r/m16    |
      0F 03          | lsl      | rv, r/m16    |
      0F 06          | clts     |              |
      0F 08          | invd     |              |
      0F 09          | wbinvd   |              |
      0F 20 /0,2-4   | mov      | any.rn, cr   | native
      0F 21          | mov      | any.rn, dr   | native
      0F 22 /0,2-4   | mov      | cr, any.rn   | native
      0F 23          | mov      | dr, any.rn   | native
      0F A2          | cpuid    |              |
      0F AA          | rsm      |              |
    `,
  },
  {
    feature: 'hypercall',
    rows: `
      NP 0F 01 C1    | vmcall   |              |
      0F 01 D9       | vmmcall  |              |
    `,
  },
  {
    feature: 'monitor',
    rows: `
      NP 0F 01 C8    | monitor  |              |
      NP 0F 01 C9    | mwait    |              |
    `,
  },
  { feature: 'rdtscp', rows: '0F 01 F9 | rdtscp | |' },
  { feature: 'serialize', rows: 'NP 0F 01 E8 | serialize | |' },
  {
    feature: 'syscall',
    rows: `
      0F 05          | syscall  |              |
      0F 07          | sysret   |              |
    `,
  },
  {
    feature: 'msr',
    rows: `
      0F 30          | wrmsr    |              |
      0F 32          | rdmsr    |              |
    `,
  },
  { feature: 'tsc', rows: '0F 31 | rdtsc | |' },
  { feature: 'rdpmc', rows: '0F 33 | rdpmc | |' },
  {
    feature: 'sysenter',
    rows: `
      0F 34          | sysenter |              |
      0F 35          | sysexit  |              |
    `,
  },
];
