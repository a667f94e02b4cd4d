#pragma once

/* A word in assembly. */
#define WORD_BYTES 8
#define WORD_DATA .quad
