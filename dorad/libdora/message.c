/* Take one message of an input: from its ring or lane, checked, and readable as long as its event; see
   `RingInput` of dorad/node/inputs.py. */

#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct event *unreadable(struct context *context, struct input *input, const char *why)
{
    char text[400];
    dora_store(context->box->words, input->ring + RING_UNREADABLE, ++input->inlet.unreadable,
               memory_order_relaxed);
    snprintf(text, sizeof text, "a message on input '%s' cannot be read: %s", input->id, why);
    return event_new(ERROR, "", text);
}

static struct borrow *borrow_new(struct slots *slots, int slot, struct mapping *segment)
{
    struct borrow *borrow = must(malloc(sizeof *borrow));
    atomic_fetch_add_explicit(&slots->users, 1, memory_order_relaxed);
    *borrow = (struct borrow){1, slots, slot, mapping_use(segment)};
    return borrow;
}

/* Make the payload of an entry available to its event: in the entry, borrowed, or copied out. Return
   why it cannot be. */
static const char *place_payload(struct context *context, struct input *input, struct event *event)
{
    struct dora_entry *entry = &event->entry;
    size_t meta = entry->meta_segment ? 0 : entry->meta_size;
    if (entry->meta_segment) {
        struct mapping *home = find_segment(context, entry->meta_segment);
        if (home == NULL || !dora_lies_at(entry->meta_offset, entry->meta_size, home->size))
            return "its metadata lie where no message can be";
        /* Copied: the sender can still write to them. */
        event->copied_metadata = copy_text(home->at + entry->meta_offset, entry->meta_size);
        event->meta = event->copied_metadata;
    } else
        event->meta = entry->rest;
    if (!entry->segment) {
        memcpy(event->place, entry->rest + meta, entry->size);
        event->data = event->place;
        return NULL;
    }
    struct mapping *segment = find_segment(context, entry->segment);
    if (segment == NULL)
        return "it lies in a segment that was never shared";
    if (!dora_lies_at(entry->offset, entry->size, segment->size))
        return "it does not lie in its segment";
    int slot = slots_take(input->slots);
    if (slot < 0) {
        /* All hazard slots are in use. */
        event->copied = copy_text(segment->at + entry->offset, entry->size);
        event->data = event->copied;
        return NULL;
    }
    dora_ring_borrow(context->box->words, input->slots->first + (uint64_t)slot, entry);
    event->payload = borrow_new(input->slots, slot, segment);
    event->data = segment->at + entry->offset;
    return NULL;
}

static struct event *refused_stamp(struct context *context, uint64_t stamp)
{
    struct dora_words words = context->box->words;
    dora_store(words, BOX_STAMPS_REFUSED, dora_read_count(words, BOX_STAMPS_REFUSED) + 1,
               memory_order_relaxed);
    if (!context->warned_stamp)
        log_text(context, "warn",
                 "a message is dated %.1f s ahead of this machine's clock: such timestamps do not "
                 "move this node's clock; check the clock of the sender (`dora node info` counts "
                 "them)",
                 ((double)stamp - (double)dora_realtime_ns()) / 1e9);
    context->warned_stamp = true;
    return NULL;
}

/* Read the newest message again, which an earlier process has taken. */
static struct event *recall(struct context *context, struct input *input, struct event *event)
{
    struct dora_words words = context->box->words;
    uint64_t head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
    if (head != input->inlet.tail || head == 0)
        return NULL;
    uint64_t at = input->inlet.entries + ((head - 1) & input->inlet.mask) * ENTRY_SIZE;
    if (dora_entry_read(words, at, &event->entry) != DORA_DONE)
        return NULL;
    const char *why = place_payload(context, input, event);
    atomic_thread_fence(memory_order_acquire); /* as in `dora_ring_keep` */
    if (dora_load(words, input->ring + RING_HEAD, memory_order_relaxed) != head)
        return NULL;
    if (why != NULL) {
        event_free(event);
        return unreadable(context, input, why);
    }
    return event;
}

static void release_content(struct event *event)
{
    borrow_drop(event->payload);
    free(event->copied);
    free(event->copied_metadata);
    event->payload = NULL;
    event->copied = event->copied_metadata = NULL;
}

