/* The consumer's end of a lane: which message is next, and which ones a flush has voided; see
   dorad/shm/lane.py. */

#include "node.h"

#include <stdlib.h>
#include <string.h>

void lane_init(struct input *input, struct dora_words words, const struct dora_plan *plan)
{
    input->has_lane = plan->lane != 0;
    input->marks = plan->lane / WORD;
    input->lane_entries = plan->lane + plan->capacity * WORD;
    input->inlet.lane_tail = dora_read_count(words, plan->base + RING_LANE_TAIL);
}

static void drop_flushes(struct input *input, size_t count)
{
    if (count == 0)
        return;
    for (size_t at = 0; at < count; at++)
        free(input->flushes[at].session);
    input->flush_count -= count;
    memmove(input->flushes, input->flushes + count, input->flush_count * sizeof *input->flushes);
}

void lane_free(struct input *input)
{
    drop_flushes(input, input->flush_count);
    free(input->flushes);
}

static uint64_t head_of(struct dora_words words, const struct input *input, bool lane)
{
    /* Acquire: what was pushed before comes before. Pairs with the release of a push. */
    return dora_load(words, input->ring + (lane ? RING_LANE_HEAD : RING_HEAD),
                     memory_order_acquire);
}

void skip_to(struct context *context, struct input *input, bool lane, uint64_t tail)
{
    uint64_t before = lane ? input->inlet.lane_tail : input->inlet.tail;
    if (tail > before)
        dora_hop_dropped(context->box->words, input->ring, before, tail - before);
    if (lane)
        input->inlet.lane_tail = tail;
    else
        input->inlet.tail = tail;
    dora_store(context->box->words, input->ring + (lane ? RING_LANE_TAIL : RING_TAIL), tail,
               memory_order_release);
    if (input->space_bell >= 0 && dora_ring_has_waiter(context->box->words, &input->inlet))
        dora_bell_ring(input->space_bell);
}

/* Return the session of the entry at a byte. The caller checks for overwriting. */
static char *session_at(struct context *context, uint64_t at)
{
    struct dora_entry entry;
    if (dora_entry_read(context->box->words, at, &entry) == DORA_NOT_MINE || !entry.meta_size)
        return NULL;
    if (!entry.meta_segment)
        return session_of(entry.rest, entry.meta_size);
    const struct mapping *home = find_segment(context, entry.meta_segment);
    if (home == NULL || !dora_lies_at(entry.meta_offset, entry.meta_size, home->size))
        return NULL;
    char *copy = copy_text(home->at + entry.meta_offset, entry.meta_size);
    char *session = session_of(copy, entry.meta_size);
    free(copy);
    return session;
}

static uint16_t flags_at(struct dora_words words, uint64_t at)
{
    struct dora_entry entry;
    uint64_t word = dora_load(words, (at + ENTRY_CODE) / WORD, memory_order_relaxed);
    memcpy((char *)&entry + ENTRY_CODE / WORD * WORD, &word, sizeof word);
    return entry.flags;
}

/* Record the flushes of the lane up to `lane_head`; false if the producer has lapped us. */
static bool scan(struct context *context, struct input *input, uint64_t lane_head)
{
    struct dora_words words = context->box->words;
    uint64_t tail = input->inlet.lane_tail;
    size_t gone = 0, before = input->flush_count;
    while (gone < input->flush_count && input->flushes[gone].at < tail)
        gone++;
    drop_flushes(input, gone);
    before = input->flush_count;
    for (uint64_t at = input->scanned > tail ? input->scanned : tail; at < lane_head; at++) {
        uint64_t slot = at & input->inlet.mask, entry = input->lane_entries + slot * ENTRY_SIZE;
        if (!(flags_at(words, entry) & FLUSH))
            continue;
        input->flushes =
            must(realloc(input->flushes, (input->flush_count + 1) * sizeof *input->flushes));
        input->flushes[input->flush_count++] =
            (struct flush){at, dora_load(words, input->marks + slot, memory_order_relaxed),
                           session_at(context, entry)};
    }
    if (head_of(words, input, true) - tail > input->inlet.queue_size) {
        while (input->flush_count > before)
            free(input->flushes[--input->flush_count].session);
        return false;
    }
    if (lane_head > input->scanned)
        input->scanned = lane_head;
    return true;
}

/* Skip the next message if a later flush voids it; return true to look at both again. */
static bool drop_void(struct context *context, struct input *input, uint64_t lane_head, bool lane)
{
    struct dora_words words = context->box->words;
    if (!scan(context, input, lane_head))
        return true;
    uint64_t index = lane ? input->inlet.lane_tail : input->inlet.tail;
    uint64_t entry = (lane ? input->lane_entries : input->inlet.entries) +
                     (index & input->inlet.mask) * ENTRY_SIZE;
    if (lane && flags_at(words, entry) & CORRELATED)
        return false;
    char *session = session_at(context, entry);
    bool is_void = false;
    for (size_t at = 0; at < input->flush_count && !is_void; at++) {
        const struct flush *flush = &input->flushes[at];
        is_void = (lane ? flush->at : flush->before) > index &&
                  (flush->session == NULL ||
                   (session != NULL && strcmp(flush->session, session) == 0));
    }
    free(session);
    if (head_of(words, input, lane) - index > input->inlet.queue_size)
        return true;
    if (is_void)
        skip_to(context, input, lane, index + 1);
    return is_void;
}

enum lane_next lane_next(struct context *context, struct input *input, uint64_t *lost,
                         const char **damage)
{
    struct dora_words words = context->box->words;
    struct dora_inlet *inlet = &input->inlet;
    if (!input->has_lane) {
        /* What a peer pushes there anyway is dropped. */
        skip_to(context, input, true, head_of(words, input, true));
        return IN_RING;
    }
    for (uint64_t lap = 0; lap < MAX_LAPS + 2 * inlet->queue_size; lap++) {
        /* In this order: what was sent before the lane's newest message is in the ring. */
        uint64_t lane_head = head_of(words, input, true), head = head_of(words, input, false);
        if (lane_head < inlet->lane_tail || head < inlet->tail) {
            bool lane = lane_head < inlet->lane_tail;
            skip_to(context, input, lane, lane ? lane_head : head);
            *damage = "the count of its messages went back";
            return EMPTY;
        }
        uint64_t kept = lane_head - inlet->lane_tail;
        if (kept > inlet->queue_size) {
            skip_to(context, input, true, lane_head - inlet->queue_size);
            *lost += kept - inlet->queue_size;
            continue;
        }
        if (head - inlet->tail > inlet->queue_size - kept)
            skip_to(context, input, false, head - inlet->queue_size + kept);
        uint64_t before = dora_load(words, input->marks + (inlet->lane_tail & inlet->mask),
                                    memory_order_relaxed);
        if (head_of(words, input, true) - inlet->lane_tail > inlet->queue_size)
            continue;
        bool lane = kept > 0 && (!input->lane_limit.given || inlet->lane_tail < input->lane_limit.value);
        bool ring = head != inlet->tail && (!inlet->limit.given || inlet->tail < inlet->limit.value);
        if (!lane && !ring)
            return EMPTY;
        if (ring && lane)
            lane = before <= inlet->tail;
        if (dora_load(words, input->ring + RING_FLUSHED, memory_order_relaxed) > inlet->lane_tail &&
            drop_void(context, input, lane_head, lane))
            continue;
        return lane ? IN_LANE : IN_RING;
    }
    return LAPPED;
}
