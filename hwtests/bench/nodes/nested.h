/* What most nodes send, by its size: the arrays of `nested` of bench_node.py. They live as long as
   the process. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 128, BOXES = 1000 };

/* An array with its type. */
struct column {
    struct ArrowSchema schema;
    struct ArrowArray array;
    const void *buffers[3];
    struct ArrowSchema *schemas[MAX_COLUMNS];
    struct ArrowArray *arrays[MAX_COLUMNS];
};

static void keep_schema(struct ArrowSchema *schema)
{
    schema->release = NULL;
}

static void keep_array(struct ArrowArray *array)
{
    array->release = NULL;
}

static struct column *new_column(const char *format, const char *name, int64_t length,
                                 int64_t buffers)
{
    struct column *column = calloc(1, sizeof *column);
    column->schema = (struct ArrowSchema){.format = format,
                                          .name = name,
                                          .flags = ARROW_FLAG_NULLABLE,
                                          .children = column->schemas,
                                          .release = keep_schema};
    column->array = (struct ArrowArray){.length = length,
                                        .n_buffers = buffers,
                                        .buffers = column->buffers,
                                        .children = column->arrays,
                                        .release = keep_array};
    return column;
}

static void add_child(struct column *parent, struct column *child)
{
    parent->schemas[parent->schema.n_children++] = &child->schema;
    parent->arrays[parent->array.n_children++] = &child->array;
}

/* A column of numbers of 8 bytes, all of them zero. */
static struct column *numbers_of(const char *format, const char *name, int64_t length)
{
    struct column *column = new_column(format, name, length, 2);
    column->buffers[1] = calloc((size_t)length, 8);
    return column;
}

static int32_t *offsets_of(int64_t length, int32_t each)
{
    int32_t *offsets = calloc((size_t)length + 1, sizeof *offsets);
    for (int64_t at = 0; at <= length; at++)
        offsets[at] = (int32_t)at * each;
    return offsets;
}

/* A column of the same text again and again. */
static struct column *texts_of(const char *name, int64_t length, const char *text)
{
    struct column *column = new_column("u", name, length, 3);
    size_t size = strlen(text);
    char *bytes = malloc((size_t)length * size);
    for (int64_t at = 0; at < length; at++)
        memcpy(bytes + (size_t)at * size, text, size);
    column->buffers[1] = offsets_of(length, (int32_t)size);
    column->buffers[2] = bytes;
    return column;
}

/* One list of all items of a column. */
static struct column *list_of(const char *name, struct column *items)
{
    struct column *column = new_column("+l", name, 1, 2);
    items->schema.name = "item";
    column->buffers[1] = offsets_of(1, (int32_t)items->array.length);
    add_child(column, items);
    return column;
}

static struct column *boxes(void)
{
    struct column *box = new_column("+s", "", BOXES, 1);
    const char *const sides[] = {"x", "y", "w", "h"};
    for (int at = 0; at < 4; at++)
        add_child(box, numbers_of("g", sides[at], BOXES));
    add_child(box, texts_of("label", BOXES, "person"));
    add_child(box, numbers_of("l", "id", BOXES));
    return list_of("", box);
}

static struct column *picture(size_t size)
{
    struct column *image = new_column("+s", "", 1, 1), *data;
    add_child(image, numbers_of("l", "width", 1));
    add_child(image, numbers_of("l", "height", 1));
    add_child(image, texts_of("encoding", 1, "rgb8"));
    add_child(image, numbers_of("g", "stamp", 1));
    data = new_column("C", "", (int64_t)size, 2);
    data->buffers[1] = calloc(1, size);
    add_child(image, list_of("data", data));
    return image;
}

static inline struct column *nested(size_t size)
{
    if (size == 100) {
        char text[101] = {0};
        return texts_of("", 1, memset(text, 'x', 100));
    }
    if (size == 44000)
        return boxes();
    if (size >= 1 << 20)
        return picture(size);
    struct column *record = new_column("+s", "", 1, 1);
    for (size_t at = 0; at < size / 8 && at < MAX_COLUMNS; at++) {
        char *name = malloc(16);
        snprintf(name, 16, "value%zu", at);
        add_child(record, numbers_of("g", name, 1));
    }
    return record;
}
