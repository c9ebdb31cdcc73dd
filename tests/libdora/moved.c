/* Moves children of a received array and of its type away, as importers may, and reads them after all
   else is released. Its type is known from the message before, or pushed out by others meanwhile. */

#include <dora/testing.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t numbers[] = {1, 2, 3};
static const void *plain[] = {NULL, numbers}, *none[] = {NULL};

static void keep_schema(struct ArrowSchema *schema)
{
    schema->release = NULL;
}

static void keep_array(struct ArrowArray *array)
{
    array->release = NULL;
}

static void expect(bool right, const char *what)
{
    if (right)
        return;
    printf("failed: %s: %s\n", what, dora_last_error());
    exit(2);
}

/* Receive a struct of two columns, whose first one has this name. */
static void receive(void *context, const char *name, struct ArrowSchema *schema,
                    struct ArrowArray *array)
{
    struct ArrowSchema first = {.format = "l", .name = name, .release = keep_schema}, second = first;
    struct ArrowSchema *schemas[] = {&first, &second};
    struct ArrowSchema type = {
        .format = "+s", .n_children = 2, .children = schemas, .release = keep_schema};
    struct ArrowArray one = {.length = 3, .n_buffers = 2, .buffers = plain, .release = keep_array};
    struct ArrowArray other = one, *arrays[] = {&one, &other};
    struct ArrowArray whole = {.length = 3,
                               .n_buffers = 1,
                               .n_children = 2,
                               .buffers = none,
                               .children = arrays,
                               .release = keep_array};
    second.name = "second";
    expect(dora_mock_input_arrow(context, "in", &type, &whole, NULL) == 0, "an input");
    void *event = dora_next_event(context);
    expect(dora_event_arrow(event, schema, array) == 0, "an array");
    free_dora_event(event);
}

static void move_and_read(void *context, const char *name, bool push_out)
{
    struct ArrowSchema schema, type, filler_type;
    struct ArrowArray array, column, filler;
    receive(context, name, &schema, &array);
    type = *schema.children[0];
    schema.children[0]->release = NULL;
    column = *array.children[1];
    array.children[1]->release = NULL;
    array.release(&array);
    schema.release(&schema);
    expect(array.release == NULL && schema.release == NULL, "both are released");
    for (int at = 0; push_out && at < 40; at++) {
        char other[24];
        snprintf(other, sizeof other, "other%d", at);
        receive(context, other, &filler_type, &filler);
        expect(strcmp(filler_type.children[0]->name, other) == 0, "its own name");
        filler.release(&filler);
        filler_type.release(&filler_type);
    }
    expect(strcmp(type.name, name) == 0 && strcmp(type.format, "l") == 0, "the type that was moved");
    expect(memcmp(column.buffers[1], numbers, sizeof numbers) == 0, "the column that was moved");
    type.release(&type);
    column.release(&column);
}

int main(void)
{
    void *context = dora_mock_new("moved");
    for (int round = 0; round < 3; round++) {
        move_and_read(context, "first", round == 1);
        move_and_read(context, "another", false);
    }
    free_dora_context(context);
    return 0;
}
