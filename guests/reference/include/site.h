#pragma once
#include "arch-site.h"
#include "types.h"

/*
 * Records of call sites in .parainstructions: address, number of the operation, bytes of the site, registers that it may
 * destroy. Assembly has the same by the macro of site-macros.h.
 */
#define SITE_RECORD(section) \
  "772:\n\t" \
  ".pushsection " section ", \"a\"\n\t" \
  ".balign " STRING(WORD_BYTES) "\n\t" \
  STRING(WORD_DATA) " 771b\n\t" \
  ".byte %c[type], 772b - 771b\n\t" \
  ".short %c[clobbers]\n\t" \
  ".popsection"

struct site {
  word address;
  u8 type;
  u8 length;
  u16 clobbers;
};

/* All of them; the linker collects them. */
extern const struct site sites[], sites_end[];

/* Registers that a site may destroy besides the flags. */
enum clobbers { CLOBBERS_RESULT = 1, CLOBBERS_SCRATCH = 2, CLOBBERS_ANY = CLOBBERS_RESULT | CLOBBERS_SCRATCH };
