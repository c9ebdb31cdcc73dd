/* Inputs that select among their queued messages: `max_rate_hz`, and synchronised inputs; see
   dorad/node/choosing.py. */

#include "node.h"

#include <stdlib.h>
#include <string.h>

#define PARTNER_TIMEOUT_NS 500000000 /* how long the last messages of a closed input wait for others */
#define MAX_SEARCHED 64              /* messages of one ring that a search for a set examines */
#define MAX_MEMBERS 64               /* inputs of one set */

/* A queued message. */
struct queued {
    uint64_t stamp, index;
    struct input *input;
};

/* The queued messages of one input, oldest first; the search is at one of them. */
struct queue {
    struct queued *at;
    size_t count, place;
};

struct sync_group {
    char *name;
    struct names inputs;
    uint64_t tolerance_ns;
    struct queue *queues; /* of the last search, one for each input */
    struct sync_group *next;
};

/* -- creation ---------------------------------------------------------------------------------- */

static struct sync_group *group_of(struct context *context, const struct json *sync)
{
    const char *name = json_string(sync, "name");
    const struct json *inputs = json_get(sync, "inputs");
    uint64_t tolerance;
    if (name == NULL || inputs == NULL || inputs->type != JSON_LIST || inputs->items.count == 0 ||
        inputs->items.count > MAX_MEMBERS || !json_count(sync, "tolerance_ns", &tolerance))
        return NULL;
    for (struct sync_group *each = context->groups; each != NULL; each = each->next)
        if (strcmp(each->name, name) == 0)
            return each;
    struct sync_group *group = must(calloc(1, sizeof *group));
    group->name = copy_text(name, strlen(name));
    group->tolerance_ns = tolerance;
    for (const struct json *each = inputs->items.first; each != NULL; each = each->next)
        if (each->type == JSON_STRING)
            name_add(&group->inputs, each->string.at);
    group->queues = must(calloc(inputs->items.count, sizeof *group->queues));
    group->next = context->groups;
    context->groups = group;
    return group;
}

bool choosing_begin(struct context *context, struct input *input, const struct json *item)
{
    const struct json *rate = json_get(item, "max_rate_hz"), *sync = json_get(item, "sync");
    if (sync != NULL) {
        input->group = group_of(context, sync);
        input->searched_to = input->inlet.tail;
        if (input->group == NULL)
            fail("input `%s` has a set of inputs that is not valid", input->id);
        return input->group != NULL;
    }
    if (rate == NULL)
        return true;
    double hertz = rate->type == JSON_INT ? (double)rate->number : rate->real;
    if ((rate->type != JSON_INT && rate->type != JSON_FLOAT) || !(hertz > 1e-9) || !(hertz <= 1e9)) {
        fail("input `%s` has a `max_rate_hz` that is not valid", input->id);
        return false;
    }
    input->pace_ns = (int64_t)(1e9 / hertz + 0.5);
    input->keeps_all = json_true(item, "keeps_all");
    return true;
}

void groups_free(struct context *context)
{
    while (context->groups != NULL) {
        struct sync_group *group = context->groups;
        context->groups = group->next;
        for (size_t at = 0; at < group->inputs.count; at++)
            free(group->queues[at].at);
        free(group->queues);
        free(group->name);
        names_free(&group->inputs);
        free(group);
    }
}

/* -- max_rate_hz ------------------------------------------------------------------------------- */

static bool is_due(const struct input *input, int64_t now)
{
    return input->stopped || input->removed || now >= input->paced_due_ns;
}

static uint64_t end_of(struct context *context, const struct input *input)
{
    uint64_t head =
        dora_load(context->box->words, input->ring + RING_HEAD, memory_order_acquire);
    const struct dora_optional *limit = &input->inlet.limit;
    return limit->given && limit->value < head ? limit->value : head;
}

static struct event *take_paced(struct context *context, struct input *input)
{
    int64_t now = dora_timeout_ns(context->box->words);
    if (!has_queued(context, input) || !is_due(input, now))
        return NULL;
    uint64_t end = end_of(context, input);
    if (!input->keeps_all && end > input->inlet.tail + 1)
        skip_to(context, input, false, end - 1);
    struct event *event = take_message(context, input);
    if (event != NULL)
        input->paced_due_ns = now + input->pace_ns;
    return event;
}

