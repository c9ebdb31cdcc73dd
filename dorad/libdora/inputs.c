/* All inputs of a node: which event comes next; see dorad/node/nodeinputs.py. */

#include "node.h"

#include <stdlib.h>
#include <string.h>

/* -- creation ---------------------------------------------------------------------------------- */

static char *copy_or_null(const char *text)
{
    return text == NULL ? NULL : copy_text(text, strlen(text));
}

static void begin_ring(struct context *context, struct input *input, const struct dora_plan *plan)
{
    struct dora_words words = context->box->words;
    uint64_t base = plan->base;
    input->inlet = (struct dora_inlet){
        .base = base,
        .queue_size = plan->queue_size,
        .tail = dora_read_count(words, base + RING_TAIL),
        .entries = plan->entries,
        .mask = plan->capacity - 1,
        .received = dora_read_count(words, base + RING_RECEIVED),
        .unreadable = dora_read_count(words, base + RING_UNREADABLE),
        .latency_sum = dora_read_count(words, base + RING_LATENCY_SUM),
        .latency_diff = dora_read_count(words, base + RING_LATENCY_DIFF),
    };
    input->slots = slots_new(context->box, base);
    lane_init(input, words, plan);
    input->latched = dora_load(words, base + RING_LATCHED, memory_order_relaxed) != 0;
    if (input->latched) {
        input->pending = dora_load(words, base + RING_LAST, memory_order_relaxed) != 0;
        input->may_be_late = !input->pending;
        input->since_ns = dora_realtime_ns();
    }
}

static void input_free(struct input *input)
{
    slots_drop(input->slots);
    lane_free(input);
    type_check_free(input->check);
    free(input->id);
    free(input->source);
    free(input->origin);
    free(input);
}

bool input_add(struct context *context, struct json *item)
{
    const char *id = json_string(item, "id");
    uint64_t ring, interval;
    struct dora_plan plan;
    if (id == NULL || !json_count(item, "ring", &ring) ||
        !dora_ring_plan(context->box->words, ring, &plan)) {
        fail("input '%s' cannot be received: its ring in the mailbox is damaged", id ? id : "?");
        return false;
    }
    struct input *input = must(calloc(1, sizeof *input));
    const char *origin = json_string(item, "origin"), *source = json_string(item, "source");
    input->id = copy_text(id, strlen(id));
    input->source = copy_or_null(source);
    input->origin = copy_or_null(origin == NULL ? source : origin);
    input->ring = ring;
    input->space_bell = -1;
    if (json_count(item, "interval_ns", &interval))
        timer_begin(context, input, &plan, (int64_t)interval);
    else {
        begin_ring(context, input, &plan);
        for (size_t at = 0; at < context->space_count && source != NULL; at++)
            if (json_true(item, "blocking") && strcmp(context->spaces[at].node, source) == 0)
                input->space_bell = context->spaces[at].bell;
        if (!choosing_begin(context, input, item) || !types_begin(context, input)) {
            input_free(input);
            return false;
        }
    }
    context->inputs =
        must(realloc(context->inputs, (context->input_count + 1) * sizeof *context->inputs));
    context->inputs[context->input_count++] = input;
    return true;
}

void inputs_free(struct context *context)
{
    for (size_t at = 0; at < context->input_count; at++)
        input_free(context->inputs[at]);
    free(context->inputs);
}

/* -- one input --------------------------------------------------------------------------------- */

/* Return only what is queued now. */
static void freeze(struct context *context, struct input *input)
{
    struct dora_words words = context->box->words;
    input->stopped = true;
    if (input->is_timer)
        return;
    input->inlet.limit = (struct dora_optional){
        true, dora_load(words, input->ring + RING_HEAD, memory_order_acquire)};
    input->lane_limit = (struct dora_optional){
        true, dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire)};
}

bool has_queued(struct context *context, const struct input *input)
{
    struct dora_words words = context->box->words;
    uint64_t head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
    uint64_t lane_head = dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire);
    const struct dora_inlet *inlet = &input->inlet;
    bool ring = head != inlet->tail && (!inlet->limit.given || inlet->tail < inlet->limit.value);
    bool lane = input->has_lane && lane_head != inlet->lane_tail &&
                (!input->lane_limit.given || inlet->lane_tail < input->lane_limit.value);
    return ring || lane || (input->pending && head == inlet->tail);
}

