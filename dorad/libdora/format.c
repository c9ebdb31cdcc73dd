/* How arrays become messages, and messages arrays: dorad/shm/core/arrays.h with the errors and the
   borrows of this library. */

#include "node.h"

#include <stdlib.h>
#include <string.h>

/* -- types ------------------------------------------------------------------------------------- */

#define KNOWN_TYPES 16

/* Described types that were used last, by all threads: to make one takes longer than a message. A
   place is empty while a thread compares its type. */
static _Atomic(struct dora_type *) known[KNOWN_TYPES];

static struct dora_type *take(size_t at)
{
    /* Acquire: the type was made before. Pairs with the release in `put`. */
    return atomic_exchange_explicit(&known[at], NULL, memory_order_acq_rel);
}

static void put(size_t at, struct dora_type *type)
{
    dora_type_drop(atomic_exchange_explicit(&known[at], type, memory_order_acq_rel));
}

static bool has_text(const struct dora_type *type, const char *text, size_t size)
{
    return type->size == size && memcmp(type->text, text, size) == 0;
}

/* Return the known type of a description or, without one, of a schema; NULL if there is none. The
   caller is one of its users. */
static struct dora_type *find_type(const struct ArrowSchema *schema, const char *text, size_t size)
{
    for (size_t at = 0; at < KNOWN_TYPES; at++) {
        struct dora_type *type = take(at);
        if (type == NULL)
            continue;
        bool same = text != NULL ? has_text(type, text, size) : dora_type_is(type, schema);
        if (same)
            dora_type_use(type);
        put(at, type);
        if (same)
            return type;
    }
    return NULL;
}

/* Return the type of a description, which is known from now on; NULL if it is malformed. */
static struct dora_type *new_type(const char *text, size_t size)
{
    static atomic_size_t oldest;
    struct dora_type *type = dora_type_new(text, size);
    if (type != NULL)
        put(atomic_fetch_add_explicit(&oldest, 1, memory_order_relaxed) % KNOWN_TYPES,
            dora_type_use(type));
    return type;
}

/* -- to send ----------------------------------------------------------------------------------- */

/* Return whether a schema's metadata name an extension type. */
static bool is_extension(const char *metadata)
{
    static const char key[] = "ARROW:extension:name";
    int32_t pairs, size;
    if (metadata == NULL)
        return false;
    memcpy(&pairs, metadata, sizeof pairs);
    metadata += sizeof pairs;
    for (; pairs > 0; pairs--)
        for (int part = 0; part < 2; part++) {
            memcpy(&size, metadata, sizeof size);
            metadata += sizeof size;
            if (part == 0 && size == sizeof key - 1 && memcmp(metadata, key, sizeof key - 1) == 0)
                return true;
            metadata += size;
        }
    return false;
}

/* Return the type of a schema, with one user more; NULL if its arrays need a stream. */
static struct dora_type *describe(const struct ArrowSchema *schema)
{
    struct dora_type *type = find_type(schema, NULL, 0);
    if (type != NULL)
        return type;
    char *text = must(malloc(MAX_TYPE_SIZE));
    size_t size = dora_type_write(schema, text);
    type = size > 0 ? new_type(text, size) : NULL;
    free(text);
    return type;
}

int format_encode(const struct ArrowSchema *schema, const struct ArrowArray *array,
                  struct content *content)
{
    *content = (struct content){.code = CODE_NESTED};
    if (schema == NULL || array == NULL || schema->format == NULL || schema->release == NULL ||
        array->release == NULL || array->length < 0)
        return fail("the array is not valid, or was released");
    struct dora_type plain, *described = NULL;
    if (schema->format[0] == '+' || schema->dictionary != NULL || is_extension(schema->metadata) ||
        !dora_type_of_format(schema->format, &plain, &content->code)) {
        described = describe(schema);
        if (described == NULL)
            return fail("an array of type `%s` cannot be sent from C: unions, views, run-end "
                        "encoding, and types of more than %d fields or %d levels cannot",
                        schema->format, MAX_TYPE_NODES, MAX_TYPE_DEPTH);
    }
    struct dora_written *written = &content->written;
    const char *wrong = dora_array_write(described != NULL ? described : &plain, array, written);
    content->type = described; /* the payload begins with its description */
    if (wrong != NULL)
        return fail("an array of type `%s` cannot be sent: %s", schema->format, wrong);
    content->length = written->length;
    content->nulls = written->nulls;
    content->size = written->size;
    if (written->count == 1) {
        content->parts[0] = written->parts[0];
        content->count = 1;
    }
    return 0;
}

void content_free(struct content *content)
{
    dora_written_free(&content->written);
    dora_type_drop(content->type);
}

/* -- on arrival -------------------------------------------------------------------------------- */

static void drop(void *borrow)
{
    borrow_drop(borrow);
}

/* Return whether a payload is the values alone, which stay in shared memory whatever their size. */
static bool is_bare(const struct dora_type *type, const struct dora_entry *entry)
{
    return type->size == 0 && type->nodes[0].kind == DORA_FIXED && entry->nulls == 0;
}

static int decode(struct dora_type *type, struct event *event, struct dora_payload *payload,
                  struct ArrowSchema *schema, struct ArrowArray *array)
{
    if (event->payload != NULL && (is_bare(type, &event->entry) || payload->size > SMALL_PAYLOAD)) {
        payload->owner = borrow_use(event->payload);
        payload->drop = drop;
    }
    const char *wrong = dora_array_read(type, payload, array);
    if (wrong != NULL) {
        borrow_drop(payload->owner);
        return fail("%s", wrong);
    }
    if (dora_type_export(type, schema))
        return 0;
    array->release(array);
    return fail("there is no memory for its type");
}

int format_decode(struct event *event, struct ArrowSchema *schema, struct ArrowArray *array)
{
    const struct dora_entry *entry = &event->entry;
    struct dora_payload payload = {.data = event->data,
                                   .size = entry->size,
                                   .length = entry->length,
                                   .nulls = entry->nulls,
                                   .shared = event->payload != NULL};
    struct dora_type plain;
    if (event->is_tick)
        payload = (struct dora_payload){.data = ""};
    if (dora_type_of_code(event->is_tick ? CODE_NULL : entry->code, &plain))
        return decode(&plain, event, &payload, schema, array);
    if (entry->code == CODE_IPC)
        return fail("it is a union, a view or run-end encoded, or its type has more than %d fields or "
                    "a name of more than 255 bytes, which nodes in C cannot read",
                    MAX_TYPE_NODES);
    if (entry->code != CODE_NESTED)
        return fail("it has the unknown type code %d", entry->code);
    size_t size;
    const char *text = dora_payload_type(&payload, &size);
    struct dora_type *type = text == NULL ? NULL : find_type(NULL, text, size);
    if (type == NULL && text != NULL)
        type = new_type(text, size);
    if (type == NULL)
        return fail("its type is malformed, or has more than %d fields or %d levels", MAX_TYPE_NODES,
                    MAX_TYPE_DEPTH);
    int result = decode(type, event, &payload, schema, array);
    dora_type_drop(type);
    return result;
}
