/* Place a message in memory once, and push it to every subscriber; see dorad/node/sender.py. */

#include "node.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define POLL_NS 100000000 /* how often a sender that waits for room looks for packets */
#define MAX_KEPT (1 << 16) /* bytes of a message that is kept for late subscribers */

static struct dora_words words_of(const struct edge *edge)
{
    return edge->peer->box->words;
}

static void wake(const struct edge *edge)
{
    if (dora_is_asleep(words_of(edge)))
        dora_bell_ring(edge->peer->bell);
}

static void wake_all(struct edge *const *edges, size_t count)
{
    dora_ring_pushed();
    for (size_t at = 0; at < count; at++)
        wake(edges[at]);
}

/* Block until a ring with backpressure has room; false if the node stops first. */
static bool has_room(struct context *context, struct edge *edge, struct edge *const *edges,
                     size_t count)
{
    struct dora_words words = words_of(edge);
    bool room = false;
    if (!dora_ring_is_full(words, &edge->ring))
        return true;
    wake_all(edges, count); /* those that have the message already */
    while (!edge->ring.closed) {
        dora_ring_announce_waiting(words, &edge->ring, true);
        if (!edge->ring.blocking || !dora_ring_is_full(words, &edge->ring)) {
            room = true;
            break;
        }
        if (context->stopping || context->lost) {
            uint64_t at = edge->ring.base + RING_REFUSED;
            dora_store(words, at, dora_read_count(words, at) + 1, memory_order_relaxed);
            break;
        }
        beat(context);
        struct epoll_event ready[DORA_MAX_READY];
        int64_t due = dora_monotonic_ns() + POLL_NS;
        if (dora_sleep(context->space_epoll, &due, false, ready) < 0 && errno != EINTR)
            break;
        read_mail(context);
    }
    dora_ring_announce_waiting(words, &edge->ring, false);
    return room;
}

static void push(struct edge *edge, const struct dora_entry *entry, size_t length,
                 struct sample *sample, struct sample *holder)
{
    struct dora_words words = words_of(edge);
    bool lane = entry->flags != 0 && edge->has_lane;
    uint64_t index = lane ? edge->lane.head : edge->ring.head;
    if (sample != NULL)
        sample_mark(sample, edge, index, lane);
    if (holder != NULL)
        sample_mark(holder, edge, index, lane);
    if (lane)
        dora_lane_push(words, &edge->lane, &edge->ring, edge->marks, entry, length);
    else
        dora_ring_push(words, &edge->ring, entry, length, entry->size, entry->stamp);
}

void copy_parts(char *into, const struct content *content)
{
    if (content->count == 0)
        dora_written_place(&content->written, into);
    else if (content->size > 0)
        memcpy(into, content->parts[0].data, content->size);
}

/* Push a message to receivers, which are held, or to none. */
static int push_message(struct context *context, struct edge **edges, size_t count,
                        struct content *content, const struct json_text *metadata, uint16_t flags,
                        uint64_t stamp)
{
    struct dora_entry entry = {
        .stamp = stamp,
        .length = content->length,
        .nulls = content->nulls,
        .size = content->size,
        .meta_size = (uint32_t)metadata->size,
        .code = content->code,
        .flags = flags,
    };
    struct sample *sample = content->sample, *holder = NULL;
    size_t length = offsetof(struct dora_entry, rest);
    bool fits = sample == NULL && content->size <= INLINE &&
                metadata->size <= INLINE - content->size;
    if (!fits && metadata->size > INLINE) {
        holder = pool_take(context, metadata->size);
        if (holder == NULL)
            goto failed;
        memcpy(sample_at(holder), metadata->at, metadata->size);
        entry.meta_offset = holder->offset;
        entry.meta_segment = holder->segment->number;
    } else if (metadata->size > 0) {
        memcpy(entry.rest, metadata->at, metadata->size);
        length += metadata->size;
    }
    if (fits) {
        memset(entry.rest + metadata->size, 0, content->size);
        copy_parts(entry.rest + metadata->size, content);
        length += content->size;
    } else if (sample == NULL && content->size > 0) {
        sample = pool_take(context, content->size);
        if (sample == NULL)
            goto failed;
        copy_parts(sample_at(sample), content);
    }
    if (sample != NULL) {
        entry.offset = sample->offset;
        entry.segment = sample->segment->number;
    }
    for (size_t at = 0; at < count; at++)
        if (!edges[at]->ring.blocking || has_room(context, edges[at], edges, count))
            push(edges[at], &entry, length, sample, holder);
    wake_all(edges, count);
    if (sample != NULL)
        pool_sent(context, sample);
    if (holder != NULL)
        pool_sent(context, holder);
    content->sample = NULL;
    return 0;
failed:
    if (sample != NULL)
        pool_sent(context, sample);
    if (holder != NULL)
        pool_sent(context, holder);
    content->sample = NULL;
    return -1;
}

