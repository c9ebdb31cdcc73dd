/* Metadata: a flat JSON object; see dorad/node/metadata.py. */

#include "node.h"

#include <stdlib.h>
#include <string.h>

#define TIME_KEY "$time" /* the only key of an object in metadata: a time in microseconds */

DoraMetadata *metadata_decode(const char *text, size_t size)
{
    DoraMetadata *metadata = dora_metadata_new();
    if (size == 0)
        return metadata;
    metadata->object = json_read(&metadata->arena, text, size);
    if (metadata->object == NULL || metadata->object->type != JSON_OBJECT) {
        dora_metadata_free(metadata);
        return NULL;
    }
    return metadata;
}

DoraMetadata *metadata_copy(const DoraMetadata *metadata)
{
    struct json_text text = {0};
    uint16_t flags;
    if (metadata == NULL)
        return dora_metadata_new();
    metadata_encode(metadata, &text, &flags);
    DoraMetadata *copy = metadata_decode(text.at, text.size);
    free(text.at);
    return copy;
}

void metadata_encode(const DoraMetadata *metadata, struct json_text *text, uint16_t *flags)
{
    const struct json *object = metadata->object;
    *flags = 0;
    if (object->items.count == 0)
        return;
    if (json_get(object, "request_id") != NULL || json_get(object, "goal_id") != NULL ||
        json_get(object, "goal_status") != NULL)
        *flags |= CORRELATED;
    if (json_true(object, "flush"))
        *flags |= FLUSH;
    json_write(text, object);
}

char *session_of(const char *text, size_t size)
{
    struct json_arena arena = {0};
    struct json_text session = {0};
    const struct json *value = json_get(json_read(&arena, text, size), "session_id");
    if (value != NULL)
        json_write(&session, value);
    json_free(&arena);
    return session.at;
}

/* -- reading ----------------------------------------------------------------------------------- */

DORA_API DoraMetadata *dora_metadata_new(void)
{
    DoraMetadata *metadata = must(calloc(1, sizeof *metadata));
    metadata->object = json_new(&metadata->arena, JSON_OBJECT);
    return metadata;
}

DORA_API void dora_metadata_free(DoraMetadata *metadata)
{
    if (metadata == NULL)
        return;
    json_free(&metadata->arena);
    free(metadata);
}

DORA_API size_t dora_metadata_count(const DoraMetadata *metadata)
{
    return metadata == NULL ? 0 : metadata->object->items.count;
}

DORA_API const char *dora_metadata_key(const DoraMetadata *metadata, size_t index)
{
    const struct json *each = metadata == NULL ? NULL : metadata->object->items.first;
    for (; each != NULL && index > 0; index--)
        each = each->next;
    return each == NULL ? NULL : each->key;
}

static const struct json *value_of(const DoraMetadata *metadata, const char *key)
{
    return metadata == NULL || key == NULL ? NULL : json_get(metadata->object, key);
}

static const struct json *time_of(const struct json *value)
{
    const struct json *time = json_get(value, TIME_KEY);
    return time != NULL && time->type == JSON_INT ? time : NULL;
}

DORA_API enum DoraMetadataType dora_metadata_type(const DoraMetadata *metadata, const char *key)
{
    const struct json *value = value_of(metadata, key);
    if (value == NULL)
        return DORA_METADATA_NONE;
    switch (value->type) {
    case JSON_BOOL:
        return DORA_METADATA_BOOL;
    case JSON_INT:
        return DORA_METADATA_INT;
    case JSON_FLOAT:
        return DORA_METADATA_FLOAT;
    case JSON_STRING:
        return DORA_METADATA_STRING;
    case JSON_LIST:
        if (value->items.first == NULL)
            return DORA_METADATA_INTS;
        return value->items.first->type == JSON_STRING  ? DORA_METADATA_STRINGS
               : value->items.first->type == JSON_FLOAT ? DORA_METADATA_FLOATS
                                                        : DORA_METADATA_INTS;
    default:
        return time_of(value) != NULL ? DORA_METADATA_TIME : DORA_METADATA_NONE;
    }
}

static int get_int(const struct json *value, int64_t *into)
{
    if (value == NULL || value->type != JSON_INT)
        return -1;
    *into = value->number;
    return 0;
}

