#include "console.h"
#include "cpu.h"

/* Text: the console, and the kernel's command line. */
void (*console_write)(const char *bytes, u32 count);
const char *command_line = "";

static char line[256];
static u32 length;

static void put(char byte) {
  line[length++] = byte;
  if (length < sizeof(line) && byte != '\n') return;
  console_write(line, length);
  length = 0;
}

static void put_number(u64 value, u32 base, u32 digits) {
  char text[24];
  u32 count = 0;
  do {
    text[count++] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value > 0 || count < digits);
  while (count > 0) put(text[--count]);
}

void print_list(const char *format, __builtin_va_list arguments) {
  for (; *format; format++) {
    if (*format != '%') {
      put(*format);
      continue;
    }
    switch (*++format) {
      case 's':
        for (const char *text = __builtin_va_arg(arguments, const char *); *text; text++) put(*text);
        break;
      case 'u':
        put_number(__builtin_va_arg(arguments, word), 10, 1);
        break;
      case 'x':
        put_number(__builtin_va_arg(arguments, word), 16, 1);
        break;
      case 'h':
        put_number(__builtin_va_arg(arguments, u64), 16, 16);
        break;
    }
  }
}

/* Processors take turns at it. */
void print(const char *format, ...) {
  static volatile u32 lock;
  word flags = save_flags();
  disable_interrupts();
  while (__sync_lock_test_and_set(&lock, 1)) {
    answer_flush();
    relax();
  }
  __builtin_va_list arguments;
  __builtin_va_start(arguments, format);
  print_list(format, arguments);
  __builtin_va_end(arguments);
  __sync_lock_release(&lock);
  restore_flags(flags);
}

void *copy(void *to, const void *from, word count) {
  void *start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  return start;
}

void *fill(void *to, u8 value, word count) {
  void *start = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  return start;
}

/* What the compiler calls by itself. */
void *memcpy(void *to, const void *from, word count) { return copy(to, from, count); }
void *memset(void *to, int value, word count) { return fill(to, (u8)value, count); }

u32 same_bytes(const void *a, const void *b, word count) {
  for (word index = 0; index < count; index++) {
    if (((const u8 *)a)[index] != ((const u8 *)b)[index]) return 0;
  }
  return 1;
}

u32 same_text(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

/* What stands behind a name that begins a word, or NULL. */
const char *word_value(const char *name) {
  for (const char *at = command_line; *at; at++) {
    if (at != command_line && at[-1] != ' ') continue;
    const char *word = at, *wanted = name;
    while (*wanted && *word == *wanted) word++, wanted++;
    if (!*wanted) return word;
  }
  return NULL;
}

u32 has_word(const char *word) {
  const char *end = word_value(word);
  return end && (*end == 0 || *end == ' ');
}
