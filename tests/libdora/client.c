/* Calls services and sends goals, and prints what comes of them. */

#include <dora/node_api.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *context;

static void print_reply(int result, void *event)
{
    char *data = NULL;
    size_t size = 0;
    if (event != NULL)
        read_dora_input_data(event, &data, &size);
    printf("%d %.*s%s%s\n", result, (int)size, data == NULL ? "" : data, result < 0 ? " " : "",
           result < 0 ? dora_last_error() : "");
    free_dora_event(event);
}

static void call(const char *text, int timeout_ms)
{
    void *event;
    int result = dora_call(context, "request", text, strlen(text), NULL, timeout_ms, &event);
    print_reply(result, event);
}

static void send_goal(const char *steps, int cancel_after)
{
    char id[37];
    DoraMetadata *metadata = dora_metadata_new();
    if (dora_new_goal(context, "goal", metadata, id) < 0) {
        print_reply(-1, NULL);
        return;
    }
    dora_send_bytes(context, "goal", steps, strlen(steps), metadata);
    int result, count = 0;
    void *event;
    while ((result = dora_wait_reply(context, id, 20000, &event)) == 0) {
        const char *status =
            dora_metadata_get_string(dora_event_metadata(event), "goal_status");
        printf("%s %s ", dora_event_id(event), status == NULL ? "-" : status);
        print_reply(0, event);
        if (status != NULL)
            break;
        if (++count == cancel_after) {
            DoraMetadata *cancel = dora_metadata_new();
            dora_metadata_set_string(cancel, "goal_id", id);
            dora_send_bytes(context, "cancel", "", 0, cancel);
            dora_metadata_free(cancel);
        }
    }
    if (result < 0)
        print_reply(result, event);
    dora_metadata_free(metadata);
}

int main(int count, char **arguments)
{
    context = init_dora_context_from_env();
    if (context == NULL)
        return 1;
    for (int at = 1; at < count; at++) {
        char *argument = arguments[at], *value = strchr(argument, '=');
        if (value != NULL)
            *value++ = 0;
        if (strcmp(argument, "call") == 0)
            call(value, 20000);
        else if (strcmp(argument, "hurry") == 0)
            call(value, 300);
        else if (strcmp(argument, "goal") == 0)
            send_goal(value, 0);
        else if (strcmp(argument, "cancel") == 0)
            send_goal(value, 1);
        else if (strcmp(argument, "rest") == 0) {
            void *event;
            int inputs = 0;
            while (inputs < atoi(value) && dora_next_event_timeout(context, 20000, &event) == 0 &&
                   event != NULL) {
                inputs += read_dora_event_type(event) == DoraEventType_Input;
                free_dora_event(event);
            }
            printf("rest %d\n", inputs);
        }
    }
    free_dora_context(context);
    return 0;
}
