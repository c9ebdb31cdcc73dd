/* Doubles arrays of 64-bit floats. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void keep_schema(struct ArrowSchema *schema) { schema->release = NULL; }
static void keep_array(struct ArrowArray *array) { array->release = NULL; }

/* Send the doubled values of an array of doubles, with the languages that it has passed. */
static int send_doubled(void *context, void *event, const struct ArrowArray *array)
{
    size_t count = (size_t)array->length;
    const double *values = (const double *)array->buffers[1] + array->offset;
    double *doubled = malloc((count ? count : 1) * sizeof *doubled);
    if (doubled == NULL)
        return -1;
    for (size_t at = 0; at < count; at++)
        doubled[at] = 2 * values[at];
    const void *buffers[] = {NULL, doubled};
    struct ArrowSchema type = {.format = "g", .name = "", .release = keep_schema};
    struct ArrowArray sent = {
        .length = array->length, .n_buffers = 2, .buffers = buffers, .release = keep_array};
    const char *languages[] = {
        dora_metadata_get_string_at(dora_event_metadata(event), "languages", 0), "c"};
    DoraMetadata *metadata = dora_metadata_new();
    dora_metadata_set_strings(metadata, "languages", languages, 2);
    int result = dora_send_arrow(context, "numbers", &type, &sent, metadata);
    dora_metadata_free(metadata);
    free(doubled);
    return result;
}

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    int failed = context == NULL; /* the reason was printed */
    while (!failed && (event = dora_next_event(context)) != NULL) {
        struct ArrowSchema type;
        struct ArrowArray array;
        if (read_dora_event_type(event) == DoraEventType_Input) {
            failed = dora_event_arrow(event, &type, &array) < 0;
            if (!failed) {
                failed = strcmp(type.format, "g") != 0 || send_doubled(context, event, &array) < 0;
                array.release(&array);
                type.release(&type);
            }
        }
        free_dora_event(event);
    }
    free_dora_context(context);
    return failed;
}
