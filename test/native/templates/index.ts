/** All instruction templates: every unprivileged instruction of the x86-64-v2 level, and some that must fault.
 * (SERIALIZE is beyond it, and few processors have it.) */
import type { Template } from '../template.ts';
import { CONTROL_TEMPLATES } from './control.ts';
import { INTEGER_TEMPLATES } from './integer.ts';
import { SIMD_TEMPLATES } from './simd.ts';
import { X87_TEMPLATES } from './x87.ts';

export const TEMPLATES: readonly Template[] = [
  ...INTEGER_TEMPLATES,
  ...CONTROL_TEMPLATES,
  ...X87_TEMPLATES,
  ...SIMD_TEMPLATES,
];
