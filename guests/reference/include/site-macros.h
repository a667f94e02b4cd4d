/*
 * Call sites in assembly, recorded as paravirt.h does. Slots and numbers are symbols that operations.c defines:
 * slot_GROUP_OP and type_GROUP_OP.
 */
#include "arch-site.h"

#ifdef PARAVIRT
        .macro site group, op, clobbers, instruction, native:vararg
771:    \instruction *slot_\group\()_\op
772:    .pushsection .parainstructions, "a"
        .balign WORD_BYTES
        WORD_DATA 771b
        .byte type_\group\()_\op, 772b - 771b
        .short \clobbers
        .popsection
        .endm
#else
        .macro site group, op, clobbers, instruction, native:vararg
771:    \native
772:    .pushsection .nativeinstructions, "a"
        .balign WORD_BYTES
        WORD_DATA 771b
        .byte type_\group\()_\op, 772b - 771b
        .short \clobbers
        .popsection
        .endm
#endif
