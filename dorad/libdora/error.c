/* Errors of this thread, and log lines of the node. */

#include "node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static _Thread_local char text[1024];

int fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return -1;
}

const char *last_error(void)
{
    return text;
}

/* Return the level that is meant; an unknown one counts as info. */
static const char *known_level(const char *level, size_t size)
{
    static const char *const levels[] = {"error", "warn", "info", "debug", "trace"};
    for (size_t at = 0; at < sizeof levels / sizeof *levels; at++) {
        size_t same = 0;
        while (same < size && (level[same] | 0x20) == levels[at][same])
            same++;
        if (same == size && levels[at][same] == 0)
            return levels[at];
    }
    return "info";
}

void log_line(const struct context *context, const char *level, size_t level_size,
              const char *message, size_t size)
{
    struct timespec now;
    struct tm at;
    char date[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &at);
    size_t used = strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &at);
    snprintf(date + used, sizeof date - used, ".%06ldZ", now.tv_nsec / 1000);
    struct json_text line = {0};
    text_put(&line, "{\"timestamp\":\"");
    text_put(&line, date);
    text_put(&line, "\",\"level\":\"");
    text_put(&line, known_level(level, level_size));
    text_put(&line, "\",\"node_id\":");
    text_quote(&line, context->node_id, strlen(context->node_id));
    text_put(&line, ",\"message\":");
    text_quote(&line, message, size);
    text_put(&line, "}\n");
    /* After what the program has printed, and as a whole. */
    flockfile(stdout);
    fwrite(line.at, 1, line.size, stdout);
    fflush(stdout);
    funlockfile(stdout);
    free(line.at);
}

void log_text(const struct context *context, const char *level, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_line(context, level, strlen(level), message, strlen(message));
}
