/* The two ends of an edge: `Outlet` of dorad/shm/outlet.py and `Inlet` of dorad/shm/inlet.py,
   without a lane.

   A consumer trusts nothing that it reads from the mailbox: it copies an entry once, and each field
   of the copy is checked before it is used. */

#include "core.h"

#include <string.h>

bool dora_ring_lies_in(struct dora_words words, uint64_t base, uint64_t entries, uint64_t mask)
{
    size_t count = words.count;
    return words.at != NULL && count >= RING_WORDS && base <= count - RING_WORDS &&
           entries % WORD == 0 && mask < count && entries <= count * WORD &&
           (mask + 1) * ENTRY_SIZE <= count * WORD - entries;
}

bool dora_ring_plan(struct dora_words words, uint64_t base, struct dora_plan *plan)
{
    if (words.at == NULL || words.count < RING_WORDS || base > words.count - RING_WORDS)
        return false;
    /* Each word is read once: all senders can write to them. */
    uint64_t capacity = dora_load(words, base + RING_CAPACITY, memory_order_relaxed);
    uint64_t queue_size = dora_load(words, base + RING_QUEUE_SIZE, memory_order_relaxed);
    uint64_t lane = dora_load(words, base + RING_LANE, memory_order_relaxed);
    uint64_t size = words.count * WORD, entries = (base + RING_WORDS) * WORD;
    if (base < BOX_WORDS || base % LINE || capacity < MIN_CAPACITY || capacity & (capacity - 1) ||
        queue_size < 1 || queue_size >= capacity || capacity > size / ENTRY_SIZE)
        return false;
    uint64_t end = entries + capacity * ENTRY_SIZE;
    if (lane != 0) {
        if (lane != end)
            return false;
        end += capacity * (WORD + ENTRY_SIZE);
    }
    if (end > size)
        return false;
    *plan = (struct dora_plan){base, entries, capacity, queue_size, lane};
    return true;
}

/* -- the producer's end ------------------------------------------------------------------------ */

bool dora_ring_is_full(struct dora_words words, const struct dora_outlet *outlet)
{
    uint64_t base = outlet->base;
    uint64_t head = dora_load(words, base + RING_HEAD, memory_order_relaxed);
    /* Acquire: the consumer has copied out what it took. Pairs with the stores of TAIL in
       `dora_ring_keep`. */
    uint64_t tail = dora_load(words, base + RING_TAIL, memory_order_acquire);
    uint64_t lane_head = dora_load(words, base + RING_LANE_HEAD, memory_order_relaxed);
    uint64_t lane_tail = dora_load(words, base + RING_LANE_TAIL, memory_order_acquire);
    int64_t waiting = (int64_t)(head - tail + lane_head - lane_tail);
    return waiting >= (int64_t)outlet->queue_size &&
           dora_load(words, base + RING_STATE, memory_order_relaxed) == STATE_ATTACHED;
}

void dora_ring_push(struct dora_words words, struct dora_outlet *outlet, const void *entry,
                    size_t length, uint64_t size, uint64_t stamp)
{
    uint64_t head = outlet->head;
    char *entries = (char *)words.at + outlet->entries;
    memcpy(entries + (head & outlet->mask) * ENTRY_SIZE, entry, length);
    outlet->bytes += size;
    dora_store(words, outlet->base + RING_BYTES, outlet->bytes, memory_order_relaxed);
    dora_store(words, outlet->base + RING_LAST, stamp, memory_order_relaxed);
    outlet->head = head + 1;
    /* Release: the entry, and the sample it names, come before. Pairs with the load of HEAD in
       `dora_ring_read`. */
    dora_store(words, outlet->base + RING_HEAD, head + 1, memory_order_release);
}

void dora_lane_push(struct dora_words words, struct dora_outlet *lane, struct dora_outlet *ring,
                    uint64_t marks, const struct dora_entry *entry, size_t length)
{
    uint64_t head = lane->head, slot = head & lane->mask;
    memcpy((char *)words.at + lane->entries + slot * ENTRY_SIZE, entry, length);
    dora_store(words, marks + slot, ring->head, memory_order_relaxed);
    ring->bytes += entry->size;
    dora_store(words, ring->base + RING_BYTES, ring->bytes, memory_order_relaxed);
    dora_store(words, ring->base + RING_LAST, entry->stamp, memory_order_relaxed);
    if (entry->flags & FLUSH)
        dora_store(words, ring->base + RING_FLUSHED, head + 1, memory_order_relaxed);
    lane->head = head + 1;
    /* Release: the entry and its mark come before. Pairs with the load of LANE_HEAD in
       `dora_ring_read`. */
    dora_store(words, ring->base + RING_LANE_HEAD, head + 1, memory_order_release);
}

