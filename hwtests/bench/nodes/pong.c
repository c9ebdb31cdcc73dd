/* Answers every message with 8 bytes; as pong.py. It reads arrays before, as nodes in Python do. */

#include "bench_node.h"

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    char draft[4096];
    const char *source = getenv("BENCH_SOURCE");
    bool is_nested = source != NULL && strcmp(source, "nested") == 0;
    long answered = 0;
    if (context == NULL)
        return 1;
    while ((event = dora_next_event(context)) != NULL) {
        if (read_dora_event_type(event) == DoraEventType_Input) {
            struct ArrowSchema schema;
            struct ArrowArray array;
            if (is_nested && dora_event_arrow(event, &schema, &array) < 0)
                return 2;
            dora_send_bytes(context, "pong", "12345678", 8, NULL);
            answered++;
            if (is_nested) {
                array.release(&array);
                schema.release(&schema);
            }
        }
        free_dora_event(event);
    }
    FILE *report = begin_report(draft, sizeof draft);
    fprintf(report, "{\"answered\": %ld}\n", answered);
    finish_report(report, draft);
    free_dora_context(context);
    return 0;
}
