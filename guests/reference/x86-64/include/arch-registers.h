#pragma once

/* In which registers assembly finds the result of an operation and its first argument. */
#define RESULT u64
#define IN_RESULT(value) "=a"(value)
#define IN_FIRST(value) "D"(value)
#define RESULT_CLOBBERS "rdx",