/* Return whether an input must not end yet, because messages will still be taken. */
static bool holds(struct context *context, struct input *input)
{
    return input->is_timer      ? tick_is_due(input)
           : is_choosy(input) ? chosen_holds(context, input)
                                : has_queued(context, input);
}

bool discard_queued(struct context *context)
{
    struct dora_words words = context->box->words;
    for (size_t at = 0; at < context->input_count; at++) {
        struct input *input = context->inputs[at];
        if (input->is_timer)
            continue;
        uint64_t head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
        if (input->latched && head > input->inlet.tail)
            head--; /* the newest stays */
        input->inlet.lane_tail = dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire);
        input->inlet.tail = head;
        dora_store(words, input->ring + RING_LANE_TAIL, input->inlet.lane_tail,
                   memory_order_release);
        dora_store(words, input->ring + RING_TAIL, head, memory_order_release);
        if (input->space_bell >= 0 && dora_ring_has_waiter(words, &input->inlet))
            dora_bell_ring(input->space_bell);
    }
    return true;
}

/* -- all inputs -------------------------------------------------------------------------------- */

static struct input *input_at_ring(struct context *context, uint64_t ring)
{
    for (size_t at = 0; at < context->input_count; at++)
        if (context->inputs[at]->ring == ring)
            return context->inputs[at];
    return NULL;
}

static void take_out(struct context *context, struct input *input)
{
    size_t at = 0;
    while (context->inputs[at] != input)
        at++;
    context->input_count--;
    memmove(context->inputs + at, context->inputs + at + 1,
            (context->input_count - at) * sizeof *context->inputs);
}

static void apply(struct context *context, const struct change *change)
{
    uint64_t ring;
    if (!json_count(change->fields, "ring", &ring))
        return;
    struct input *known = input_at_ring(context, ring);
    if (change->gone) {
        if (known != NULL) {
            known->removed = true;
            freeze(context, known);
        }
        return;
    }
    if (known != NULL && !known->removed)
        return;
    if (known != NULL) {
        take_out(context, known);
        input_free(known);
    }
    if (!input_add(context, change->fields))
        line_add(&context->urgent, event_new(ERROR, "", last_error()));
    else if (context->stopped)
        freeze(context, context->inputs[context->input_count - 1]);
}

void apply_changes(struct context *context)
{
    while (context->changes != NULL) {
        struct change *change = context->changes;
        context->changes = change->next;
        if (context->changes == NULL)
            context->last_change = &context->changes;
        apply(context, change);
        json_free(&change->arena);
        free(change);
    }
}

static bool must_wait(struct context *context, const struct event *event)
{
    for (const struct event *each = context->deferred.first; each != NULL; each = each->next)
        if (event->type == INPUT_CLOSED && strcmp(each->id, event->id) == 0)
            return true;
    for (size_t at = 0; event->type == INPUT_CLOSED && at < context->input_count; at++)
        if (strcmp(context->inputs[at]->id, event->id) == 0 && holds(context, context->inputs[at]))
            return true;
    return false;
}

static struct event *deliver(struct context *context, struct event_line *line)
{
    struct event *event = line_take(line);
    if (event->type == STOP) {
        /* Only the messages queued now follow. */
        context->stopped = true;
        for (size_t at = 0; at < context->input_count; at++)
            freeze(context, context->inputs[at]);
    }
    return event;
}

static void drop_removed(struct context *context)
{
    for (size_t at = 0; at < context->input_count;) {
        struct input *input = context->inputs[at];
        if (input->removed && !holds(context, input)) {
            take_out(context, input);
            input_free(input);
        } else
            at++;
    }
}

void begin_poll(struct context *context)
{
    refresh(context);
    context->polled_mail = context->mail;
    context->packets_polled = context->packets;
    apply_changes(context);
    for (size_t at = 0; at < context->output_count; at++)
        if (context->outputs[at].late) {
            catch_up(context);
            break;
        }
}

