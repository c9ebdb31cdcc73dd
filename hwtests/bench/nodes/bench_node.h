/* Shared by the nodes in C of the benchmark; as bench_node.py. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Return the numbers of a comma-separated variable, and how many there are. */
static inline size_t numbers(const char *name, double *into, size_t room)
{
    const char *text = getenv(name);
    size_t count = 0;
    for (char *end; text != NULL && count < room; text = *end == ',' ? end + 1 : NULL)
        into[count++] = strtod(text, &end);
    return count;
}

/* Open the file of the result; `finish_report` makes it complete. */
static inline FILE *begin_report(char *draft, size_t size)
{
    snprintf(draft, size, "%s.part", getenv("BENCH_OUT"));
    FILE *file = fopen(draft, "w");
    if (file == NULL)
        abort();
    return file;
}

static inline void finish_report(FILE *file, const char *draft)
{
    if (fclose(file) != 0 || rename(draft, getenv("BENCH_OUT")) != 0)
        abort();
}
