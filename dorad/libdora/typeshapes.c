/* Compare the type of a message with a shape; see dorad/node/typeshapes.py. */

#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 64

static const char *plain_name(const char *format)
{
    static const char *const names[][2] = {
        {"n", "Null"},    {"b", "Boolean"}, {"c", "Int8"},    {"C", "UInt8"},   {"s", "Int16"},
        {"S", "UInt16"},  {"i", "Int32"},   {"I", "UInt32"},  {"l", "Int64"},   {"L", "UInt64"},
        {"e", "Float16"}, {"f", "Float32"}, {"g", "Float64"}, {"u", "Utf8"},    {"U", "LargeUtf8"},
        {"vu", "Utf8"},   {"z", "Binary"},  {"vz", "Binary"}, {"Z", "LargeBinary"},
        {"tdD", "Date32"}, {"tdm", "Date64"}, {"+s", "Struct"},
    };
    for (size_t at = 0; at < sizeof names / sizeof *names; at++)
        if (strcmp(format, names[at][0]) == 0)
            return names[at][1];
    return strncmp(format, "ts", 2) == 0   ? "Timestamp"
           : strncmp(format, "tD", 2) == 0 ? "Duration"
           : strncmp(format, "w:", 2) == 0 ? "Binary"
                                           : NULL;
}

static bool is_list(const struct ArrowSchema *schema)
{
    const char *format = schema->format;
    return schema->dictionary == NULL && schema->n_children == 1 &&
           (strcmp(format, "+l") == 0 || strcmp(format, "+L") == 0 ||
            strncmp(format, "+w:", 3) == 0 || strcmp(format, "+vl") == 0 ||
            strcmp(format, "+vL") == 0);
}

static void arrow_name(const struct ArrowSchema *schema, int depth, char *into, size_t size)
{
    char inner[100];
    const char *name = plain_name(schema->format);
    if (is_list(schema) && depth < 4) {
        arrow_name(schema->children[0], depth + 1, inner, sizeof inner);
        snprintf(into, size, "List<%s>", inner);
    } else
        snprintf(into, size, "%s",
                 schema->dictionary != NULL ? "dictionary" : name != NULL ? name : schema->format);
}

static void display_name(const struct json *shape, int depth, char *into, size_t size)
{
    char inner[100];
    const struct json *item = json_get(shape, "list");
    if (shape->type == JSON_STRING)
        snprintf(into, size, "%s", shape->string.at);
    else if (item != NULL && depth < 4) {
        display_name(item, depth + 1, inner, sizeof inner);
        snprintf(into, size, "List<%s>", inner);
    } else
        snprintf(into, size, "Struct");
}

/* Large and small offsets are one type. */
static bool same_name(const char *expected, const char *actual)
{
    expected += strncmp(expected, "Large", 5) == 0 ? 5 : 0;
    actual += strncmp(actual, "Large", 5) == 0 ? 5 : 0;
    return strcmp(expected, actual) == 0;
}

/* Return whether items of an array are null. */
static bool has_nulls(const struct ArrowArray *array, int64_t from, int64_t count)
{
    const uint8_t *validity = array->n_buffers > 0 ? array->buffers[0] : NULL;
    if (validity == NULL || array->null_count == 0)
        return false;
    for (int64_t at = array->offset + from; at < array->offset + from + count; at++)
        if (!(validity[at / 8] >> (at % 8) & 1))
            return true;
    return false;
}

static bool differs(struct mismatch *wrong, const char *field, const struct json *shape,
                    const struct ArrowSchema *schema)
{
    snprintf(wrong->field, sizeof wrong->field, "%s", field);
    display_name(shape, 0, wrong->expected, sizeof wrong->expected);
    arrow_name(schema, 0, wrong->actual, sizeof wrong->actual);
    return true;
}

/* The items of an array that are compared; no array for a list whose items cannot be named. */
struct slice {
    const struct ArrowSchema *schema;
    const struct ArrowArray *array;
    int64_t from, count;
};

static bool compare(const struct json *shape, struct slice part, const char *path, int depth,
                    struct mismatch *wrong);

static struct slice items_of(struct slice list)
{
    struct slice items = {list.schema->children[0], NULL, 0, 0};
    const char *format = list.schema->format;
    int64_t from = list.from, until = list.from + list.count;
    if (list.array == NULL || list.array->n_children != 1)
        return items;
    from += list.array->offset;
    until += list.array->offset;
    if (strncmp(format, "+w:", 3) == 0) {
        int64_t each = atoll(format + 3);
        items.from = from * each;
        items.count = (until - from) * each;
    } else if ((format[1] == 'l' || format[1] == 'L') && list.array->n_buffers == 2 &&
               list.array->buffers[1] != NULL) {
        const int32_t *narrow = list.array->buffers[1];
        const int64_t *wide = list.array->buffers[1];
        items.from = format[1] == 'l' ? narrow[from] : wide[from];
        items.count = (format[1] == 'l' ? narrow[until] : wide[until]) - items.from;
    } else
        return items;
    items.array = list.array->children[0];
    return items;
}

