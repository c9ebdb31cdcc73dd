/* Events, and what the application reads of them. */

#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct event *event_new(enum event_type type, const char *id, const char *text)
{
    struct event *event = must(aligned_alloc(_Alignof(struct event), sizeof *event));
    memset(event, 0, offsetof(struct event, place));
    event->type = type;
    event->id_size = strlen(id);
    event->id = copy_text(id, event->id_size);
    event->text = text == NULL || *text == 0 ? NULL : copy_text(text, strlen(text));
    return event;
}

void event_free(struct event *event)
{
    if (event == NULL)
        return;
    for (size_t at = 0; at < event->member_count; at++)
        event_free(event->members[at]);
    free(event->members);
    names_free(&event->affected);
    dora_metadata_free(event->metadata);
    borrow_drop(event->payload);
    borrow_drop(event->metadata_home);
    free(event->copied);
    free(event->copied_metadata);
    free(event->id);
    free(event->text);
    free(event);
}

void line_add(struct event_line *line, struct event *event)
{
    *line->last = event;
    line->last = &event->next;
}

struct event *line_take(struct event_line *line)
{
    struct event *event = line->first;
    if (event == NULL)
        return NULL;
    line->first = event->next;
    if (line->first == NULL)
        line->last = &line->first;
    event->next = NULL;
    return event;
}

struct event *line_remove(struct event_line *line, struct event **place)
{
    struct event *event = *place;
    *place = event->next;
    if (line->last == &event->next)
        line->last = place;
    event->next = NULL;
    return event;
}

/* -- for the application ----------------------------------------------------------------------- */

DORA_API void free_dora_event(void *dora_event)
{
    event_free(dora_event);
}

DORA_API enum DoraEventType read_dora_event_type(void *dora_event)
{
    switch (((const struct event *)dora_event)->type) {
    case STOP:
        return DoraEventType_Stop;
    case INPUT:
        return DoraEventType_Input;
    case INPUT_CLOSED:
        return DoraEventType_InputClosed;
    case ERROR:
        return DoraEventType_Error;
    default:
        return DoraEventType_Unknown;
    }
}

DORA_API const char *dora_event_name(const void *dora_event)
{
    static const char *const names[EVENT_TYPES] = {
        [INPUT] = "INPUT",
        [STOP] = "STOP",
        [INPUT_CLOSED] = "INPUT_CLOSED",
        [INPUT_RECOVERED] = "INPUT_RECOVERED",
        [NODE_RESTARTED] = "NODE_RESTARTED",
        [NODE_FAILED] = "NODE_FAILED",
        [PARAM_UPDATE] = "PARAM_UPDATE",
        [PARAM_DELETED] = "PARAM_DELETED",
        [RELOAD] = "RELOAD",
        [ERROR] = "ERROR",
        [HAPPENED] = "HAPPENED",
    };
    return names[((const struct event *)dora_event)->type];
}

DORA_API const char *dora_event_id(const void *dora_event)
{
    return ((const struct event *)dora_event)->id;
}

DORA_API const char *dora_event_text(const void *dora_event)
{
    const char *text = ((const struct event *)dora_event)->text;
    return text == NULL ? "" : text;
}

DORA_API const char *dora_event_affected_input(const void *dora_event, size_t index)
{
    const struct names *affected = &((const struct event *)dora_event)->affected;
    return index < affected->count ? affected->at[index] : NULL;
}

DORA_API int64_t dora_event_timestamp_ns(const void *dora_event)
{
    return ((const struct event *)dora_event)->stamp;
}

DORA_API size_t dora_event_member_count(const void *dora_event)
{
    return ((const struct event *)dora_event)->member_count;
}

DORA_API void *dora_event_member(void *dora_event, size_t index)
{
    struct event *event = dora_event;
    return index < event->member_count ? event->members[index] : NULL;
}

DORA_API void read_dora_input_id(void *dora_event, char **out_ptr, size_t *out_len)
{
    const struct event *event = dora_event;
    *out_ptr = event->type == INPUT ? event->id : NULL;
    *out_len = event->type == INPUT ? event->id_size : 0;
}

DORA_API void read_dora_input_data(void *dora_event, char **out_ptr, size_t *out_len)
{
    const struct event *event = dora_event;
    const struct dora_entry *entry = &event->entry;
    *out_ptr = NULL;
    *out_len = 0;
    if (event->type != INPUT || event->is_tick || entry->code == CODE_NULL || entry->size == 0)
        return;
    if (entry->code != CODE_UINT8 || entry->nulls || entry->size != entry->length) {
        fail("the message on input `%s` is no array of UInt8 without nulls: read it with "
             "dora_event_arrow()",
             event->id);
        fprintf(stderr, "libdora_node: %s\n", last_error());
        return;
    }
    *out_ptr = (char *)event->data;
    *out_len = entry->size;
}

DORA_API unsigned long long read_dora_input_timestamp(void *dora_event)
{
    const struct event *event = dora_event;
    uint64_t stamp = event->type == INPUT ? (uint64_t)event->stamp : 0;
    return stamp / DORA_NANOS << 32 | (stamp % DORA_NANOS << 32) / DORA_NANOS;
}

DORA_API const DoraMetadata *dora_event_metadata(void *dora_event)
{
    struct event *event = dora_event;
    if (event->metadata == NULL) {
        event->metadata =
            metadata_decode(event->meta, event->has_message ? event->entry.meta_size : 0);
        if (event->metadata == NULL)
            fail("the metadata of the message on input `%s` are malformed", event->id);
    }
    return event->metadata;
}

DORA_API int dora_event_arrow(void *dora_event, struct ArrowSchema *schema, struct ArrowArray *array)
{
    struct event *event = dora_event;
    char why[400];
    if (event->type != INPUT)
        return fail("an event of type %s has no array", dora_event_name(event));
    if (event->member_count > 0)
        return fail("the set `%s` has no array of its own: read those of dora_event_member()",
                    event->id);
    if (format_decode(event, schema, array) == 0)
        return 0;
    snprintf(why, sizeof why, "%s", last_error());
    return fail("the message on input `%s` cannot be read: %s", event->id, why);
}
