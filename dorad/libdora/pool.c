/* The samples of this node: memory for payloads too large for an entry; see dorad/shm/pool.py. */

#include "node.h"

#include <stdlib.h>
#include <string.h>

/* -- lists ------------------------------------------------------------------------------------- */

static void append(struct line *line, struct sample *sample)
{
    sample->before = line->last;
    sample->after = NULL;
    if (line->last == NULL)
        line->first = sample;
    else
        line->last->after = sample;
    line->last = sample;
    line->count++;
}

static void take_out(struct line *line, struct sample *sample)
{
    if (sample->before == NULL)
        line->first = sample->after;
    else
        sample->before->after = sample->after;
    if (sample->after == NULL)
        line->last = sample->before;
    else
        sample->after->before = sample->before;
    sample->before = sample->after = NULL;
    line->count--;
}

static void clear_marks(struct sample *sample)
{
    for (size_t at = 0; at < sample->count; at++)
        edge_drop(sample->marks[at].edge);
    sample->count = 0;
}

void sample_mark(struct sample *sample, struct edge *edge, uint64_t index, bool lane)
{
    if (sample->count == sample->room) {
        sample->room = sample->room * 2 + 2;
        sample->marks = must(realloc(sample->marks, sample->room * sizeof *sample->marks));
    }
    edge->users++;
    sample->marks[sample->count++] = (struct mark){edge, index, lane};
}

char *sample_at(const struct sample *sample)
{
    return sample->segment->mapping->at + sample->offset;
}

static uint64_t key_of(const struct sample *sample)
{
    return dora_sample_key(sample->segment->number, sample->offset);
}

/* Return whether some subscriber may still read a sample. */
static bool is_reachable(const struct sample *sample)
{
    for (size_t at = 0; at < sample->count; at++) {
        const struct mark *mark = &sample->marks[at];
        const struct edge *edge = mark->edge;
        struct dora_words words = edge->peer->box->words;
        /* The newest message of a latched edge stays reachable after it was taken. */
        if (edge->latched &&
            dora_load(words, edge->ring.base + RING_LATCHED, memory_order_relaxed) != 0 &&
            dora_load(words, edge->ring.base + RING_HEAD, memory_order_relaxed) - mark->index <= 1)
            return true;
        const struct dora_outlet *outlet = mark->lane ? &edge->lane : &edge->ring;
        if (!dora_ring_is_done_with(words, outlet, mark->index, key_of(sample)))
            return true;
    }
    return false;
}

/* -- segments ---------------------------------------------------------------------------------- */

static void add_segment(struct pool *pool, int order, uint32_t number, struct mapping *mapping)
{
    struct segment *segment = must(calloc(1, sizeof *segment));
    *segment = (struct segment){.number = number, .order = order, .mapping = mapping};
    segment->count = mapping->size >> order;
    segment->samples = must(calloc(segment->count, sizeof *segment->samples));
    segment->next = pool->segments;
    pool->segments = segment;
    for (size_t at = segment->count; at > 0; at--) {
        struct sample *sample = &segment->samples[at - 1];
        sample->segment = segment;
        sample->offset = (uint64_t)(at - 1) << order;
        append(&pool->free[order], sample);
    }
}

static void write_request(struct context *context, const struct request *request)
{
    struct json_text text = {0};
    text_put(&text, "{\"t\":\"grow\",\"size\":");
    text_number(&text, (int64_t)request->size);
    text_put(&text, ",\"ask\":");
    text_number(&text, (int64_t)request->number);
    text_put(&text, "}");
    notify(context, &text);
    free(text.at);
}

static struct request *ask(struct context *context, int order, uint64_t size, bool ahead)
{
    struct request *request = must(calloc(1, sizeof *request));
    *request = (struct request){++context->last_request, size, order, ahead, .next = context->requests};
    context->requests = request;
    if (context->mock != NULL)
        mock_grow(context, request->number, size);
    else
        write_request(context, request);
    return request;
}

static void forget(struct context *context, struct request *request)
{
    struct request **place = &context->requests;
    while (*place != request)
        place = &(*place)->next;
    *place = request->next;
    free(request);
}

bool pool_answer(struct context *context, uint64_t number, uint32_t segment,
                 struct mapping *mapping)
{
    struct request *request = context->requests;
    while (request != NULL && (request->number != number || request->done))
        request = request->next;
    if (request == NULL)
        return false;
    request->done = true;
    request->granted = mapping != NULL;
    if (mapping != NULL)
        add_segment(&context->pool, request->order, segment, mapping);
    else if (request->ahead)
        context->pool.refused |= UINT64_C(1) << request->order;
    if (request->ahead)
        forget(context, request);
    return true;
}

void pool_repeat(struct context *context)
{
    for (const struct request *each = context->requests; each != NULL; each = each->next)
        if (!each->done)
            write_request(context, each);
}

static bool is_requested(const struct context *context, int order)
{
    for (const struct request *each = context->requests; each != NULL; each = each->next)
        if (each->order == order)
            return true;
    return false;
}

static uint64_t next_size(const struct pool *pool, int order)
{
    size_t count = 0;
    for (const struct segment *each = pool->segments; each != NULL; each = each->next)
        if (each->order == order)
            count += each->count;
    return dora_pool_next_size(order, count);
}

/* Get one more segment, and wait for it. */
static bool grow(struct context *context, int order, uint64_t size)
{
    struct request *request = ask(context, order, size, false);
    while (!request->done && !context->lost)
        wait_for_mail(context, 100);
    if (!request->done)
        fail("the daemon has closed the connection");
    bool granted = request->granted;
    forget(context, request);
    return granted;
}