static int64_t field_named(const struct ArrowSchema *schema, const char *name, int *count)
{
    int64_t found = -1;
    *count = 0;
    for (int64_t at = 0; at < schema->n_children; at++)
        if (schema->children[at]->name != NULL && strcmp(schema->children[at]->name, name) == 0) {
            found = at;
            ++*count;
        }
    return found;
}

static bool compare_fields(const struct json *fields, struct slice part, const char *path, int depth,
                           struct mismatch *wrong)
{
    char inner[256];
    for (const struct json *each = fields->items.first; each != NULL; each = each->next) {
        const struct json *name = each->type == JSON_LIST ? each->items.first : NULL;
        const struct json *shape = name == NULL ? NULL : name->next;
        const struct json *nullable = shape == NULL ? NULL : shape->next;
        if (nullable == NULL || name->type != JSON_STRING)
            continue;
        int count;
        int64_t at = field_named(part.schema, name->string.at, &count);
        snprintf(inner, sizeof inner, "%s%s%s", path, *path ? "." : "", name->string.at);
        if (count != 1) {
            snprintf(wrong->field, sizeof wrong->field, "%s", inner);
            display_name(shape, 0, wrong->expected, sizeof wrong->expected);
            snprintf(wrong->actual, sizeof wrong->actual, "%s",
                     count > 1 ? "several of that name" : "no field");
            return true;
        }
        struct slice field = {part.schema->children[at], NULL, 0, part.count};
        if (part.array != NULL && part.array->n_children == part.schema->n_children) {
            field.array = part.array->children[at];
            field.from = part.array->offset + part.from;
        }
        if (compare(shape, field, inner, depth + 1, wrong))
            return true;
        if (nullable->type == JSON_BOOL && !nullable->truth && field.array != NULL &&
            has_nulls(field.array, field.from, field.count)) {
            snprintf(wrong->field, sizeof wrong->field, "%s", inner);
            snprintf(wrong->expected, sizeof wrong->expected, "no nulls");
            snprintf(wrong->actual, sizeof wrong->actual, "nulls");
            return true;
        }
    }
    for (int64_t at = 0; at < part.schema->n_children; at++) {
        const struct ArrowSchema *child = part.schema->children[at];
        bool known = false;
        for (const struct json *each = fields->items.first; each != NULL; each = each->next) {
            const struct json *name = each->type == JSON_LIST ? each->items.first : NULL;
            known = known || (name != NULL && name->type == JSON_STRING && child->name != NULL &&
                              strcmp(name->string.at, child->name) == 0);
        }
        if (!known) {
            snprintf(wrong->field, sizeof wrong->field, "%s%s%s", path, *path ? "." : "",
                     child->name ? child->name : "");
            snprintf(wrong->expected, sizeof wrong->expected, "no field");
            arrow_name(child, 0, wrong->actual, sizeof wrong->actual);
            return true;
        }
    }
    return false;
}

static bool compare(const struct json *shape, struct slice part, const char *path, int depth,
                    struct mismatch *wrong)
{
    const struct ArrowSchema *schema = part.schema;
    const char *name = plain_name(schema->format);
    const struct json *item = json_get(shape, "list"), *fields = json_get(shape, "fields");
    if (depth > MAX_DEPTH)
        return differs(wrong, path, shape, schema);
    if (shape->type == JSON_STRING)
        return (name == NULL || schema->dictionary != NULL || !same_name(shape->string.at, name)) &&
               differs(wrong, path, shape, schema);
    if (item != NULL) {
        char inner[256];
        snprintf(inner, sizeof inner, "%s[]", path);
        return is_list(schema) ? compare(item, items_of(part), inner, depth + 1, wrong)
                               : differs(wrong, path, shape, schema);
    }
    if (strcmp(schema->format, "+s") != 0 || schema->dictionary != NULL)
        return differs(wrong, path, shape, schema);
    return fields != NULL && fields->type == JSON_LIST &&
           compare_fields(fields, part, path, depth, wrong);
}

bool shapes_differ(const struct json *port, const struct ArrowSchema *schema,
                   const struct ArrowArray *array, struct mismatch *first)
{
    const struct json *shapes = json_get(port, "accepts");
    size_t tried = 0, used = 0;
    char either[sizeof first->expected] = "";
    if (shapes == NULL || shapes->type != JSON_LIST)
        return false;
    for (const struct json *shape = shapes->items.first; shape != NULL; shape = shape->next) {
        struct mismatch wrong;
        /* A message of bytes may be UInt8: that is what sending bytes makes of them. */
        if (shape->type == JSON_STRING && same_name("Binary", shape->string.at) &&
            strcmp(schema->format, "C") == 0)
            return false;
        if (!compare(shape, (struct slice){schema, array, 0, array->length}, "", 0, &wrong))
            return false;
        if (tried++ == 0)
            *first = wrong;
        char name[100];
        display_name(shape, 0, name, sizeof name);
        if (used < sizeof either - 1)
            used += (size_t)snprintf(either + used, sizeof either - used, "%s%s",
                                     used ? " or " : "", name);
    }
    if (tried > 1 && first->field[0] == 0)
        memcpy(first->expected, either, sizeof either);
    return tried > 0;
}