void dora_ring_pushed(void)
{
    /* We stored HEAD and look at ASLEEP; pairs with the fence of `dora_fall_asleep`, which stores
       ASLEEP and looks at HEAD. Also: HEAD before the slots that `dora_ring_is_done_with` looks at,
       and before the next entry, for a consumer that is being lapped. */
    atomic_thread_fence(memory_order_seq_cst);
}

void dora_ring_announce_waiting(struct dora_words words, const struct dora_outlet *outlet,
                                bool waiting)
{
    dora_store(words, outlet->base + RING_WAITING, waiting, memory_order_relaxed);
    /* We stored WAITING and look at TAIL; pairs with the fence of `dora_ring_has_waiter`, which
       comes after a store of TAIL and looks at WAITING. */
    atomic_thread_fence(memory_order_seq_cst);
}

bool dora_ring_is_done_with(struct dora_words words, const struct dora_outlet *outlet,
                            uint64_t index, uint64_t key)
{
    /* Acquire: pairs with the store of TAIL in `dora_ring_keep`, which comes after that of the
       slot. */
    uint64_t tail = outlet->base + (outlet->lane ? RING_LANE_TAIL : RING_TAIL);
    if (dora_load(words, tail, memory_order_acquire) <= index &&
        outlet->head - index <= outlet->queue_size)
        return outlet->closed &&
               dora_load(words, outlet->base + RING_STATE, memory_order_relaxed) == STATE_CLOSED;
    /* We stored HEAD and look for a slot; pairs with the fence of `dora_ring_borrow`, which stores a
       slot, and `dora_ring_keep` looks at HEAD after it. One of the two sees the other's. */
    atomic_thread_fence(memory_order_seq_cst);
    const dora_word *slots = words.at + outlet->base + RING_HAZARDS;
    for (size_t slot = 0; slot < HAZARDS; slot++)
        /* Acquire: pairs with the store of `dora_ring_give_back`. */
        if (atomic_load_explicit(&slots[slot], memory_order_acquire) == key)
            return false;
    return true;
}

/* -- the consumer's end ------------------------------------------------------------------------ */

/* Copy words of the ring out. A producer that laps us may be writing them: `dora_ring_keep` finds
   that out. */
static void copy_out(void *into, const dora_word *from, size_t words)
{
    for (size_t at = 0; at < words; at++) {
        uint64_t value = atomic_load_explicit(&from[at], memory_order_relaxed);
        /* Not by a pointer to words: the fields that are copied have other types. */
        memcpy((char *)into + at * sizeof value, &value, sizeof value);
    }
}

enum dora_outcome dora_entry_read(struct dora_words words, uint64_t from, struct dora_entry *entry)
{
    const dora_word *at = words.at + from / WORD;
    const size_t header = offsetof(struct dora_entry, rest) / WORD;
    copy_out(entry, at, header);
    size_t rest = entry->meta_segment ? 0 : entry->meta_size;
    if (rest > INLINE)
        return DORA_NOT_MINE;
    if (!entry->segment) {
        if (entry->size > INLINE - rest)
            return DORA_NOT_MINE;
        rest += entry->size;
    }
    copy_out(entry->rest, at + header, (rest + WORD - 1) / WORD);
    return DORA_DONE;
}

enum dora_outcome dora_ring_read(struct dora_words words, struct dora_inlet *inlet,
                                 struct dora_entry *entry)
{
    /* Acquire: the entry comes after. Pairs with the release in `dora_ring_push`. */
    uint64_t head = dora_load(words, inlet->base + RING_HEAD, memory_order_acquire);
    if (dora_load(words, inlet->base + RING_LANE_HEAD, memory_order_acquire) != inlet->lane_tail)
        return DORA_NOT_MINE;
    uint64_t tail = inlet->tail;
    if (head == tail || (inlet->limit.given && tail >= inlet->limit.value))
        return DORA_NOTHING;
    if (head < tail)
        return DORA_NOT_MINE; /* HEAD was overwritten. */
    if (head - tail > inlet->queue_size) {
        /* Older ones are dropped, and so counted: TAIL - RECEIVED. */
        dora_hop_dropped(words, inlet->base, tail, head - inlet->queue_size - tail);
        inlet->tail = tail = head - inlet->queue_size;
        dora_store(words, inlet->base + RING_TAIL, tail, memory_order_release);
        if (inlet->limit.given && tail >= inlet->limit.value)
            return DORA_NOTHING;
    }
    return dora_entry_read(words, inlet->entries + (tail & inlet->mask) * ENTRY_SIZE, entry);
}

enum dora_outcome dora_lane_read(struct dora_words words, const struct dora_inlet *inlet,
                                 uint64_t entries, struct dora_entry *entry)
{
    return dora_entry_read(words, entries + (inlet->lane_tail & inlet->mask) * ENTRY_SIZE, entry);
}

