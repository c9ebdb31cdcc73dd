/* The functions of testing.h: a context without a daemon. */

#include "node.h"
#include "include/dora/testing.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct mock {
    struct event_line events, sent, replies;
    bool has_stop;
    uint32_t segments;
};

static struct mapping *new_memory(uint64_t size)
{
    int memory = memfd_create("dora-mock", MFD_CLOEXEC);
    struct mapping *mapping = NULL;
    if (memory >= 0 && ftruncate(memory, (off_t)size) == 0)
        mapping = mapping_new(memory, true);
    if (memory >= 0)
        close(memory);
    return mapping;
}

static void begin(struct event_line *line)
{
    line->last = &line->first;
}

DORA_API void *dora_mock_new(const char *node_id)
{
    struct context *context = context_new(-1);
    context->mock = must(calloc(1, sizeof *context->mock));
    begin(&context->mock->events);
    begin(&context->mock->sent);
    begin(&context->mock->replies);
    context->node_id = copy_text(node_id, strlen(node_id));
    context->dataflow_id = copy_text("", 0);
    context->box = must(new_memory(BOX_WORDS * WORD));
    context->mail = (struct dora_optional){true, 0}; /* there is no daemon that sends any */
    return context;
}

void mock_free(struct mock *mock)
{
    struct event_line *lines[] = {&mock->events, &mock->sent, &mock->replies};
    for (size_t at = 0; at < sizeof lines / sizeof *lines; at++)
        for (struct event *each; (each = line_take(lines[at])) != NULL;)
            event_free(each);
    free(mock);
}

/* -- messages ---------------------------------------------------------------------------------- */

/* Return the event that a message becomes at its receiver. */
static struct event *message(struct context *context, const char *id, size_t id_size,
                             const struct content *content, const DoraMetadata *metadata)
{
    struct json_text text = {0};
    uint16_t flags = 0;
    char *name = copy_text(id, id_size);
    struct event *event = event_new(INPUT, name, NULL);
    free(name);
    if (metadata != NULL)
        metadata_encode(metadata, &text, &flags);
    event->has_message = true;
    event->stamp = (int64_t)dora_clock_now(context->box->words, &context->clock);
    event->entry = (struct dora_entry){
        .stamp = (uint64_t)event->stamp,
        .length = content->length,
        .nulls = content->nulls,
        .size = content->size,
        .meta_size = (uint32_t)text.size,
        .code = content->code,
        .flags = flags,
    };
    event->copied_metadata = text.at;
    event->meta = text.at;
    event->data = event->copied = must(calloc(1, content->size + 1));
    if (content->sample != NULL)
        memcpy(event->copied, sample_at(content->sample), content->size);
    else
        copy_parts(event->copied, content);
    return event;
}

static struct event *bytes(struct context *context, const char *id, const void *data, size_t size,
                           const DoraMetadata *metadata)
{
    struct content content;
    content_of_bytes(&content, data, size);
    return message(context, id, strlen(id), &content, metadata);
}

DORA_API int dora_mock_input(void *dora_context, const char *input, const void *data, size_t size,
                             const DoraMetadata *metadata)
{
    struct context *context = dora_context;
    line_add(&context->mock->events, bytes(context, input, data, size, metadata));
    return 0;
}

DORA_API int dora_mock_input_arrow(void *dora_context, const char *input,
                                   const struct ArrowSchema *schema, const struct ArrowArray *array,
                                   const DoraMetadata *metadata)
{
    struct context *context = dora_context;
    struct content content;
    int result = format_encode(schema, array, &content);
    if (result == 0)
        line_add(&context->mock->events,
                 message(context, input, strlen(input), &content, metadata));
    content_free(&content);
    return result;
}

DORA_API int dora_mock_reply(void *dora_context, const char *output, const void *data, size_t size,
                             const DoraMetadata *metadata)
{
    struct context *context = dora_context;
    line_add(&context->mock->replies, bytes(context, output, data, size, metadata));
    return 0;
}

/* -- other events ------------------------------------------------------------------------------ */

DORA_API int dora_mock_event(void *dora_context, const char *name, const char *id, const char *text)
{
    struct context *context = dora_context;
    for (enum event_type type = 0; type < EVENT_TYPES; type++) {
        struct event *event = event_new(type, id, text);
        if (type != INPUT && strcmp(dora_event_name(event), name) == 0) {
            line_add(&context->mock->events, event);
            context->mock->has_stop = context->mock->has_stop || type == STOP;
            return 0;
        }
        event_free(event);
    }
    return fail("there is no event `%s` besides inputs", name);
}

DORA_API int dora_mock_param(void *dora_context, const char *key, const char *json)
{
    struct json_arena arena = {0};
    const struct json *value = json_read(&arena, json, strlen(json));
    int result = value == NULL ? fail("the parameter `%s` is not valid JSON: %s", key, json) : 0;
    if (value != NULL)
        set_param(dora_context, key, value);
    json_free(&arena);
    return result;
}

/* -- what the context does --------------------------------------------------------------------- */

struct event *mock_poll(struct context *context)
{
    struct mock *mock = context->mock;
    struct event *event = line_take(&mock->events);
    if (event == NULL && !mock->has_stop) {
        mock->has_stop = true;
        event = event_new(STOP, "ALL_INPUTS_CLOSED", NULL);
    }
    if (event == NULL)
        context->ended = true;
    else if (event->type == PARAM_UPDATE && event->text != NULL)
        dora_mock_param(context, event->id, event->text);
    else if (event->type == PARAM_DELETED)
        set_param(context, event->id, NULL);
    return event;
}

void mock_send(struct context *context, const char *id, size_t size, struct content *content,
               const DoraMetadata *metadata)
{
    line_add(&context->mock->sent, message(context, id, size, content, metadata));
    if (content->sample != NULL)
        pool_sent(context, content->sample);
}

static struct event *take_of(struct event_line *line, const char *id)
{
    for (struct event **place = &line->first; *place != NULL; place = &(*place)->next)
        if (strcmp((*place)->id, id) == 0)
            return line_remove(line, place);
    return NULL;
}

struct event *mock_reply(struct context *context, const char *output, const char *key,
                         const char *id)
{
    struct event *event = take_of(&context->mock->replies, output);
    if (event == NULL)
        return NULL;
    DoraMetadata *metadata = metadata_copy(dora_event_metadata(event));
    dora_metadata_set_string(metadata, key, id);
    dora_metadata_free(event->metadata);
    event->metadata = metadata;
    return event;
}

void mock_grow(struct context *context, uint64_t number, uint64_t size)
{
    struct mapping *mapping = new_memory(size);
    pool_answer(context, number, ++context->mock->segments, mapping);
}

DORA_API void *dora_mock_sent(void *dora_context, const char *output)
{
    return take_of(&((struct context *)dora_context)->mock->sent, output);
}
