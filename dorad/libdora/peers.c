/* What the daemon has given this node of others: the mailboxes of receivers, the segments of sources,
   and who receives each output. */

#include "node.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_TIMEOUT_NS (5 * DORA_NANOS)
#define MAX_SEGMENTS 4096 /* beyond, the numbers of retired ones are forgotten */

/* -- peers ------------------------------------------------------------------------------------- */

void peer_drop(struct peer *peer)
{
    if (--peer->users > 0)
        return;
    mapping_drop(peer->box);
    close(peer->bell);
    free(peer->node);
    free(peer);
}

void edge_drop(struct edge *edge)
{
    if (--edge->users > 0)
        return;
    peer_drop(edge->peer);
    free(edge);
}

static struct peer **find_peer(struct context *context, const char *node)
{
    for (size_t at = 0; at < context->peer_count; at++)
        if (strcmp(context->peers[at]->node, node) == 0)
            return &context->peers[at];
    return NULL;
}

void peer_add(struct context *context, const char *node, int memory, int bell)
{
    struct peer **place = find_peer(context, node);
    struct stat status;
    if (place != NULL && fstat(memory, &status) == 0 && status.st_dev == (*place)->box->device &&
        status.st_ino == (*place)->box->file) {
        /* The same mailbox: a new process of the node has a new doorbell. */
        close((*place)->bell);
        (*place)->bell = bell;
        close(memory);
        return;
    }
    struct mapping *box = mapping_new(memory, true);
    close(memory);
    if (box == NULL) {
        log_text(context, "error", "nothing can be sent to node %s: %s", node, last_error());
        close(bell);
        return;
    }
    struct peer *peer = must(malloc(sizeof *peer));
    *peer = (struct peer){1, copy_text(node, strlen(node)), box, bell};
    if (place != NULL) {
        peer_drop(*place);
        *place = peer;
        return;
    }
    context->peers =
        must(realloc(context->peers, (context->peer_count + 1) * sizeof *context->peers));
    context->peers[context->peer_count++] = peer;
}

void peer_remove(struct context *context, const char *node)
{
    struct peer **place = find_peer(context, node);
    if (place == NULL)
        return;
    peer_drop(*place);
    *place = context->peers[--context->peer_count];
}

void space_add(struct context *context, const char *node, int bell)
{
    for (size_t at = 0; at < context->space_count; at++)
        if (strcmp(context->spaces[at].node, node) == 0) {
            /* Inputs hold the number of the old one. */
            dup3(bell, context->spaces[at].bell, O_CLOEXEC);
            close(bell);
            return;
        }
    context->spaces =
        must(realloc(context->spaces, (context->space_count + 1) * sizeof *context->spaces));
    context->spaces[context->space_count].node = copy_text(node, strlen(node));
    context->spaces[context->space_count++].bell = bell;
}

/* -- segments ---------------------------------------------------------------------------------- */

static struct seen_segment *seen(struct context *context, uint64_t number)
{
    for (size_t at = 0; at < context->segment_count; at++)
        if (context->segments[at].number == number)
            return &context->segments[at];
    return NULL;
}

void segment_add(struct context *context, uint64_t number, int memory)
{
    struct seen_segment *place = seen(context, number);
    if (place == NULL || place->mapping == NULL) {
        struct mapping *mapping = mapping_new(memory, false);
        if (mapping == NULL) {
            log_text(context, "error", "%s", last_error());
        } else if (place != NULL) {
            place->mapping = mapping;
        } else {
            context->segments = must(realloc(context->segments, (context->segment_count + 1) *
                                                                    sizeof *context->segments));
            context->segments[context->segment_count++] =
                (struct seen_segment){(uint32_t)number, mapping};
        }
    }
    close(memory);
}

void segment_retire(struct context *context, uint64_t number)
{
    struct seen_segment *place = seen(context, number);
    if (place == NULL)
        return;
    mapping_drop(place->mapping);
    place->mapping = NULL;
    /* Its number is kept, so that no message waits for it; but not for ever. */
    for (size_t at = 0; context->segment_count > MAX_SEGMENTS && at < context->segment_count; at++)
        if (context->segments[at].mapping == NULL) {
            context->segments[at] = context->segments[--context->segment_count];
            return;
        }
}

struct mapping *find_segment(struct context *context, uint32_t number)
{
    struct seen_segment *place = seen(context, number);
    if (place != NULL)
        return place->mapping;
    /* The daemon announces a segment before its owner can use it, so a wait is rare. After one
       timeout later calls do not wait, so that invented numbers cannot stall the node. */
    read_mail(context);
    int64_t deadline =
        dora_monotonic_ns() + (context->no_patience ? 0 : SEGMENT_TIMEOUT_NS);
    while ((place = seen(context, number)) == NULL && !context->lost) {
        if (dora_monotonic_ns() >= deadline) {
            context->no_patience = true;
            return NULL;
        }
        wait_for_mail(context, 100);
    }
    context->no_patience = false;
    return place == NULL ? NULL : place->mapping;
}