void dora_ring_borrow(struct dora_words words, size_t slot, const struct dora_entry *entry)
{
    dora_store(words, slot, dora_sample_key(entry->segment, entry->offset), memory_order_relaxed);
    /* We stored a slot, and `dora_ring_keep` looks at HEAD; pairs with the fence in
       `dora_ring_is_done_with`, and that of `dora_ring_pushed`, which come after a store of HEAD and
       before a look at the slots. */
    atomic_thread_fence(memory_order_seq_cst);
}

void dora_ring_give_back(dora_word *slot)
{
    /* Release: the last reads of the sample come before. Pairs with the load of the slots in
       `dora_ring_is_done_with`. */
    atomic_store_explicit(slot, 0, memory_order_release);
}

static void count_taken(struct dora_words words, struct dora_inlet *inlet, uint64_t stamp,
                        uint64_t queued)
{
    /* Release: TAIL comes before. Pairs with the acquire in `counters` of dorad/shm/counters.py. */
    dora_store(words, inlet->base + RING_RECEIVED, ++inlet->received, memory_order_release);
    int64_t now = dora_time_ns(words);
    dora_hop_received(words, inlet->base, stamp, (uint64_t)now, queued);
    int64_t latency = stamp > INT64_MAX ? -1 : now - (int64_t)stamp;
    if (latency < 0 || latency >= BEYOND_NS)
        /* A clock was set, or the sender's is ahead by having seen another's. */
        latency = 0;
    dora_count_latency(words, inlet->base, (uint64_t)latency);
    bool first = !inlet->latency.given;
    int64_t last = (int64_t)inlet->latency.value;
    inlet->latency = (struct dora_optional){true, (uint64_t)latency};
    uint64_t change = (uint64_t)(latency > last ? latency - last : last - latency);
    if (inlet->latency_sum > UINT64_MAX - (uint64_t)latency ||
        (!first && inlet->latency_diff > UINT64_MAX - change)) {
        /* Only a sender whose timestamps are wrong on purpose gets past 64 bits. */
        inlet->latency_sum = inlet->latency_diff = 0;
        return;
    }
    inlet->latency_sum += (uint64_t)latency;
    dora_store(words, inlet->base + RING_LATENCY_SUM, inlet->latency_sum, memory_order_relaxed);
    if (!first) {
        inlet->latency_diff += change;
        dora_store(words, inlet->base + RING_LATENCY_DIFF, inlet->latency_diff,
                   memory_order_relaxed);
    }
}

bool dora_ring_keep(struct dora_words words, struct dora_inlet *inlet,
                    const struct dora_entry *entry, uint64_t tail)
{
    /* Acquire: the entry was copied out before this second look at HEAD. Pairs with the fence of
       `dora_ring_pushed`, which keeps HEAD before the entry that laps this one. */
    atomic_thread_fence(memory_order_acquire);
    uint64_t queued = dora_load(words, inlet->base + RING_HEAD, memory_order_relaxed) - tail;
    if (inlet->tail != tail || queued > inlet->queue_size)
        return false;
    inlet->tail = tail + 1;
    /* Release: the entry was copied out, and the slot stored, before. Pairs with the loads of TAIL
       in `dora_ring_is_full` and `dora_ring_is_done_with`. */
    dora_store(words, inlet->base + RING_TAIL, inlet->tail, memory_order_release);
    count_taken(words, inlet, entry->stamp, queued - 1);
    return true;
}

bool dora_lane_keep(struct dora_words words, struct dora_inlet *inlet,
                    const struct dora_entry *entry, uint64_t tail)
{
    /* Acquire: as in `dora_ring_keep`, of LANE_HEAD. */
    atomic_thread_fence(memory_order_acquire);
    uint64_t queued = dora_load(words, inlet->base + RING_LANE_HEAD, memory_order_relaxed) - tail;
    if (inlet->lane_tail != tail || queued > inlet->queue_size)
        return false;
    inlet->lane_tail = tail + 1;
    /* Release: as in `dora_ring_keep`, of LANE_TAIL. */
    dora_store(words, inlet->base + RING_LANE_TAIL, inlet->lane_tail, memory_order_release);
    count_taken(words, inlet, entry->stamp, queued - 1);
    return true;
}

bool dora_ring_has_waiter(struct dora_words words, const struct dora_inlet *inlet)
{
    /* We stored TAIL and look at WAITING; pairs with the fence of `dora_ring_announce_waiting`,
       which stores WAITING and looks at TAIL. */
    atomic_thread_fence(memory_order_seq_cst);
    return dora_load(words, inlet->base + RING_WAITING, memory_order_relaxed) != 0;
}