static int get_float(const struct json *value, double *into)
{
    if (value == NULL || (value->type != JSON_FLOAT && value->type != JSON_INT))
        return -1;
    *into = value->type == JSON_INT ? (double)value->number : value->real;
    return 0;
}

static const struct json *item_of(const DoraMetadata *metadata, const char *key, size_t at)
{
    const struct json *value = value_of(metadata, key);
    if (value == NULL || value->type != JSON_LIST)
        return NULL;
    const struct json *each = value->items.first;
    for (; each != NULL && at > 0; at--)
        each = each->next;
    return each;
}

DORA_API int dora_metadata_get_bool(const DoraMetadata *metadata, const char *key, bool *value)
{
    const struct json *item = value_of(metadata, key);
    if (item == NULL || item->type != JSON_BOOL)
        return -1;
    *value = item->truth;
    return 0;
}

DORA_API int dora_metadata_get_int(const DoraMetadata *metadata, const char *key, int64_t *value)
{
    return get_int(value_of(metadata, key), value);
}

DORA_API int dora_metadata_get_float(const DoraMetadata *metadata, const char *key, double *value)
{
    return get_float(value_of(metadata, key), value);
}

DORA_API const char *dora_metadata_get_string(const DoraMetadata *metadata, const char *key)
{
    const struct json *value = value_of(metadata, key);
    return value != NULL && value->type == JSON_STRING ? value->string.at : NULL;
}

DORA_API int dora_metadata_get_time(const DoraMetadata *metadata, const char *key, int64_t *micros)
{
    return get_int(time_of(value_of(metadata, key)), micros);
}

DORA_API size_t dora_metadata_length(const DoraMetadata *metadata, const char *key)
{
    const struct json *value = value_of(metadata, key);
    return value != NULL && value->type == JSON_LIST ? value->items.count : 0;
}

DORA_API int dora_metadata_get_int_at(const DoraMetadata *metadata, const char *key, size_t at,
                                      int64_t *value)
{
    return get_int(item_of(metadata, key, at), value);
}

DORA_API int dora_metadata_get_float_at(const DoraMetadata *metadata, const char *key, size_t at,
                                        double *value)
{
    return get_float(item_of(metadata, key, at), value);
}

DORA_API const char *dora_metadata_get_string_at(const DoraMetadata *metadata, const char *key,
                                                 size_t at)
{
    const struct json *item = item_of(metadata, key, at);
    return item != NULL && item->type == JSON_STRING ? item->string.at : NULL;
}

/* -- writing ----------------------------------------------------------------------------------- */

/* Return whether a text can be sent: it is UTF-8. */
static bool is_text(const char *text)
{
    if (text == NULL)
        return false;
    struct json_arena arena = {0};
    struct json_text quoted = {0};
    text_quote(&quoted, text, strlen(text));
    bool valid = json_read(&arena, quoted.at, quoted.size) != NULL;
    json_free(&arena);
    free(quoted.at);
    return valid;
}

/* Return the place of a value, which the caller fills; NULL without metadata or key. */
static struct json *place(DoraMetadata *metadata, const char *key, enum json_type type)
{
    if (metadata == NULL || !is_text(key)) {
        fail("a metadata value has no key, or one that is not UTF-8");
        return NULL;
    }
    struct json *value = json_get(metadata->object, key);
    if (value == NULL) {
        value = json_new(&metadata->arena, type);
        size_t size = strlen(key) + 1;
        value->key = memcpy(json_allocate(&metadata->arena, size), key, size);
        json_add(metadata->object, value);
    } else {
        const struct json before = *value;
        *value = (struct json){.type = type, .key = before.key, .next = before.next};
    }
    return value;
}

static void set_text(DoraMetadata *metadata, struct json *value, const char *text)
{
    value->string.size = strlen(text);
    value->string.at =
        memcpy(json_allocate(&metadata->arena, value->string.size + 1), text, value->string.size + 1);
}

DORA_API int dora_metadata_set_bool(DoraMetadata *metadata, const char *key, bool value)
{
    struct json *into = place(metadata, key, JSON_BOOL);
    if (into == NULL)
        return -1;
    into->truth = value;
    return 0;
}

DORA_API int dora_metadata_set_int(DoraMetadata *metadata, const char *key, int64_t value)
{
    struct json *into = place(metadata, key, JSON_INT);
    if (into == NULL)
        return -1;
    into->number = value;
    return 0;
}

