#pragma once

/* A word in assembly. */
#define WORD_BYTES 4
#define WORD_DATA .long
