#pragma once

/*
 * Records of call sites in .parainstructions: address, number of the operation, bytes of the site, registers that it may
 * destroy. Assembly has the same by the macros of site.S.
 */
#define SITE_RECORD(section) \
  "772:\n\t" \
  ".pushsection " section ", \"a\"\n\t" \
  ".quad 771b\n\t" \
  ".byte %c[type], 772b - 771b\n\t" \
  ".short %c[clobbers]\n\t" \
  ".long 0\n\t" \
  ".popsection"

struct site {
  u64 address;
  u8 type;
  u8 length;
  u16 clobbers;
  u32 unused;
};

/* All of them; the linker collects them. */
extern const struct site sites[], sites_end[];

/* Registers that a site may destroy besides the flags. */
enum clobbers { CLOBBERS_RESULT = 1, CLOBBERS_SCRATCH = 2, CLOBBERS_ANY = CLOBBERS_RESULT | CLOBBERS_SCRATCH };
