/* Types as the application has them: `ArrowSchema`s that are compared and exported, and those that need
   no description. */

#include "arrays.h"

#include <stdlib.h>
#include <string.h>

/* -- comparison -------------------------------------------------------------------------------- */

/* As strcmp, for texts that are one letter most of the time. */
static bool is_same_format(const char *one, const char *other)
{
    return one[0] == other[0] &&
           (one[0] == 0 || (one[1] == other[1] && (one[1] == 0 || strcmp(one, other) == 0)));
}

static bool is_node(const struct dora_type *type, size_t *at, const struct ArrowSchema *schema)
{
    if (*at == type->count)
        return false;
    const struct dora_node *node = &type->nodes[(*at)++];
    if (schema->format == NULL || !is_same_format(schema->format, node->format) ||
        strcmp(schema->name != NULL ? schema->name : "", node->name) != 0 ||
        (schema->flags & ARROW_FLAGS) != node->flags || schema->n_children != node->children ||
        (schema->dictionary != NULL) != node->dictionary ||
        (schema->metadata != NULL) != (node->metadata != NULL))
        return false;
    if (node->metadata != NULL &&
        (dora_metadata_size(schema->metadata) != node->metadata_size ||
         memcmp(schema->metadata, node->metadata, node->metadata_size) != 0))
        return false;
    for (int64_t each = 0; each < schema->n_children; each++)
        if (!is_node(type, at, schema->children[each]))
            return false;
    return !node->dictionary || is_node(type, at, schema->dictionary);
}

bool dora_type_is(const struct dora_type *type, const struct ArrowSchema *schema)
{
    size_t at = 0;
    return is_node(type, &at, schema) && at == type->count;
}

/* -- types without a description --------------------------------------------------------------- */

#define FORM(letters, ...)                                                                         \
    {                                                                                              \
        .format = letters, .name = "", .flags = ARROW_FLAG_NULLABLE, __VA_ARGS__                   \
    }
#define FIXED(bits) .kind = DORA_FIXED, .width = (bits)

static struct dora_form {
    uint8_t code;
    struct dora_node node;
} forms[] = {
    {CODE_NULL, FORM("n", .kind = DORA_NULLS)},
    {CODE_INT8, FORM("c", FIXED(8))},
    {CODE_INT16, FORM("s", FIXED(16))},
    {CODE_INT32, FORM("i", FIXED(32))},
    {CODE_INT64, FORM("l", FIXED(64))},
    {CODE_UINT8, FORM("C", FIXED(8))},
    {CODE_UINT16, FORM("S", FIXED(16))},
    {CODE_UINT32, FORM("I", FIXED(32))},
    {CODE_UINT64, FORM("L", FIXED(64))},
    {CODE_FLOAT16, FORM("e", FIXED(16))},
    {CODE_FLOAT32, FORM("f", FIXED(32))},
    {CODE_FLOAT64, FORM("g", FIXED(64))},
    {CODE_DATE32, FORM("tdD", FIXED(32))},
    {CODE_DATE64, FORM("tdm", FIXED(64))},
    {CODE_BOOL, FORM("b", FIXED(1))},
    {CODE_STRING, FORM("u", .kind = DORA_BYTES)},
    {CODE_BINARY, FORM("z", .kind = DORA_BYTES)},
    {CODE_LARGE_STRING, FORM("U", .kind = DORA_BYTES, .wide = true)},
    {CODE_LARGE_BINARY, FORM("Z", .kind = DORA_BYTES, .wide = true)},
};
#define FORMS (sizeof forms / sizeof *forms)

static void set_form(struct dora_type *type, struct dora_form *form)
{
    *type = (struct dora_type){.count = 1, .nodes = &form->node};
}

bool dora_type_of_code(uint8_t code, struct dora_type *type)
{
    for (size_t at = 0; at < FORMS; at++)
        if (forms[at].code == code) {
            set_form(type, &forms[at]);
            return true;
        }
    return false;
}

bool dora_type_of_format(const char *format, struct dora_type *type, uint8_t *code)
{
    for (size_t at = 0; at < FORMS; at++)
        if (is_same_format(forms[at].node.format, format)) {
            *code = forms[at].code;
            set_form(type, &forms[at]);
            return true;
        }
    return false;
}

/* -- for the application ----------------------------------------------------------------------- */

/* What an exported type consists of; one for all nodes, which count their uses. Its strings are the
   type's. */
struct exported {
    atomic_size_t uses;
    struct dora_type *type; /* NULL if it needs no description: its strings are constants */
    struct ArrowSchema **pointers;
    struct ArrowSchema schemas[];
};

static void release_schema(struct ArrowSchema *schema);

/* As for arrays. */
static size_t mark_released(struct ArrowSchema *schema, const struct exported *exported)
{
    size_t count = 1;
    if (schema->release == NULL)
        return 0;
    if (schema->release != release_schema || schema->private_data != exported) {
        schema->release(schema);
        return 0;
    }
    for (int64_t at = 0; at < schema->n_children; at++)
        count += mark_released(schema->children[at], exported);
    if (schema->dictionary != NULL)
        count += mark_released(schema->dictionary, exported);
    schema->release = NULL;
    return count;
}

/* Called by any thread. */
static void release_schema(struct ArrowSchema *schema)
{
    struct exported *exported = schema->private_data;
    size_t count = mark_released(schema, exported);
    if (atomic_fetch_sub_explicit(&exported->uses, count, memory_order_acq_rel) > count)
        return;
    dora_type_drop(exported->type);
    free(exported);
}

/* Export a node of a type and all below it. */
static void export_node(struct exported *exported, const struct dora_type *type, size_t *at)
{
    const struct dora_node *node = &type->nodes[*at];
    struct ArrowSchema *schema = &exported->schemas[(*at)++];
    *schema = (struct ArrowSchema){.format = node->format,
                                   .name = node->name,
                                   .metadata = node->metadata,
                                   .flags = node->flags,
                                   .n_children = node->children,
                                   .children = exported->pointers,
                                   .release = release_schema,
                                   .private_data = exported};
    exported->pointers += node->children;
    for (uint32_t each = 0; each < node->children; each++) {
        schema->children[each] = &exported->schemas[*at];
        export_node(exported, type, at);
    }
    if (node->dictionary) {
        schema->dictionary = &exported->schemas[*at];
        export_node(exported, type, at);
    }
}

bool dora_type_export(struct dora_type *type, struct ArrowSchema *schema)
{
    size_t at = 0, count = type->count;
    struct exported *exported =
        malloc(sizeof *exported + count * (sizeof *schema + sizeof(struct ArrowSchema *)));
    if (exported == NULL)
        return false;
    atomic_init(&exported->uses, count);
    exported->type = type->size > 0 ? dora_type_use(type) : NULL;
    exported->pointers = (struct ArrowSchema **)(exported->schemas + count);
    export_node(exported, type, &at);
    *schema = exported->schemas[0];
    return true;
}
