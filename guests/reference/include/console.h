#pragma once
#include "types.h"

/* Where the console's bytes go; the interface says. */
extern void (*console_write)(const char *bytes, u32 count);

/* %s, %u (word), %x (word), %h (u64, 16 digits). */
void print(const char *format, ...);

void *copy(void *to, const void *from, word count);
void *fill(void *to, u8 value, word count);
u32 same_bytes(const void *a, const void *b, word count);
u32 same_text(const char *a, const char *b);
u32 has_word(const char *word);
const char *word_value(const char *name);
extern const char *command_line;
