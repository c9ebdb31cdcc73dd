/* A node whose first argument says what it does. */

#include <dora/node_api.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *context;

/* Sends numbers that count up, as fast as its receivers take them: "count N [SIZE]". */
static int count_up(int64_t limit, size_t size)
{
    for (int64_t number = 0; number < limit; number++) {
        int64_t *values = dora_alloc_output(context, size);
        if (values == NULL)
            return 2;
        for (size_t at = 0; at < size / sizeof *values; at++)
            values[at] = number;
        if (dora_send_buffer(context, "out", values, size, NULL) < 0)
            return 3;
    }
    return 0;
}

/* Checks that all bytes are whole, and that numbers count up: 0 without gaps, 1 with some, 2 or
   begin again. */
static int check(int gaps)
{
    int64_t expected = 0, count = 0;
    void *event;
    while ((event = dora_next_event(context)) != NULL) {
        char *data;
        size_t size;
        read_dora_input_data(event, &data, &size);
        if (read_dora_event_type(event) == DoraEventType_Input && data != NULL) {
            int64_t first, each;
            memcpy(&first, data, sizeof first);
            for (size_t at = 0; at + sizeof each <= size; at += sizeof each) {
                memcpy(&each, data + at, sizeof each);
                if (each != first) {
                    printf("torn: %lld %lld\n", (long long)first, (long long)each);
                    return 4;
                }
            }
            if (gaps == 0 ? first != expected : gaps == 1 && first < expected) {
                printf("got %lld instead of %lld\n", (long long)first, (long long)expected);
                return 5;
            }
            expected = first + 1;
            count++;
        }
        if (read_dora_event_type(event) == DoraEventType_Error)
            printf("ERROR %s\n", dora_event_text(event));
        free_dora_event(event);
    }
    printf("checked %lld\n", (long long)count);
    return 0;
}

/* Answers requests with the same bytes. */
static int serve(void)
{
    void *event;
    while ((event = dora_next_event(context)) != NULL) {
        char *data;
        size_t size;
        read_dora_input_data(event, &data, &size);
        if (read_dora_event_type(event) == DoraEventType_Input)
            dora_send_bytes(context, "reply", data, size, dora_event_metadata(event));
        free_dora_event(event);
    }
    return 0;
}

/* Sends requests, and prints the answers' ids when they are those of the requests. */
static int call(int count)
{
    int matched = 0;
    for (int at = 0; at < count; at++) {
        char id[37];
        dora_new_id(id);
        DoraMetadata *metadata = dora_metadata_new();
        dora_metadata_set_string(metadata, "request_id", id);
        dora_send_bytes(context, "request", &at, sizeof at, metadata);
        dora_metadata_free(metadata);
        void *event = NULL;
        while (dora_next_event_timeout(context, 20000, &event) == 0 && event != NULL) {
            bool input = read_dora_event_type(event) == DoraEventType_Input;
            const char *answered = dora_metadata_get_string(dora_event_metadata(event), "request_id");
            matched += input && answered != NULL && strcmp(answered, id) == 0;
            free_dora_event(event);
            if (input)
                break;
        }
    }
    printf("matched %d\n", matched);
    return 0;
}

/* Waits by timeouts, and prints what came of them. */
static int time_out(void)
{
    void *event = NULL;
    int result = dora_next_event_timeout(context, 50, &event);
    printf("first %d %s\n", result, event == NULL ? "none" : dora_event_name(event));
    free_dora_event(event);
    result = dora_next_event_timeout(context, 0, &event);
    printf("second %d %s\n", result, event == NULL ? "none" : dora_event_name(event));
    free_dora_event(event);
    result = dora_next_event_timeout(context, 20000, &event);
    printf("third %d %s\n", result, event == NULL ? "none" : dora_event_name(event));
    free_dora_event(event);
    return 0;
}

static void ignore(int number)
{
    (void)number;
}