DORA_API int dora_metadata_set_float(DoraMetadata *metadata, const char *key, double value)
{
    struct json *into = place(metadata, key, JSON_FLOAT);
    if (into == NULL)
        return -1;
    into->real = value;
    return 0;
}

DORA_API int dora_metadata_set_string(DoraMetadata *metadata, const char *key, const char *value)
{
    if (!is_text(value))
        return fail("the metadata value `%s` is NULL, or not UTF-8", key ? key : "");
    struct json *into = place(metadata, key, JSON_STRING);
    if (into == NULL)
        return -1;
    set_text(metadata, into, value);
    return 0;
}

DORA_API int dora_metadata_set_time(DoraMetadata *metadata, const char *key, int64_t micros)
{
    struct json *into = place(metadata, key, JSON_OBJECT);
    if (into == NULL)
        return -1;
    struct json *time = json_new(&metadata->arena, JSON_INT);
    time->key = TIME_KEY;
    time->number = micros;
    json_add(into, time);
    return 0;
}

DORA_API int dora_metadata_set_ints(DoraMetadata *metadata, const char *key, const int64_t *values,
                                    size_t count)
{
    struct json *into = place(metadata, key, JSON_LIST);
    for (size_t at = 0; into != NULL && at < count; at++) {
        struct json *item = json_new(&metadata->arena, JSON_INT);
        item->number = values[at];
        json_add(into, item);
    }
    return into == NULL ? -1 : 0;
}

DORA_API int dora_metadata_set_floats(DoraMetadata *metadata, const char *key, const double *values,
                                      size_t count)
{
    struct json *into = place(metadata, key, JSON_LIST);
    for (size_t at = 0; into != NULL && at < count; at++) {
        struct json *item = json_new(&metadata->arena, JSON_FLOAT);
        item->real = values[at];
        json_add(into, item);
    }
    return into == NULL ? -1 : 0;
}

DORA_API int dora_metadata_set_strings(DoraMetadata *metadata, const char *key,
                                       const char *const *values, size_t count)
{
    for (size_t at = 0; at < count; at++)
        if (!is_text(values[at]))
            return fail("item %zu of the metadata value `%s` is NULL, or not UTF-8", at,
                        key ? key : "");
    struct json *into = place(metadata, key, JSON_LIST);
    for (size_t at = 0; into != NULL && at < count; at++) {
        struct json *item = json_new(&metadata->arena, JSON_STRING);
        set_text(metadata, item, values[at]);
        json_add(into, item);
    }
    return into == NULL ? -1 : 0;
}

/* -- answers ----------------------------------------------------------------------------------- */

const char *correlation_of(struct event *event, const char *key)
{
    bool marked = event->type == INPUT && event->has_message && event->entry.flags & CORRELATED;
    return marked ? dora_metadata_get_string(dora_event_metadata(event), key) : NULL;
}

DORA_API int dora_metadata_answer(DoraMetadata *metadata, void *request)
{
    struct event *event = request;
    const char *id;
    if (metadata == NULL || event == NULL)
        return fail("dora_metadata_answer was called with NULL");
    const char *key = "request_id";
    if ((id = correlation_of(event, key)) == NULL)
        id = correlation_of(event, key = "goal_id");
    if (id == NULL)
        return fail("the message on input `%s` has no request_id or goal_id in its metadata: it "
                    "cannot be answered",
                    event->id);
    return dora_metadata_set_string(metadata, key, id);
}

DORA_API int dora_send_error(void *dora_context, const char *output, void *request,
                             const char *kind, const char *text)
{
    DoraMetadata *metadata = dora_metadata_new();
    int result = dora_metadata_answer(metadata, request);
    bool goal = dora_metadata_get_string(metadata, "goal_id") != NULL;
    if (result == 0)
        result = dora_metadata_set_string(metadata, goal ? "goal_error" : "request_error", text);
    if (result == 0)
        result = dora_metadata_set_string(
            metadata, goal ? "goal_error_type" : "request_error_type", kind);
    if (result == 0 && goal)
        result = dora_metadata_set_string(metadata, "goal_status", "aborted");
    if (result == 0)
        result = dora_send_bytes(dora_context, output, "", 0, metadata);
    dora_metadata_free(metadata);
    return result;
}
