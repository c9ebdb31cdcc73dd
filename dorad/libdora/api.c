/* The functions of node_api.h that are no part's own. */

#include "node.h"
#include "version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* -- context ----------------------------------------------------------------------------------- */

static void *started(struct context *context)
{
    if (context == NULL)
        fprintf(stderr, "libdora_node: %s\n", last_error());
    return context;
}

DORA_API void *init_dora_context_from_env(void)
{
    return started(connect_from_env());
}

DORA_API void *init_dora_context_from_node_id(const char *node_id)
{
    if (node_id == NULL) {
        fail("the node has no id");
        return started(NULL);
    }
    return started(connect_by_id(node_id));
}

DORA_API void free_dora_context(void *dora_context)
{
    if (dora_context != NULL)
        daemon_free(dora_context);
}

DORA_API const char *dora_last_error(void)
{
    return last_error();
}

DORA_API const char *dora_node_version(void)
{
    return DORA_VERSION;
}

DORA_API const char *dora_node_id(const void *dora_context)
{
    return ((const struct context *)dora_context)->node_id;
}

DORA_API const char *dora_dataflow_id(const void *dora_context)
{
    return ((const struct context *)dora_context)->dataflow_id;
}

DORA_API uint64_t dora_restart_count(const void *dora_context)
{
    uint64_t count = 0;
    json_count(((const struct context *)dora_context)->config, "restart_count", &count);
    return count;
}

static char *config_json(const struct context *context, const char *key)
{
    struct json_text text = {0};
    const struct json *value = json_get(context->config, key);
    if (value == NULL)
        return NULL;
    json_write(&text, value);
    return text.at;
}

DORA_API char *dora_node_config_json(const void *dora_context)
{
    return config_json(dora_context, "run_config");
}

DORA_API char *dora_dataflow_descriptor_json(const void *dora_context)
{
    return config_json(dora_context, "descriptor");
}

DORA_API char *dora_param_json(const void *dora_context, const char *key)
{
    const struct context *context = dora_context;
    for (size_t at = 0; at < context->param_count; at++)
        if (strcmp(context->params[at].key, key) == 0 && context->params[at].value != NULL)
            return copy_text(context->params[at].value, strlen(context->params[at].value));
    return NULL;
}

DORA_API int64_t dora_timestamp_ns(void *dora_context)
{
    struct context *context = dora_context;
    return (int64_t)dora_clock_now(context->box->words, &context->clock);
}

DORA_API int dora_log(void *dora_context, const char *level_ptr, size_t level_len,
                      const char *msg_ptr, size_t msg_len)
{
    if (dora_context == NULL || level_ptr == NULL || msg_ptr == NULL)
        return fail("dora_log was called with NULL");
    log_line(dora_context, level_ptr, level_len, msg_ptr, msg_len);
    return 0;
}

DORA_API void dora_new_id(char id[37])
{
    uint8_t bytes[16];
    uint64_t millis = (uint64_t)dora_realtime_ns() / 1000000;
    if (getrandom(bytes + 6, 10, 0) != 10)
        abort();
    for (int at = 0; at < 6; at++)
        bytes[at] = (uint8_t)(millis >> (40 - 8 * at));
    bytes[6] = (uint8_t)((bytes[6] & 0x0F) | 0x70);
    bytes[8] = (uint8_t)((bytes[8] & 0x3F) | 0x80);
    for (int at = 0; at < 16; at++)
        id += sprintf(id, at == 4 || at == 6 || at == 8 || at == 10 ? "-%02x" : "%02x", bytes[at]);
}

/* -- receiving --------------------------------------------------------------------------------- */

void disarm(struct context *context)
{
    struct epoll_event ready[DORA_MAX_READY];
    struct itimerspec never = {0};
    if (!context->armed)
        return;
    context->armed = false;
    dora_wake_up(context->box->words);
    timerfd_settime(context->timer, 0, &never, NULL);
    /* A ring of the doorbell is over once it was reported. */
    int count = epoll_wait(context->epoll, ready, DORA_MAX_READY, 0);
    for (int at = 0; at < count; at++)
        if (ready[at].data.fd == context->socket)
            read_mail(context);
}

static int next_event(struct context *context, int64_t timeout_ms, bool ends_by_signal,
                      struct event **event)
{
    int64_t deadline = INT64_MAX;
    if (timeout_ms > 0 && timeout_ms < INT64_MAX / 2000000)
        deadline = now_ns(context) + timeout_ms * 1000000;
    disarm(context);
    for (;;) {
        *event = poll_event(context);
        if (*event != NULL && context->routes != NULL && is_late_reply(context, *event)) {
            event_free(*event);
            continue;
        }
        if (*event != NULL)
            return 0;
        if (context->ended)
            return 1;
        if (timeout_ms == 0 || has_passed(context, deadline))
            return 0;
        int waited = wait_for_event(context, deadline == INT64_MAX ? NULL : &deadline, NULL);
        if (waited < 0 || (waited > 0 && ends_by_signal))
            return waited < 0 ? -1 : 0;
    }
}