/* Waits without limit, until a signal. */
static int wait_for_signal(void)
{
    void *event;
    struct sigaction action = {.sa_handler = ignore};
    sigaction(SIGALRM, &action, NULL);
    alarm(1);
    int result = dora_next_event_timeout(context, -1, &event);
    printf("signal %d %s\n", result, event == NULL ? "none" : dora_event_name(event));
    return 0;
}

/* Takes all events by poll(). */
static int poll_events(void)
{
    int inputs = 0, polls = 0;
    while (inputs < 25 || polls < 10) {
        void *event;
        int result;
        while ((result = dora_next_event_timeout(context, 0, &event)) == 0 && event != NULL) {
            inputs += read_dora_event_type(event) == DoraEventType_Input;
            free_dora_event(event);
        }
        if (result != 0)
            break;
        if (dora_arm_event_fd(context) == 1)
            continue;
        struct pollfd descriptor = {.fd = dora_event_fd(context), .events = POLLIN};
        if (poll(&descriptor, 1, 20000) != 1) {
            printf("nothing came\n");
            return 6;
        }
        polls++;
    }
    printf("polled %s %s\n", inputs >= 25 ? "inputs" : "few", polls >= 10 ? "often" : "seldom");
    return 0;
}

/* Prints what happens, until the end. */
static int show(void)
{
    void *event;
    while ((event = dora_next_event(context)) != NULL) {
        char *value = NULL;
        if (strncmp(dora_event_name(event), "PARAM", 5) == 0)
            value = dora_param_json(context, dora_event_id(event));
        printf("%s %s %s %s\n", dora_event_name(event), dora_event_id(event), dora_event_text(event),
               value ? value : "-");
        free(value);
        free_dora_event(event);
    }
    printf("end\n");
    return 0;
}

/* Writes nonsense into all memory that it shares, in the middle of its work. */
static int write_nonsense(unsigned seed)
{
    char line[512];
    for (int ticks = 0; ticks < 10; ticks++) /* when all others have attached */
        free_dora_event(dora_next_event(context));
    for (int round = 0; round < 20; round++) {
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps) != NULL) {
            unsigned long long from, to;
            char mode[5];
            if (strstr(line, "dorad") == NULL ||
                sscanf(line, "%llx-%llx %4s", &from, &to, mode) != 3 || mode[1] != 'w')
                continue;
            for (unsigned long long at = from; at + 8 <= to; at += 8) {
                seed = seed * 1103515245 + 12345;
                if (seed >> 16 & 1)
                    *(uint64_t *)(uintptr_t)at = (uint64_t)seed << (seed >> 8 & 31);
            }
        }
        fclose(maps);
        for (int at = 0; at < 20; at++)
            dora_send_output(context, "out", 3, line, sizeof line);
        usleep(5000);
    }
    _exit(0);
}

/* Takes nothing, ever. */
static int sleep_for_ever(void)
{
    printf("sleeping\n");
    while (pause() < 0)
        continue;
    return 0;
}

int main(int count, char **arguments)
{
    const char *what = count > 1 ? arguments[1] : "";
    long number = count > 2 ? atol(arguments[2]) : 0;
    const char *id = getenv("TEST_NODE_ID");
    context = id != NULL ? init_dora_context_from_node_id(id) : init_dora_context_from_env();
    if (context == NULL)
        return 1;
    int code = 9;
    if (strcmp(what, "count") == 0)
        code = count_up(number, count > 3 ? (size_t)atol(arguments[3]) : 8);
    else if (strcmp(what, "check") == 0)
        code = check((int)number);
    else if (strcmp(what, "serve") == 0)
        code = serve();
    else if (strcmp(what, "call") == 0)
        code = call((int)number);
    else if (strcmp(what, "timeout") == 0)
        code = time_out();
    else if (strcmp(what, "signal") == 0)
        code = wait_for_signal();
    else if (strcmp(what, "poll") == 0)
        code = poll_events();
    else if (strcmp(what, "show") == 0)
        code = show();
    else if (strcmp(what, "idle") == 0)
        code = sleep_for_ever();
    else if (strcmp(what, "nonsense") == 0)
        code = write_nonsense((unsigned)number);
    free_dora_context(context);
    return code;
}