/* Return the timestamp of the next message of an input, UINT64_MAX without one. Senders can write
   anything there: then it is only the order that is wrong. */
static uint64_t next_stamp(struct context *context, struct input *input)
{
    const struct dora_words words = context->box->words;
    const struct dora_inlet *inlet = &input->inlet;
    if (input->is_timer)
        return tick_is_due(input) ? 0 : UINT64_MAX;
    if (is_choosy(input) ? !chosen_is_ready(context, input) : !has_queued(context, input))
        return UINT64_MAX;
    uint64_t head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
    uint64_t lane_head = dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire);
    uint64_t index = head - inlet->tail > inlet->queue_size ? head - inlet->queue_size : inlet->tail;
    uint64_t stamp = UINT64_MAX, lane_stamp = UINT64_MAX;
    if (head != inlet->tail || input->pending)
        stamp = dora_load(words,
                          (inlet->entries + ((head == inlet->tail ? head - 1 : index) & inlet->mask) *
                                                ENTRY_SIZE) / WORD,
                          memory_order_relaxed);
    if (input->has_lane && lane_head != inlet->lane_tail) {
        index = lane_head - inlet->lane_tail > inlet->queue_size ? lane_head - inlet->queue_size
                                                                 : inlet->lane_tail;
        lane_stamp = dora_load(words,
                               (input->lane_entries + (index & inlet->mask) * ENTRY_SIZE) / WORD,
                               memory_order_relaxed);
    }
    stamp = lane_stamp < stamp ? lane_stamp : stamp;
    return stamp < UINT64_MAX ? stamp : UINT64_MAX - 1;
}

/* Return the input whose next message is the oldest, NULL without any: the order of a node that is
   stepped does not depend on when messages come. */
static struct input *oldest_input(struct context *context)
{
    struct input *oldest = NULL;
    uint64_t best = UINT64_MAX;
    for (size_t at = 0; at < context->input_count; at++) {
        struct input *input = context->inputs[at];
        uint64_t stamp = next_stamp(context, input);
        if (stamp < best || (stamp == best && stamp < UINT64_MAX && input->ring < oldest->ring)) {
            oldest = input;
            best = stamp;
        }
    }
    return oldest;
}

struct event *poll_from(struct context *context, const char *node)
{
    begin_poll(context);
    if (must_hold(context))
        return NULL;
    for (size_t at = 0; at < context->input_count; at++) {
        struct input *input = context->inputs[at];
        struct event *event =
            input->is_timer || !is_from(input, node) ? NULL : take_message(context, input);
        if (event != NULL)
            return event;
    }
    return NULL;
}

struct event *poll_event(struct context *context)
{
    if (context->mock != NULL)
        return mock_poll(context);
    dora_hop_done(context->box->words);
    begin_poll(context);
    if (must_hold(context))
        return NULL;
    if (!context->stopped) {
        if (context->urgent.first != NULL)
            return deliver(context, &context->urgent);
        if (context->endings.first != NULL && !must_wait(context, context->endings.first))
            return deliver(context, &context->endings);
    }
    if (context->deferred.first != NULL) {
        context->deferred_count--;
        return line_take(&context->deferred);
    }
    const bool is_stepped = dora_is_stepped(context->box->words);
    for (size_t at = 0; at < context->input_count; at++) {
        struct input *input = is_stepped ? oldest_input(context) : context->inputs[at];
        if (input == NULL)
            break;
        struct event *event = input->is_timer    ? take_tick(context, input)
                              : is_choosy(input) ? take_chosen(context, input)
                                                 : take_message(context, input);
        if (event != NULL) {
            /* Served least recently first. */
            take_out(context, input);
            context->inputs[context->input_count++] = input;
            return event;
        }
    }
    /* None is ready. A set that lacks a member must know that: else the node would not sleep. */
    for (size_t at = 0; is_stepped && at < context->input_count; at++) {
        struct input *input = context->inputs[at];
        struct event *event = is_choosy(input) ? take_chosen(context, input) : NULL;
        if (event != NULL)
            return event;
    }
    drop_removed(context);
    if (context->stopped || (context->lost && context->urgent.first == NULL))
        context->ended = true;
    return NULL;
}