/* -- synchronised inputs ----------------------------------------------------------------------- */

static int by_stamp(const void *one, const void *other)
{
    const struct queued *left = one, *right = other;
    if (left->stamp != right->stamp)
        return left->stamp < right->stamp ? -1 : 1;
    return (left->index > right->index) - (left->index < right->index);
}

/* List what is queued on all rings of an input. If a producer laps us meanwhile, the stamps are
   wrong, which the taking of the set finds out. */
static void list_queue(struct context *context, struct sync_group *group, size_t which)
{
    struct queue *queue = &group->queues[which];
    struct dora_words words = context->box->words;
    int rings = 0;
    queue->count = queue->place = 0;
    for (size_t at = 0; at < context->input_count; at++) {
        struct input *input = context->inputs[at];
        if (input->group != group || input->removed ||
            strcmp(input->id, group->inputs.at[which]) != 0)
            continue;
        uint64_t end = end_of(context, input), first = input->inlet.tail;
        uint64_t head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
        if (head < first)
            continue; /* overwritten; the next read reports it */
        if (head - first > input->inlet.queue_size)
            first = head - input->inlet.queue_size;
        if (rings++ > 0 || queue->at == NULL)
            queue->at = must(realloc(queue->at, (size_t)rings * MAX_SEARCHED * sizeof *queue->at));
        for (uint64_t index = first; index < end && index - first < MAX_SEARCHED; index++) {
            uint64_t place = input->inlet.entries + (index & input->inlet.mask) * ENTRY_SIZE;
            uint64_t stamp = dora_load(words, place / WORD, memory_order_relaxed);
            queue->at[queue->count++] = (struct queued){stamp, index, input};
        }
    }
    if (rings > 1)
        qsort(queue->at, queue->count, sizeof *queue->at, by_stamp);
}

static uint64_t front(const struct queue *queue, size_t ahead)
{
    return queue->at[queue->place + ahead].stamp;
}

static uint64_t spread_of(const struct queue *queues, size_t count, size_t moved)
{
    uint64_t oldest = UINT64_MAX, newest = 0;
    for (size_t at = 0; at < count; at++) {
        uint64_t stamp = front(&queues[at], at == moved);
        oldest = stamp < oldest ? stamp : oldest;
        newest = stamp > newest ? stamp : newest;
    }
    return newest - oldest;
}

/* Search for the first set of one message from each input, all sent within the tolerance. Return
   true if there is one, at the places of the queues; what lies before these matches nothing. */
static bool search(struct context *context, struct sync_group *group)
{
    struct queue *queues = group->queues;
    size_t count = group->inputs.count;
    for (size_t at = 0; at < count; at++)
        list_queue(context, group, at);
    for (;;) {
        size_t oldest = 0;
        for (size_t at = 0; at < count; at++) {
            if (queues[at].place == queues[at].count)
                return false;
            if (front(&queues[at], 0) < front(&queues[oldest], 0))
                oldest = at;
        }
        uint64_t spread = spread_of(queues, count, count);
        /* The input with the newest message only gets newer ones; and a successor may make the set
           tighter. */
        bool has_next = queues[oldest].place + 1 < queues[oldest].count;
        if (spread <= group->tolerance_ns &&
            !(has_next && spread_of(queues, count, oldest) < spread))
            return true;
        queues[oldest].place++;
    }
}

static void skip_passed(struct context *context, struct sync_group *group)
{
    for (size_t at = 0; at < group->inputs.count; at++)
        for (size_t place = 0; place < group->queues[at].place; place++) {
            struct queued *queued = &group->queues[at].at[place];
            if (queued->index + 1 > queued->input->inlet.tail)
                skip_to(context, queued->input, false, queued->index + 1);
        }
}

