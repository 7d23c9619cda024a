// A line per check, and a count of failures for the exit code. Include once per test program.
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

static int check_failures;

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static inline void check(bool ok, const char * format, ...) {
    va_list args;
    va_start(args, format);
    printf("%s ", ok ? "ok  " : "FAIL");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    check_failures += !ok;
}

static inline int check_exit_code(void) {
    if (check_failures) {
        printf("%d checks failed\n", check_failures);
    }
    return check_failures ? 1 : 0;
}
