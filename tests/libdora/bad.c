/* Tries to send arrays that cannot be sent, and prints what it is told. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 1000, FIELDS = 10000 };

static void keep_schema(struct ArrowSchema *schema)
{
    schema->release = NULL;
}

static void keep_array(struct ArrowArray *array)
{
    array->release = NULL;
}

static struct ArrowSchema schema_of(const char *format, int64_t children)
{
    return (struct ArrowSchema){.format = format,
                                .name = "",
                                .n_children = children,
                                .children = calloc((size_t)children + 1, sizeof(void *)),
                                .release = keep_schema};
}

static struct ArrowArray array_of(int64_t length, int64_t buffers, int64_t children)
{
    return (struct ArrowArray){.length = length,
                               .n_buffers = buffers,
                               .n_children = children,
                               .buffers = calloc((size_t)buffers + 1, sizeof(void *)),
                               .children = calloc((size_t)children + 1, sizeof(void *)),
                               .release = keep_array};
}

static void *context;

static void try_to_send(const char *what, const struct ArrowSchema *schema,
                        const struct ArrowArray *array)
{
    int result = dora_send_arrow(context, "out", schema, array, NULL);
    printf("%s: %d %s\n", what, result, result < 0 ? dora_last_error() : "sent");
}

int main(void)
{
    static const int32_t good[] = {0, 1, 2, 3}, backwards[] = {0, 2, 1, 3}, below[] = {-1, 1, 2, 3};
    static const char letters[] = "abc";
    static struct ArrowSchema levels[LEVELS + 1];
    static struct ArrowArray items[LEVELS + 1];
    context = init_dora_context_from_env();
    if (context == NULL)
        return 1;
    for (int at = LEVELS; at >= 0; at--) {
        bool leaf = at == LEVELS;
        levels[at] = schema_of(leaf ? "n" : "+l", leaf ? 0 : 1);
        items[at] = array_of(1, leaf ? 0 : 2, leaf ? 0 : 1);
        if (leaf)
            continue;
        items[at].buffers[1] = good;
        levels[at].children[0] = &levels[at + 1];
        items[at].children[0] = &items[at + 1];
    }
    try_to_send("levels", levels, items);
    struct ArrowSchema wide = schema_of("+s", FIELDS);
    struct ArrowArray record = array_of(1, 1, FIELDS);
    for (int at = 0; at < FIELDS; at++) {
        wide.children[at] = &levels[LEVELS];
        record.children[at] = &items[LEVELS];
    }
    try_to_send("fields", &wide, &record);
    struct ArrowSchema text = schema_of("u", 0);
    struct ArrowArray texts = array_of(3, 3, 0);
    texts.buffers[1] = backwards;
    texts.buffers[2] = letters;
    try_to_send("backwards", &text, &texts);
    texts.buffers[1] = below;
    try_to_send("negative", &text, &texts);
    texts.buffers[1] = NULL;
    try_to_send("no offsets", &text, &texts);
    texts.length = -1;
    try_to_send("length", &text, &texts);
    texts = array_of(3, 2, 0);
    try_to_send("buffers", &text, &texts);
    struct ArrowSchema unknown = schema_of("?", 0);
    try_to_send("format", &unknown, &texts);
    try_to_send("nothing", NULL, &texts);
    texts.release = NULL;
    try_to_send("released", &text, &texts);
    texts = array_of(3, 3, 0);
    texts.buffers[1] = good;
    texts.buffers[2] = letters;
    try_to_send("right", &text, &texts);
    printf("sizeof: %d\n", dora_send_output(context, "out", sizeof "out", "abc", 3));
    printf("longer: %d\n", dora_send_output(context, "output", 6, "abc", 3));
    free_dora_context(context);
    return 0;
}
