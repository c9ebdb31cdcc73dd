/* The node of stepflows.py in C: logs its inputs, and sends what depends on them. */

#include <dora/node_api.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGE = 3000, MODULUS = 1000003, CALL_MS = 200 };

static void *context;
static FILE *lines;
static int64_t state;

static void check(int result)
{
    if (result >= 0)
        return;
    fprintf(stderr, "%s\n", dora_last_error());
    exit(2);
}

static void fold(int64_t value)
{
    state = (state * 31 + value % MODULUS + MODULUS) % MODULUS;
}

/* Log a message of numbers, bytes or nothing, and return its first value. */
static int64_t add_message(void *event)
{
    struct ArrowSchema schema;
    struct ArrowArray array;
    check(dora_event_arrow(event, &schema, &array));
    int64_t first = 0, sum = 0;
    for (int64_t at = 0; at < array.length; at++) {
        int64_t value = 0;
        if (strcmp(schema.format, "l") == 0)
            value = ((const int64_t *)array.buffers[1])[array.offset + at];
        else if (strcmp(schema.format, "C") == 0)
            value = ((const uint8_t *)array.buffers[1])[array.offset + at];
        first = at == 0 ? value : first;
        sum += value;
        fold(value);
    }
    fprintf(lines, "%s %" PRId64 " %s %" PRId64 " %" PRId64 " %" PRId64 "\n", dora_event_id(event),
            dora_event_timestamp_ns(event), schema.format, array.length, first, sum);
    fold((int64_t)strlen(dora_event_id(event)));
    array.release(&array);
    schema.release(&schema);
    return first;
}

/* Log any event; return true for an input. `*first` is the first value of its message. */
static bool add(void *event, int64_t *first)
{
    enum DoraEventType type = read_dora_event_type(event);
    if (type == DoraEventType_Input) {
        void *member;
        for (size_t at = 0; (member = dora_event_member(event, at)) != NULL; at++)
            add_message(member);
        *first = dora_event_member_count(event) == 0 ? add_message(event) : 0;
        return true;
    }
    if (type != DoraEventType_Stop)
        fprintf(lines, "%s %s %s\n", dora_event_name(event), dora_event_id(event),
                dora_event_text(event));
    return false;
}

static void keep_schema(struct ArrowSchema *schema)
{
    (void)schema;
}

static void keep_array(struct ArrowArray *array)
{
    (void)array;
}

/* Send the same number so many times, in a buffer of shared memory. */
static void send(const char *output, int64_t value, size_t count, const DoraMetadata *metadata)
{
    int64_t *values = dora_alloc_output(context, count * sizeof *values);
    check(values == NULL ? -1 : 0);
    for (size_t at = 0; at < count; at++)
        values[at] = value;
    const void *buffers[] = {NULL, values};
    struct ArrowSchema schema = {
        .format = "l", .name = "", .flags = ARROW_FLAG_NULLABLE, .release = keep_schema};
    struct ArrowArray array = {
        .length = (int64_t)count, .n_buffers = 2, .buffers = buffers, .release = keep_array};
    check(dora_send_arrow(context, output, &schema, &array, metadata));
}

static void send_state(void)
{
    send("out", state, state % 7 == 0 ? LARGE : 1, NULL);
}

static void call(void)
{
    void *reply = NULL;
    int64_t first;
    int result = dora_call(context, "ask", &state, sizeof state, NULL, CALL_MS, &reply);
    fprintf(lines, "call %d\n", result);
    if (reply != NULL)
        add(reply, &first);
    free_dora_event(reply);
}

static void answer(void *request, int64_t value)
{
    DoraMetadata *metadata = dora_metadata_new();
    check(dora_metadata_answer(metadata, request));
    send("answer", value, 1, metadata);
    dora_metadata_free(metadata);
}

/* Do what a node of this kind does for an input. */
static void react(const char *kind, void *event, int64_t first)
{
    if (strcmp(kind, "server") == 0) {
        if (strcmp(dora_event_id(event), "ask") == 0)
            answer(event, 2 * first + state % 5);
    } else if (strcmp(kind, "client") == 0) {
        call();
    } else if (strcmp(kind, "loop") == 0) {
        int64_t left = strcmp(dora_event_id(event), "back") == 0 ? first : 4;
        if (left > 0)
            send("out", left - 1, 1, NULL);
    } else if (strcmp(kind, "echo") == 0) {
        send("out", first, 1, NULL);
    } else {
        for (int64_t left = state % 3; left >= 0; left--)
            send_state();
    }
}

int main(void)
{
    const char *kind = getenv("KIND"), *timeout = getenv("TIMEOUT");
    int64_t timeout_ms = timeout == NULL ? -1 : (int64_t)(1000 * atof(timeout)), first;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("LOGS"), getenv("NAME"));
    lines = fopen(path, "a");
    context = lines == NULL ? NULL : init_dora_context_from_env();
    if (context == NULL)
        return 1;
    setvbuf(lines, NULL, _IOLBF, 0);
    if (strcmp(kind, "first") == 0)
        send_state();
    void *event;
    bool stopped = false;
    while (!stopped && dora_next_event_timeout(context, timeout_ms, &event) == 0 && event != NULL) {
        stopped = read_dora_event_type(event) == DoraEventType_Stop;
        if (add(event, &first))
            react(kind, event, first);
        free_dora_event(event);
    }
    free_dora_context(context);
    fclose(lines);
    return 0;
}