/* -- late subscribers -------------------------------------------------------------------------- */

void kept_free(struct kept *kept)
{
    if (kept == NULL)
        return;
    free(kept->payload);
    free(kept->metadata);
    free(kept);
}

/* Keep the last message of an output without subscribers, for late ones. */
static void keep(struct context *context, struct output *output, struct content *content,
                 const struct json_text *metadata, uint16_t flags)
{
    kept_free(output->kept);
    output->kept = NULL;
    if (content->size <= MAX_KEPT && metadata->size <= MAX_KEPT - content->size) {
        struct kept *kept = must(calloc(1, sizeof *kept));
        kept->stamp = dora_clock_now(context->box->words, &context->clock);
        kept->entry.code = content->code;
        kept->entry.length = content->length;
        kept->entry.nulls = content->nulls;
        kept->entry.size = content->size;
        kept->entry.flags = flags;
        kept->payload = must(calloc(1, content->size + 1));
        if (content->sample != NULL)
            memcpy(kept->payload, sample_at(content->sample), content->size);
        else
            copy_parts(kept->payload, content);
        kept->metadata = copy_text(metadata->at ? metadata->at : "", metadata->size);
        kept->metadata_size = metadata->size;
        output->kept = kept;
    }
    if (content->sample != NULL)
        pool_sent(context, content->sample);
    content->sample = NULL;
}

static uint64_t last_of(const struct edge *edge)
{
    return dora_load(words_of(edge), edge->ring.base + RING_LAST, memory_order_relaxed);
}

/* Return the sample of this node at a place of a message that the newest edge still holds; false if
   it may have been reused. */
static bool is_held(struct context *context, const struct edge *newest, uint32_t segment,
                    uint64_t offset, struct sample **sample)
{
    *sample = NULL;
    if (segment == 0)
        return true;
    *sample = pool_find(context, segment, offset);
    if (*sample == NULL)
        return newest->latched; /* the daemon keeps those of an earlier process */
    if (newest->latched)
        return true;
    for (size_t at = 0; at < (*sample)->count; at++)
        if ((*sample)->marks[at].edge == newest && !(*sample)->marks[at].lane &&
            (*sample)->marks[at].index == newest->ring.head - 1)
            return true;
    return false;
}

/* Send the last message of an output to those that lack it; false if it is no longer in memory. */
static bool send_last(struct context *context, struct output *output)
{
    struct edge *newest = output->edges[0];
    for (size_t at = 1; at < output->count; at++) {
        struct edge *edge = output->edges[at];
        uint64_t last = last_of(edge), best = last_of(newest);
        if (last > best || (last == best && edge->latched && !newest->latched))
            newest = edge;
    }
    struct kept *kept = output->kept;
    uint64_t stamp = last_of(newest);
    if (kept != NULL && kept->stamp > stamp)
        stamp = kept->stamp;
    struct edge **late = must(calloc(output->count, sizeof *late));
    size_t count = 0;
    for (size_t at = 0; at < output->count; at++) {
        struct edge *edge = output->edges[at];
        if (edge->latched && last_of(edge) < stamp &&
            !(edge->ring.blocking && dora_ring_is_full(words_of(edge), &edge->ring)))
            late[count++] = edge;
    }
    bool done = true;
    if (count > 0 && kept != NULL && kept->stamp == stamp) {
        struct content content = {
            .code = kept->entry.code,
            .length = kept->entry.length,
            .nulls = kept->entry.nulls,
            .size = kept->entry.size,
            .parts = {{0, kept->entry.size, kept->payload}},
            .count = 1,
        };
        struct json_text metadata = {kept->metadata, kept->metadata_size, 0};
        done = push_message(context, late, count, &content, &metadata, kept->entry.flags, stamp) == 0;
    } else if (count > 0) {
        struct dora_entry entry;
        struct sample *sample = NULL, *holder = NULL;
        uint64_t at =
            newest->ring.entries + ((newest->ring.head - 1) & newest->ring.mask) * ENTRY_SIZE;
        done = dora_entry_read(words_of(newest), at, &entry) == DORA_DONE && entry.stamp == stamp &&
               is_held(context, newest, entry.segment, entry.offset, &sample) &&
               is_held(context, newest, entry.meta_segment, entry.meta_offset, &holder);
        for (size_t edge = 0; done && edge < count; edge++)
            push(late[edge], &entry, sizeof entry, sample, holder);
        wake_all(late, count);
    }
    free(late);
    return done;
}

