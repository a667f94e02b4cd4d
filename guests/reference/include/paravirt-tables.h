#pragma once
#include "operations.h"

/* What patches, counts and names operations. */
extern const char *const operation_names[];
const char *group_of(u32 type);
void paravirt_nop(void);
void default_banner(void);
const char *native_memory_setup(void);

struct patch_counts {
  u32 sites, called, inlined, left;
};

u32 patch_site(u32 type, u32 clobbers, u8 *buffer, word site, u32 length);
struct patch_counts apply_paravirt(void);
void print_sites(void);

void count_operations(void);
void stop_counting(void);
void print_counts(void);
word lazy_sections(void);

/* What Xen was told in one call instead of many. */
extern word lazy_batches, lazy_updates;
