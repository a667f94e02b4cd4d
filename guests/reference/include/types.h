#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
#ifdef __x86_64__
typedef unsigned long u64;
typedef long s64;
#else
typedef unsigned long long u64;
typedef long long s64;
#endif
/* As wide as an address and a general register. */
typedef unsigned long word;
typedef long sword;
typedef word size_t;

#define NULL ((void *)0)
#define offsetof(type, field) __builtin_offsetof(type, field)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#define NORETURN __attribute__((noreturn))
#define USED __attribute__((used))
#define STRING_OF(text) #text
#define STRING(text) STRING_OF(text)
