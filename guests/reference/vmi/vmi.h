#pragma once
#include "abi.h"
#include "cpu.h"

/* Code of the ROM that needs other arguments than the operation that it is for. NULL where the kernel keeps its own. */
struct vmi_calls {
  void *cpuid;
  void (*set_tr)(u32 selector);
  void (*update_kernel_stack)(u32 segment, word stack);
  void (*set_initial_ap_state)(const struct ap_state *state, u32 apic);
};
extern struct vmi_calls vmi;

void *vmi_code(enum vmi_call call);
void vmi_use_machine_frames(void);
void vmi_begin_tables(void);
void vmi_begin_time(void);
