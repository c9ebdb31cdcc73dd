/* Timers: inputs whose ticks are due by the clock; see `TimerInput` of dorad/node/inputs.py. */

#include "node.h"

#define NEVER_NS (INT64_C(1) << 62)

void timer_begin(struct context *context, struct input *input, const struct dora_plan *plan,
                 int64_t interval_ns)
{
    struct dora_words words = context->box->words;
    uint64_t base = plan->base, deadline = 0;
    input->is_timer = true;
    input->interval_ns = interval_ns < 1 ? 1 : interval_ns > NEVER_NS ? NEVER_NS : interval_ns;
    json_count(context->config, "deadline_ns", &deadline);
    input->deadline_ns = deadline > 0 && deadline < (uint64_t)NEVER_NS ? (int64_t)deadline
                                                                       : input->interval_ns;
    input->queue_size = plan->queue_size;
    input->tail = dora_read_count(words, base + RING_TAIL);
    input->received = dora_read_count(words, base + RING_RECEIVED);
    input->latency_sum = dora_read_count(words, base + RING_LATENCY_SUM);
    input->latency_diff = dora_read_count(words, base + RING_LATENCY_DIFF);
    input->late_max = dora_read_count(words, base + RING_LATE_MAX);
    input->missed = dora_read_count(words, base + RING_MISSED);
    int64_t now = dora_monotonic_ns(), epoch = context->epoch_ns;
    int64_t fired = now > epoch ? (now - epoch) / input->interval_ns : 0;
    uint64_t last = dora_load(words, base + RING_LAST, memory_order_relaxed);
    if (last > 0 && last <= (uint64_t)now && (int64_t)last >= epoch) {
        int64_t after = ((int64_t)last - epoch) / input->interval_ns + 1;
        fired = after > fired ? after : fired;
    }
    input->due_ns = epoch + fired * input->interval_ns;
    dora_store(words, base + RING_HEAD, input->tail, memory_order_relaxed);
}

bool tick_is_due(const struct input *input)
{
    return !input->stopped && dora_monotonic_ns() >= input->due_ns;
}

struct event *take_tick(struct context *context, struct input *input)
{
    struct dora_words words = context->box->words;
    uint64_t base = input->ring;
    int64_t now = dora_monotonic_ns();
    if (now < input->due_ns || input->stopped)
        return NULL;
    uint64_t count = (uint64_t)((now - input->due_ns) / input->interval_ns) + 1;
    uint64_t skipped = count > input->queue_size ? count - input->queue_size : 0;
    uint64_t head = input->tail + count;
    int64_t due = input->due_ns + (int64_t)skipped * input->interval_ns;
    input->due_ns = due + input->interval_ns;
    /* Release: a reader of the counters loads RECEIVED, TAIL and HEAD in this order. */
    dora_store(words, base + RING_HEAD, head, memory_order_release);
    input->tail += skipped + 1;
    dora_store(words, base + RING_TAIL, input->tail, memory_order_release);
    dora_store(words, base + RING_RECEIVED, ++input->received, memory_order_release);
    dora_store(words, base + RING_LAST, (uint64_t)due, memory_order_release);
    uint64_t late = (uint64_t)(now - due);
    struct dora_optional before = input->late_ns;
    input->late_ns = (struct dora_optional){true, late};
    if (before.given) {
        dora_count_latency(words, base, late);
        input->latency_sum += late;
        dora_store(words, base + RING_LATENCY_SUM, input->latency_sum, memory_order_release);
        input->latency_diff += late > before.value ? late - before.value : before.value - late;
        dora_store(words, base + RING_LATENCY_DIFF, input->latency_diff, memory_order_release);
        if (late > input->late_max) {
            input->late_max = late;
            dora_store(words, base + RING_LATE_MAX, late, memory_order_release);
        }
        bool missed = late > (uint64_t)input->deadline_ns;
        if (skipped > 0 || missed) {
            input->missed += skipped + missed;
            dora_store(words, base + RING_MISSED, input->missed, memory_order_release);
        }
    }
    struct event *event = event_new(INPUT, input->id, NULL);
    event->is_tick = true;
    now = dora_realtime_ns();
    event->stamp = now - (int64_t)late;
    dora_hop_received(words, base, (uint64_t)event->stamp, (uint64_t)now, 0);
    return event;
}