/* Request a segment if few samples are free, and all others are in use. */
static void look_ahead(struct context *context, int order)
{
    const struct pool *pool = &context->pool;
    const struct line *flying = &pool->flying[order];
    if (!dora_pool_is_low(pool->free[order].count, flying->count) || context->lost ||
        pool->refused >> order & 1 || is_requested(context, order))
        return;
    for (const struct sample *each = flying->first; each != NULL; each = each->after)
        if (!is_reachable(each))
            return;
    ask(context, order, next_size(pool, order), true);
}

/* -- samples ----------------------------------------------------------------------------------- */

/* Return a sample that no subscriber can reach, or NULL. The memory of one that was sent lately is
   still in the processor's caches; without one, free samples come next, then the oldest. */
static struct sample *reuse(struct pool *pool, int order)
{
    struct line *free_ones = &pool->free[order], *flying = &pool->flying[order];
    struct sample *sample = flying->last;
    int looked = 0;
    while (sample != NULL && looked < RECENT && is_reachable(sample)) {
        sample = sample->before;
        looked++;
    }
    if (sample == NULL || looked == RECENT) {
        struct sample *recent = sample; /* this one and older ones were not looked at */
        if (free_ones->last != NULL) {
            sample = free_ones->last;
            take_out(free_ones, sample);
            return sample;
        }
        sample = recent == NULL ? NULL : flying->first;
        while (sample != NULL && is_reachable(sample))
            sample = sample == recent ? NULL : sample->after;
    }
    if (sample != NULL) {
        take_out(flying, sample);
        clear_marks(sample);
    }
    return sample;
}

struct sample *pool_take(struct context *context, uint64_t size)
{
    struct pool *pool = &context->pool;
    int order = dora_pool_order(size);
    struct sample *sample = order < 63 ? reuse(pool, order) : NULL;
    if (sample == NULL) {
        uint64_t wanted = next_size(pool, order), least = dora_pool_next_size(order, 0);
        if (order >= 63 ||
            (!grow(context, order, wanted) && (wanted == least || !grow(context, order, least)))) {
            char why[512];
            strncpy(why, last_error(), sizeof why - 1);
            why[sizeof why - 1] = 0;
            fail("a message of %llu bytes cannot be sent: %s", (unsigned long long)size, why);
            return NULL;
        }
        sample = pool->free[order].last;
        take_out(&pool->free[order], sample);
    }
    sample->segment->idle = false;
    sample->use = HELD;
    look_ahead(context, order);
    return sample;
}

void pool_sent(struct context *context, struct sample *sample)
{
    int order = sample->segment->order;
    sample->use = sample->count > 0 ? FLYING : FREE;
    append(sample->count > 0 ? &context->pool.flying[order] : &context->pool.free[order], sample);
}

struct sample *pool_find(struct context *context, uint32_t number, uint64_t offset)
{
    for (struct segment *each = context->pool.segments; each != NULL; each = each->next)
        if (each->number == number)
            return offset >> each->order < each->count ? &each->samples[offset >> each->order]
                                                       : NULL;
    return NULL;
}

/* -- giving back ------------------------------------------------------------------------------- */

static void segment_free(struct segment *segment)
{
    for (size_t at = 0; at < segment->count; at++) {
        clear_marks(&segment->samples[at]);
        free(segment->samples[at].marks);
    }
    mapping_drop(segment->mapping);
    free(segment->samples);
    free(segment);
}

static void retire(struct context *context, struct segment *segment)
{
    struct json_text text = {0};
    for (size_t at = 0; at < segment->count; at++)
        take_out(&context->pool.free[segment->order], &segment->samples[at]);
    text_put(&text, "{\"t\":\"retire\",\"segment\":");
    text_number(&text, segment->number);
    text_put(&text, "}");
    notify(context, &text);
    free(text.at);
    segment_free(segment);
}

static bool is_quiet(const struct segment *segment)
{
    for (size_t at = 0; at < segment->count; at++)
        if (segment->samples[at].use != FREE)
            return false;
    return true;
}

void pool_trim(struct context *context, int64_t now_ns)
{
    struct pool *pool = &context->pool;
    if (now_ns <= pool->trim_due_ns)
        return;
    pool->trim_due_ns = now_ns + TRIM_EVERY_NS;
    pool->refused = 0;
    for (int order = 0; order < ORDERS; order++)
        for (struct sample *each = pool->flying[order].first, *next; each != NULL; each = next) {
            next = each->after;
            if (is_reachable(each))
                continue;
            take_out(&pool->flying[order], each);
            clear_marks(each);
            pool_sent(context, each);
        }
    uint64_t size = 0;
    for (const struct segment *each = pool->segments; each != NULL; each = each->next)
        size += each->mapping->size;
    for (struct segment **place = &pool->segments; *place != NULL;) {
        struct segment *segment = *place;
        bool quiet = is_quiet(segment);
        if (quiet && segment->idle && size > pool->keep) {
            size -= segment->mapping->size;
            *place = segment->next;
            retire(context, segment);
            continue;
        }
        segment->idle = quiet;
        place = &segment->next;
    }
}

void pool_free(struct context *context)
{
    while (context->pool.segments != NULL) {
        struct segment *next = context->pool.segments->next;
        segment_free(context->pool.segments);
        context->pool.segments = next;
    }
    while (context->requests != NULL)
        forget(context, context->requests);
}