struct event *take_message(struct context *context, struct input *input)
{
    struct dora_words words = context->box->words;
    struct dora_inlet *inlet = &input->inlet;
    uint64_t lost = 0;
    struct event *event = NULL;
    const char *damage = NULL;
    for (int lap = 0; lap < MAX_LAPS; lap++) {
        enum dora_outcome read;
        bool lane = false;
        uint64_t head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
        if (input->pending || head != inlet->tail ||
            dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire) !=
                inlet->lane_tail) {
            if (event == NULL) {
                event = event_new(INPUT, input->id, NULL);
                event->has_message = true;
            }
        } else
            break;
        if (input->pending) {
            input->pending = false;
            struct event *again = recall(context, input, event);
            if (again != NULL)
                return again;
            release_content(event);
            continue;
        }
        if (dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire) !=
            inlet->lane_tail) {
            enum lane_next next = lane_next(context, input, &lost, &damage);
            if (next == EMPTY || next == LAPPED)
                break;
            lane = next == IN_LANE;
            head = dora_load(words, input->ring + RING_HEAD, memory_order_acquire);
            if (!lane && (head == inlet->tail ||
                          (inlet->limit.given && inlet->tail >= inlet->limit.value)))
                break;
            read = lane ? dora_lane_read(words, inlet, input->lane_entries, &event->entry)
                        : dora_entry_read(words,
                                          inlet->entries + (inlet->tail & inlet->mask) * ENTRY_SIZE,
                                          &event->entry);
        } else {
            if (head < inlet->tail) {
                inlet->tail = head;
                dora_store(words, input->ring + RING_TAIL, head, memory_order_release);
                damage = "the count of its messages went back";
                break;
            }
            read = dora_ring_read(words, inlet, &event->entry);
            if (read == DORA_NOTHING)
                break;
            if (read == DORA_NOT_MINE &&
                (dora_load(words, input->ring + RING_LANE_HEAD, memory_order_acquire) !=
                     inlet->lane_tail ||
                 dora_load(words, input->ring + RING_HEAD, memory_order_acquire) < inlet->tail))
                continue;
        }
        uint64_t tail = lane ? inlet->lane_tail : inlet->tail;
        const char *why = read == DORA_NOT_MINE ? "it says that it has more bytes than its entry"
                                                : place_payload(context, input, event);
        if (input->removed && inlet->limit.given && !lane && tail >= inlet->limit.value)
            break; /* removed while its segment was waited for */
        uint64_t latency_sum = inlet->latency_sum;
        if (!(lane ? dora_lane_keep : dora_ring_keep)(words, inlet, &event->entry, tail)) {
            release_content(event); /* the producer has lapped us */
            continue;
        }
        if (input->may_be_late) {
            input->may_be_late = false;
            if (event->entry.stamp < (uint64_t)input->since_ns) {
                /* It was sent before this edge existed: its age is no latency. */
                inlet->latency.given = false;
                dora_uncount_latency(words, input->ring, inlet->latency.value);
                inlet->latency_sum = latency_sum;
                dora_store(words, input->ring + RING_LATENCY_SUM, latency_sum,
                           memory_order_relaxed);
            }
        }
        if (input->space_bell >= 0 && dora_ring_has_waiter(words, inlet))
            dora_bell_ring(input->space_bell);
        if (lost > 0)
            log_text(context, "error",
                     "input `%s`: %llu messages with a request_id or goal_id were dropped: the "
                     "queue is full of newer ones; read faster, or give the input a larger "
                     "`queue_size`",
                     input->id, (unsigned long long)lost);
        if (why != NULL) {
            event_free(event);
            return unreadable(context, input, why);
        }
        if (!dora_clock_saw(words, &context->clock, event->entry.stamp))
            refused_stamp(context, event->entry.stamp);
        event->stamp = event->entry.stamp > INT64_MAX ? INT64_MAX : (int64_t)event->entry.stamp;
        if (input->check != NULL)
            check_received(context, input, event);
        return event;
    }
    event_free(event);
    return damage == NULL ? NULL : unreadable(context, input, damage);
}
