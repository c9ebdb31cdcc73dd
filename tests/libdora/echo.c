/* Sends every array back, with its metadata. Options: "hold N" keeps the last N events. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments)
{
    size_t hold = count > 1 ? (size_t)atoi(arguments[1]) : 0, held = 0;
    void **events = calloc(hold + 1, sizeof *events);
    void *context = init_dora_context_from_env();
    if (context == NULL)
        return 1;
    void *event;
    while ((event = dora_next_event(context)) != NULL) {
        struct ArrowSchema schema;
        struct ArrowArray array;
        if (strcmp(dora_event_name(event), "ERROR") == 0)
            printf("ERROR %s\n", dora_event_text(event));
        if (read_dora_event_type(event) == DoraEventType_Input) {
            if (dora_event_arrow(event, &schema, &array) < 0) {
                printf("unreadable: %s\n", dora_last_error());
                dora_send_bytes(context, "out", "unreadable", 10, dora_event_metadata(event));
            } else {
                if (dora_send_arrow(context, "out", &schema, &array, dora_event_metadata(event)) < 0)
                    printf("unsent: %s\n", dora_last_error());
                array.release(&array);
                schema.release(&schema);
            }
        }
        if (hold == 0) {
            free_dora_event(event);
            continue;
        }
        free_dora_event(events[held % hold]);
        events[held++ % hold] = event;
    }
    for (size_t at = 0; at < hold; at++)
        free_dora_event(events[at]);
    free(events);
    free_dora_context(context);
    return 0;
}
