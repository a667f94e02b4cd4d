#pragma once

/* In which registers assembly finds the result of an operation and its first argument. A short result is the lower half. */
#define RESULT u64
#define IN_RESULT(value) "=A"(value)
#define IN_FIRST(value) "a"(value)
#define RESULT_CLOBBERS
