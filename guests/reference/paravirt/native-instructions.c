#include "native-instructions.h"
#include "types.h"

/* Each operation that is an instruction or two as a function; its instructions are what patching puts into call sites. */
#define DEFINE(group, op) \
  asm volatile(".pushsection .text.native, \"ax\"\n" \
               "\t.balign 16\n" \
               "\t.globl native_" #op ", native_" #op "_end\n" \
               "native_" #op ":\n" \
               "\t" NATIVE_##op "\n" \
               "native_" #op "_end:\n" \
               "\tret\n" \
               "\t.popsection" : :);

/* Only a place for the definitions. */
USED static void define_functions(void) { NATIVE_INSTRUCTIONS(DEFINE) }

#ifdef NATIVE_READS
/* The loads of functions that read an entry are accessors too. */
#define RECORD(group, op) \
  asm volatile(".pushsection .accessors, \"a\"\n" \
               "\t.long native_" #op ", native_" #op " + 3\n" \
               "\t.popsection" : :);
USED static void record_reads(void) { NATIVE_READS(RECORD) }
#endif
