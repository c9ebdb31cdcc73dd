/* Sends a payload, waits for the answer, measures the time between; as ping.py, without metadata. */

#include "bench_node.h"
#include "nested.h"

enum { MAX_STEPS = 16, WARM_UP_ANSWERS = 10, SILENCE_MS = 2000, LATE_MS = 500 };

static void *context;
static bool shared; /* whether payloads are born in shared memory */
static bool is_nested;

/* A message of one size: bytes, or an array. */
struct payload {
    char *bytes;
    struct column *column;
    size_t size;
};

static struct payload payload_of(size_t size)
{
    struct payload payload = {calloc(1, size), is_nested ? nested(size) : NULL, size};
    return payload;
}

/* Return the ns of one round trip; -1 if no answer came in time. */
static int64_t exchange(const struct payload *payload)
{
    int64_t began = monotonic_ns();
    size_t size = payload->size;
    if (payload->column != NULL) {
        dora_send_arrow(context, "ping", &payload->column->schema, &payload->column->array, NULL);
    } else if (shared) {
        char *buffer = dora_alloc_output(context, size);
        if (buffer == NULL)
            exit(3);
        memcpy(buffer, &began, sizeof began);
        dora_send_buffer(context, "ping", buffer, size, NULL);
    } else {
        memcpy(payload->bytes, &began, sizeof began);
        dora_send_bytes(context, "ping", payload->bytes, size, NULL);
    }
    for (;;) {
        void *event;
        if (dora_next_event_timeout(context, SILENCE_MS, &event) != 0)
            exit(4);
        if (event == NULL) {
            /* Late answers would be mistaken for answers to later messages. */
            while (dora_next_event_timeout(context, LATE_MS, &event) == 0 && event != NULL)
                free_dora_event(event);
            return -1;
        }
        enum DoraEventType type = read_dora_event_type(event);
        free_dora_event(event);
        if (type == DoraEventType_Stop)
            exit(4);
        if (type == DoraEventType_Input)
            return monotonic_ns() - began;
    }
}

static void warm_up(const struct payload *payload, int64_t ns)
{
    int64_t began = monotonic_ns();
    for (int answers = 0; answers < WARM_UP_ANSWERS || monotonic_ns() - began < ns;)
        answers += exchange(payload) >= 0;
}

int main(void)
{
    double sizes[MAX_STEPS], counts[MAX_STEPS], seconds = 1;
    size_t steps = numbers("BENCH_SIZES", sizes, MAX_STEPS);
    char draft[4096];
    const char *source = getenv("BENCH_SOURCE");
    context = init_dora_context_from_env();
    if (context == NULL || numbers("BENCH_COUNTS", counts, MAX_STEPS) != steps)
        return 1;
    numbers("BENCH_STEP_SECONDS", &seconds, 1);
    shared = source != NULL && strcmp(source, "shm") == 0;
    is_nested = source != NULL && strcmp(source, "nested") == 0;
    struct payload first = payload_of(8);
    warm_up(&first, 1500000000);
    free(first.bytes);
    FILE *report = begin_report(draft, sizeof draft);
    fprintf(report, "{\"form\": \"%s\", \"sizes\": {", shared      ? "dora_alloc_output"
            : is_nested ? "nested array"
                        : "heap array");
    for (size_t step = 0; step < steps; step++) {
        size_t size = (size_t)sizes[step];
        struct payload payload = payload_of(size);
        warm_up(&payload, 100000000);
        int64_t until = monotonic_ns() + (int64_t)(seconds * 1e9);
        int lost = 0;
        bool any = false;
        fprintf(report, "%s\"%zu\": {\"ns\": [", step > 0 ? ", " : "", size);
        for (int at = 0; at < (int)counts[step] && (at == 0 || monotonic_ns() < until); at++) {
            int64_t taken = exchange(&payload);
            if (taken >= 0)
                fprintf(report, "%s%lld", any ? ", " : "", (long long)taken);
            any = any || taken >= 0;
            lost += taken < 0;
        }
        fprintf(report, "], \"lost\": %d}", lost);
        free(payload.bytes);
    }
    fprintf(report, "}}\n");
    finish_report(report, draft);
    free_dora_context(context);
    return 0;
}
