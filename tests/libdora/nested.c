/* Passes arrays of any type on, in the way that its first argument says. */

#include <dora/node_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *context;

/* Send the array of an event on an output, with given metadata. */
static void pass(void *event, const char *output, const DoraMetadata *metadata)
{
    struct ArrowSchema schema;
    struct ArrowArray array;
    if (dora_event_arrow(event, &schema, &array) < 0 ||
        dora_send_arrow(context, output, &schema, &array, metadata) < 0) {
        printf("failed: %s\n", dora_last_error());
        exit(2);
    }
    array.release(&array);
    schema.release(&schema);
}

/* Send it as a request, and what answers it on "out". */
static void call(void *event)
{
    char id[37];
    void *reply;
    DoraMetadata *metadata = dora_metadata_new();
    if (dora_new_request(context, "request", metadata, id) < 0)
        exit(3);
    pass(event, "request", metadata);
    if (dora_wait_reply(context, id, 30000, &reply) < 0) {
        printf("failed: %s\n", dora_last_error());
        exit(4);
    }
    pass(reply, "out", NULL);
    free_dora_event(reply);
    dora_metadata_free(metadata);
}

/* Send it as a goal, and its feedback and result on "out". */
static void send_goal(void *event)
{
    char id[37];
    bool ended = false;
    DoraMetadata *metadata = dora_metadata_new();
    if (dora_new_goal(context, "request", metadata, id) < 0)
        exit(3);
    pass(event, "request", metadata);
    while (!ended) {
        void *reply;
        if (dora_wait_reply(context, id, 30000, &reply) < 0) {
            printf("failed: %s\n", dora_last_error());
            exit(4);
        }
        ended = dora_metadata_get_string(dora_event_metadata(reply), "goal_status") != NULL;
        pass(reply, "out", NULL);
        free_dora_event(reply);
    }
    dora_metadata_free(metadata);
}

/* Answer a request, or a goal: by one feedback and a result. */
static void answer(void *event, bool goal)
{
    DoraMetadata *metadata = dora_metadata_new();
    if (dora_metadata_answer(metadata, event) < 0)
        exit(5);
    if (goal) {
        pass(event, "feedback", metadata);
        dora_metadata_set_string(metadata, "goal_status", "succeeded");
    }
    pass(event, "answer", metadata);
    dora_metadata_free(metadata);
}

int main(int count, char **arguments)
{
    const char *way = count > 1 ? arguments[1] : "";
    context = init_dora_context_from_env();
    if (context == NULL)
        return 1;
    void *event;
    /* Of a life whose first message is that of the life before. */
    int left = dora_restart_count(context) > 0 ? 2 : 1;
    while ((event = dora_next_event(context)) != NULL) {
        size_t members = dora_event_member_count(event);
        for (size_t at = 0; at < members; at++)
            pass(dora_event_member(event, at), "out",
                 dora_event_metadata(dora_event_member(event, at)));
        if (strcmp(dora_event_name(event), "INPUT_CLOSED") == 0 &&
            strcmp(dora_event_id(event), "array") == 0)
            break; /* the server, which waits for this node's end, does not end by itself */
        if (read_dora_event_type(event) == DoraEventType_Error)
            printf("failed: %s\n", dora_event_text(event));
        if (read_dora_event_type(event) == DoraEventType_Input && members == 0) {
            if (strcmp(way, "call") == 0)
                call(event);
            else if (strcmp(way, "goal") == 0)
                send_goal(event);
            else if (strcmp(way, "serve") == 0 || strcmp(way, "act") == 0)
                answer(event, way[0] == 'a');
            else
                pass(event, "out", dora_event_metadata(event));
            if (strcmp(way, "mortal") == 0 && --left == 0)
                exit(6);
        }
        free_dora_event(event);
    }
    free_dora_context(context);
    return 0;
}