/* -- outputs ----------------------------------------------------------------------------------- */

struct output *find_output(struct context *context, const char *id, size_t size)
{
    for (size_t at = 0; at < context->output_count; at++)
        if (strlen(context->outputs[at].id) == size && memcmp(context->outputs[at].id, id, size) == 0)
            return &context->outputs[at];
    return NULL;
}

static struct edge *edge_new(struct context *context, struct output *output, struct peer *peer,
                             uint64_t base)
{
    struct dora_words words = peer->box->words;
    struct dora_plan plan;
    if (!dora_ring_plan(words, base, &plan)) {
        log_text(context, "error",
                 "output %s is not sent to node %s: the ring at word %llu of its mailbox is damaged",
                 output->id, peer->node, (unsigned long long)base);
        return NULL;
    }
    struct edge *edge = must(calloc(1, sizeof *edge));
    peer->users++;
    edge->users = 1;
    edge->peer = peer;
    edge->ring = (struct dora_outlet){
        .base = base,
        .queue_size = plan.queue_size,
        .head = dora_read_count(words, base + RING_HEAD),
        .entries = plan.entries,
        .mask = plan.capacity - 1,
        .bytes = dora_read_count(words, base + RING_BYTES),
    };
    /* A producer that was killed while it waited for room has left this set. */
    dora_store(words, base + RING_WAITING, 0, memory_order_relaxed);
    edge->latched = dora_load(words, base + RING_LATCHED, memory_order_relaxed) != 0;
    if (edge->latched) {
        output->late = true;
    } else if (plan.lane != 0) {
        edge->has_lane = true;
        edge->marks = plan.lane / WORD;
        edge->lane = edge->ring;
        edge->lane.lane = true;
        edge->lane.entries = plan.lane + plan.capacity * WORD;
        edge->lane.head = dora_read_count(words, base + RING_LANE_HEAD);
    }
    return edge;
}

void output_rewire(struct context *context, const char *id, const struct json *to)
{
    struct output *output = find_output(context, id, strlen(id));
    if (output == NULL || to == NULL || to->type != JSON_LIST)
        return;
    struct edge **edges = must(calloc(to->items.count + 1, sizeof *edges));
    size_t count = 0;
    names_free(&output->receivers);
    output->receivers = (struct names){0};
    for (const struct json *each = to->items.first; each != NULL; each = each->next) {
        const struct json *node = each->type == JSON_LIST ? each->items.first : NULL;
        const struct json *base = node == NULL ? NULL : node->next;
        const struct json *blocking = base == NULL ? NULL : base->next;
        if (blocking == NULL || node->type != JSON_STRING || base->type != JSON_INT ||
            base->number < 0)
            continue;
        /* Behind a link are nodes of another machine. */
        const struct json *receiver = blocking->next == NULL ? node : blocking->next;
        for (; receiver != NULL; receiver = receiver == node ? NULL : receiver->next)
            if (receiver->type == JSON_STRING && receiver->string.at[0] != '.')
                name_add(&output->receivers, receiver->string.at);
        struct peer **peer = find_peer(context, node->string.at);
        if (peer == NULL)
            continue;
        struct edge *edge = NULL;
        for (size_t at = 0; at < output->count; at++)
            if (output->edges[at] != NULL && output->edges[at]->peer == *peer &&
                output->edges[at]->ring.base == (uint64_t)base->number) {
                edge = output->edges[at];
                output->edges[at] = NULL;
            }
        if (edge == NULL)
            edge = edge_new(context, output, *peer, (uint64_t)base->number);
        if (edge == NULL)
            continue;
        edge->ring.blocking = edge->lane.blocking =
            blocking->type == JSON_BOOL && blocking->truth;
        /* Those that never block come first, so that they do not wait for one that does. */
        size_t place = count++;
        for (; place > 0 && !edge->ring.blocking && edges[place - 1]->ring.blocking; place--)
            edges[place] = edges[place - 1];
        edges[place] = edge;
    }
    for (size_t at = 0; at < output->count; at++)
        if (output->edges[at] != NULL) {
            output->edges[at]->ring.closed = output->edges[at]->lane.closed = true;
            edge_drop(output->edges[at]);
        }
    free(output->edges);
    output->edges = edges;
    output->count = count;
}