/* Make one event of the members of a set; of unreadable ones, the first is returned instead. */
static struct event *set_event(struct sync_group *group, struct event **members, size_t count)
{
    struct event *error = NULL;
    for (size_t at = 0; at < count && error == NULL; at++)
        if (members[at] != NULL && members[at]->type != INPUT)
            error = members[at];
    if (error != NULL) {
        for (size_t at = 0; at < count; at++)
            if (members[at] != error)
                event_free(members[at]);
        return error;
    }
    struct event *set = event_new(INPUT, group->name, NULL);
    set->members = must(calloc(count, sizeof *set->members));
    for (size_t at = 0; at < count; at++)
        if (members[at] != NULL) {
            set->members[set->member_count++] = members[at];
            set->stamp = members[at]->stamp > set->stamp ? members[at]->stamp : set->stamp;
        }
    return set;
}

static struct event *take_set(struct context *context, struct sync_group *group)
{
    struct dora_words words = context->box->words;
    for (size_t at = 0; at < context->input_count; at++)
        if (context->inputs[at]->group == group)
            context->inputs[at]->searched_to =
                dora_load(words, context->inputs[at]->ring + RING_HEAD, memory_order_acquire);
    for (;;) {
        struct event *members[MAX_MEMBERS];
        size_t count = group->inputs.count;
        bool complete = search(context, group), same = true;
        skip_passed(context, group);
        if (!complete)
            return NULL;
        for (size_t at = 0; at < count; at++) {
            struct queued *queued = &group->queues[at].at[group->queues[at].place];
            members[at] = take_message(context, queued->input);
            same = same && queued->input->inlet.tail == queued->index + 1;
        }
        if (same)
            return set_event(group, members, count);
        /* A producer overtook the search: one of the messages is not the one that matched. */
        for (size_t at = 0; at < count; at++) {
            struct input *input = group->queues[at].at[group->queues[at].place].input;
            if (members[at] != NULL && input->inlet.received > 0)
                /* It counts as dropped after all. */
                dora_store(words, input->ring + RING_RECEIVED, --input->inlet.received,
                           memory_order_relaxed);
            event_free(members[at]);
        }
    }
}

static struct event *take_member(struct context *context, struct input *input)
{
    int64_t deadline = input->partner_due_ns;
    struct event *event = take_set(context, input->group);
    if (event != NULL)
        input->partner_due_ns = 0;
    else if (deadline != 0 && dora_timeout_ns(context->box->words) >= deadline) {
        /* The input has ended, and no matching message came in time. */
        input->partner_due_ns = 0;
        skip_to(context, input, false, end_of(context, input));
    }
    return event;
}

/* -- both -------------------------------------------------------------------------------------- */

struct event *take_chosen(struct context *context, struct input *input)
{
    return input->group != NULL ? take_member(context, input) : take_paced(context, input);
}

bool chosen_is_ready(struct context *context, const struct input *input)
{
    if (input->group != NULL)
        return search(context, input->group);
    return has_queued(context, input) && is_due(input, dora_timeout_ns(context->box->words));
}

bool chosen_holds(struct context *context, struct input *input)
{
    if (input->group == NULL)
        return has_queued(context, input);
    if (input->removed)
        return false;
    if (search(context, input->group))
        return true;
    if (!has_queued(context, input))
        return false;
    int64_t now = dora_timeout_ns(context->box->words);
    if (input->partner_due_ns == 0)
        input->partner_due_ns = now + PARTNER_TIMEOUT_NS;
    return now < input->partner_due_ns;
}

int64_t chosen_due(struct context *context, const struct input *input)
{
    if (input->group != NULL)
        return input->partner_due_ns == 0 ? INT64_MAX : input->partner_due_ns;
    return has_queued(context, input) ? input->paced_due_ns : INT64_MAX;
}

bool chosen_watch(struct context *context, struct dora_watched *watched, const struct input *input)
{
    if (input->group == NULL && has_queued(context, input) && !is_due(input, dora_timeout_ns(context->box->words)))
        return true; /* a new message makes no event due */
    struct dora_inlet inlet = input->inlet;
    if (input->group != NULL)
        inlet.tail = input->searched_to;
    /* It has no lane. What a peer pushes there anyway must not keep this node awake. */
    inlet.lane_tail =
        dora_load(context->box->words, input->ring + RING_LANE_HEAD, memory_order_relaxed);
    return dora_watch_ring(watched, context->box->words, &inlet);
}