void catch_up(struct context *context)
{
    for (size_t at = 0; at < context->output_count; at++) {
        struct output *output = &context->outputs[at];
        if (!output->late)
            continue;
        output->late = false;
        if (output->count > 0 && !send_last(context, output)) {
            struct json_text text = {0};
            text_put(&text, "output ");
            text_put(&text, output->id);
            text_put(&text, ": the last message is no longer in memory; a new latched input starts "
                            "with the next message");
            note(context, text.at);
            free(text.at);
        }
        kept_free(output->kept);
        output->kept = NULL;
    }
}

/* -- sending ----------------------------------------------------------------------------------- */

static void warn_of_undeclared(struct context *context, const char *id, size_t size)
{
    for (size_t at = 0; at < context->undeclared.count; at++)
        if (strlen(context->undeclared.at[at]) == size &&
            memcmp(context->undeclared.at[at], id, size) == 0)
            return;
    struct names *names = &context->undeclared;
    if (names->count < 1000) {
        names->at = must(realloc(names->at, (names->count + 1) * sizeof *names->at));
        names->at[names->count++] = copy_text(id, size);
    }
    log_text(context, "warn",
             "Ignoring output `%.*s` not in node's output list. Add it to `outputs` of the node in "
             "the dataflow",
             (int)size, id);
}

static int send_to(struct context *context, struct output *output, struct content *content,
                   const DoraMetadata *metadata)
{
    struct json_text text = {0};
    uint16_t flags = 0;
    if (metadata != NULL)
        metadata_encode(metadata, &text, &flags);
    if (output->count == 0) {
        keep(context, output, content, &text, flags);
        free(text.at);
        return 0;
    }
    /* Held: packets that are handled during a wait for room may connect others. */
    struct edge *few[16], **edges = few;
    size_t count = output->count;
    if (count > sizeof few / sizeof *few)
        edges = must(malloc(count * sizeof *edges));
    for (size_t at = 0; at < count; at++) {
        edges[at] = output->edges[at];
        edges[at]->users++;
    }
    uint64_t stamp = dora_clock_now(context->box->words, &context->clock);
    int result = push_message(context, edges, count, content, &text, flags, stamp);
    if (result == 0) {
        /* Those that may have been waited for come last. */
        bool waited = edges[count - 1]->ring.blocking;
        dora_hop_sent(context->box->words, output->key, stamp,
                      waited ? (uint64_t)dora_time_ns(context->box->words) : stamp, content->size);
        dora_hop_context(context->box->words, output->key, stamp, text.at, text.size);
    }
    for (size_t at = 0; at < count; at++)
        edge_drop(edges[at]);
    if (edges != few)
        free(edges);
    free(text.at);
    if (result == 0)
        pool_trim(context, (int64_t)stamp);
    return result;
}

int send_content(struct context *context, const char *id, size_t size, struct content *content,
                 const DoraMetadata *metadata)
{
    beat(context);
    refresh(context);
    if (context->mock != NULL) {
        mock_send(context, id, size, content, metadata);
        return 0;
    }
    struct output *output = find_output(context, id, size);
    int result = 0;
    if (output == NULL) {
        warn_of_undeclared(context, id, size);
        if (content->sample != NULL)
            pool_sent(context, content->sample);
    } else {
        if (output->late)
            catch_up(context);
        result = check_sent(context, output, content->schema, content->array, metadata);
        if (result == 0)
            result = send_to(context, output, content, metadata);
        else if (content->sample != NULL)
            pool_sent(context, content->sample);
    }
    if (result < 0)
        log_text(context, "error", "output `%.*s`: %s", (int)size, id, last_error());
    beat(context);
    return result;
}

/* -- buffers ----------------------------------------------------------------------------------- */

struct sample *held_at(struct context *context, const void *buffer)
{
    for (size_t at = context->held_count; at > 0; at--)
        if (sample_at(context->held[at - 1]) == buffer)
            return context->held[at - 1];
    return NULL;
}

void unhold(struct context *context, struct sample *sample)
{
    size_t at = 0;
    while (context->held[at] != sample)
        at++;
    context->held[at] = context->held[--context->held_count];
}