DORA_API int dora_next_event_timeout(void *dora_context, int64_t timeout_ms, void **event)
{
    struct event *next = NULL;
    beat(dora_context);
    int result = next_event(dora_context, timeout_ms, true, &next);
    beat(dora_context);
    *event = next;
    return result;
}

DORA_API void *dora_next_event(void *dora_context)
{
    struct event *event = NULL;
    if (dora_context == NULL)
        return NULL;
    beat(dora_context);
    if (next_event(dora_context, -1, false, &event) < 0)
        log_text(dora_context, "error", "%s", last_error());
    beat(dora_context);
    return event;
}

DORA_API int dora_event_fd(void *dora_context)
{
    return ((struct context *)dora_context)->epoll;
}

DORA_API int dora_arm_event_fd(void *dora_context)
{
    struct context *context = dora_context;
    disarm(context);
    if (context->mock != NULL || context->ended)
        return 1;
    if ((context->urgent.first != NULL || context->deferred.first != NULL) && !must_hold(context))
        return 1;
    int64_t due = sleep_until(context, next_due(context));
    if (!may_fall_asleep(context))
        return 1;
    context->armed = true;
    if (due != INT64_MAX) {
        struct itimerspec time = {.it_value = {due / DORA_NANOS, due % DORA_NANOS}};
        timerfd_settime(context->timer, TFD_TIMER_ABSTIME, &time, NULL);
    }
    return 0;
}

/* -- sending ----------------------------------------------------------------------------------- */

void content_of_bytes(struct content *content, const void *data, size_t size)
{
    *content = (struct content){
        .code = CODE_UINT8,
        .length = size,
        .size = size,
        .parts = {{0, size, data}},
        .count = 1,
    };
}

DORA_API int dora_send_output(void *dora_context, const char *id_ptr, size_t id_len,
                              const char *data_ptr, size_t data_len)
{
    struct content content;
    if (dora_context == NULL || id_ptr == NULL || (data_ptr == NULL && data_len > 0))
        return fail("dora_send_output was called with NULL");
    content_of_bytes(&content, data_ptr, data_len);
    /* Lengths by `sizeof` have a zero more. */
    return send_content(dora_context, id_ptr, strnlen(id_ptr, id_len), &content, NULL);
}

DORA_API int dora_send_bytes(void *dora_context, const char *output, const void *data, size_t size,
                             const DoraMetadata *metadata)
{
    struct content content;
    if (dora_context == NULL || output == NULL || (data == NULL && size > 0))
        return fail("dora_send_bytes was called with NULL");
    content_of_bytes(&content, data, size);
    return send_content(dora_context, output, strlen(output), &content, metadata);
}

DORA_API void *dora_alloc_output(void *dora_context, size_t size)
{
    struct context *context = dora_context;
    struct sample *sample = pool_take(context, size == 0 ? 1 : size);
    if (sample == NULL) {
        log_text(context, "error", "%s", last_error());
        return NULL;
    }
    context->held = must(realloc(context->held, (context->held_count + 1) * sizeof *context->held));
    context->held[context->held_count++] = sample;
    return sample_at(sample);
}

DORA_API void dora_free_output(void *dora_context, void *buffer)
{
    struct context *context = dora_context;
    struct sample *sample = held_at(context, buffer);
    if (sample == NULL)
        return;
    unhold(context, sample);
    pool_sent(context, sample);
}

DORA_API int dora_send_buffer(void *dora_context, const char *output, void *buffer, size_t size,
                              const DoraMetadata *metadata)
{
    struct context *context = dora_context;
    struct sample *sample = held_at(context, buffer);
    struct content content;
    if (output == NULL || sample == NULL)
        return fail("dora_send_buffer needs a buffer of dora_alloc_output that was not sent");
    if (size > UINT64_C(1) << sample->segment->order)
        return fail("the buffer has fewer than %zu bytes", size);
    content_of_bytes(&content, buffer, size);
    content.sample = sample;
    unhold(context, sample);
    return send_content(context, output, strlen(output), &content, metadata);
}

DORA_API int dora_send_arrow(void *dora_context, const char *output,
                             const struct ArrowSchema *schema, const struct ArrowArray *array,
                             const DoraMetadata *metadata)
{
    struct context *context = dora_context;
    struct content content;
    if (context == NULL || output == NULL)
        return fail("dora_send_arrow was called with NULL");
    int result = format_encode(schema, array, &content);
    if (result == 0) {
        content.schema = schema;
        content.array = array;
        /* Values at the start of a buffer in shared memory are sent as that. */
        struct sample *sample =
            content.count == 1 && content.size > 0 ? held_at(context, content.parts[0].data) : NULL;
        if (sample != NULL && content.size <= UINT64_C(1) << sample->segment->order) {
            content.sample = sample;
            unhold(context, sample);
        }
        result = send_content(context, output, strlen(output), &content, metadata);
    } else
        log_text(context, "error", "output `%s`: %s", output, last_error());
    content_free(&content);
    return result;
}
