/* Requests and goals of this node, and the wait for their replies; see dorad/node/patterns/. */

#include "node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUTES 4096   /* requests and goals whose replies are expected, or are to be dropped */
#define MAX_DEFERRED 1000 /* messages that a wait for a reply passes over */

/* A request or goal, and what was known of the node that replies when it was made. */
struct route {
    char id[37];
    bool is_goal, given_up, was_broken;
    char *output, *peer;
    int64_t restarts;
    struct route *next;
};

static void route_free(struct route *route)
{
    free(route->output);
    free(route->peer);
    free(route);
}

void routes_free(struct context *context)
{
    while (context->routes != NULL) {
        struct route *route = context->routes;
        context->routes = route->next;
        route_free(route);
    }
}

static struct route *find_route(const struct context *context, const char *id)
{
    struct route *route = context->routes;
    while (route != NULL && strcmp(route->id, id) != 0)
        route = route->next;
    return route;
}

static void forget(struct context *context, struct route *route)
{
    struct route **place = &context->routes;
    while (*place != route)
        place = &(*place)->next;
    *place = route->next;
    context->route_count--;
    route_free(route);
}

/* -- who replies ------------------------------------------------------------------------------- */

static int64_t restarts_of(const struct context *context, const char *node)
{
    for (size_t at = 0; at < context->restart_count; at++)
        if (strcmp(context->restarts[at].node, node) == 0)
            return context->restarts[at].seen;
    return 0;
}

static bool replies_on(const struct input *input, const char *peer)
{
    return !input->is_timer && !is_choosy(input) && input->origin != NULL &&
           strcmp(input->origin, peer) == 0;
}

static bool is_broken(const struct context *context, const char *peer)
{
    for (size_t at = 0; at < context->input_count; at++)
        if (replies_on(context->inputs[at], peer) &&
            name_in(&context->broken, context->inputs[at]->id) != NULL)
            return true;
    return false;
}

/* Return the node that receives an output, and from which an input comes back; NULL without one. */
static const char *peer_of(struct context *context, const struct output *output)
{
    const char *peer = NULL;
    for (size_t at = 0; at < output->receivers.count; at++) {
        const char *node = output->receivers.at[at];
        bool back = false;
        for (size_t input = 0; input < context->input_count; input++)
            back = back || replies_on(context->inputs[input], node);
        if (!back || (peer != NULL && strcmp(peer, node) == 0))
            continue;
        if (peer != NULL) {
            fail("nodes `%s` and `%s` may both reply to output `%s`: give each an output of its own",
                 peer, node, output->id);
            return NULL;
        }
        peer = node;
    }
    if (peer == NULL)
        fail("no node replies to output `%s`: give the one that does an input with the source "
             "`%s/%s`, and this node an input with one of its outputs as source",
             output->id, context->node_id, output->id);
    return peer;
}

static int new_route(struct context *context, const char *output, const char *key,
                     DoraMetadata *metadata, char id[37])
{
    if (context == NULL || output == NULL || metadata == NULL || id == NULL)
        return fail("a request needs a context, an output, metadata, and a place for its id");
    refresh(context);
    apply_changes(context);
    struct output *from = find_output(context, output, strlen(output));
    const char *peer = NULL;
    if (context->mock != NULL)
        peer = "mock";
    else if (from == NULL)
        fail("this node has no output `%s`", output);
    else
        peer = peer_of(context, from);
    if (peer == NULL)
        return DORA_NO_PEER;
    dora_new_id(id);
    dora_metadata_set_string(metadata, key, id);
    while (context->route_count >= MAX_ROUTES) {
        struct route *oldest = context->routes;
        while (oldest->next != NULL)
            oldest = oldest->next;
        forget(context, oldest);
    }
    struct route *route = must(calloc(1, sizeof *route));
    *route = (struct route){
        .is_goal = strcmp(key, "goal_id") == 0,
        .was_broken = is_broken(context, peer),
        .output = copy_text(output, strlen(output)),
        .peer = copy_text(peer, strlen(peer)),
        .restarts = restarts_of(context, peer),
        .next = context->routes,
    };
    strcpy(route->id, id);
    context->routes = route;
    context->route_count++;
    return 0;
}

DORA_API int dora_new_request(void *dora_context, const char *output, DoraMetadata *metadata,
                              char id[37])
{
    return new_route(dora_context, output, "request_id", metadata, id);
}

DORA_API int dora_new_goal(void *dora_context, const char *output, DoraMetadata *metadata,
                           char id[37])
{
    return new_route(dora_context, output, "goal_id", metadata, id);
}

/* -- the wait ---------------------------------------------------------------------------------- */

static bool is_reply_to(struct event *event, const struct route *route)
{
    const char *id = correlation_of(event, route->is_goal ? "goal_id" : "request_id");
    return id != NULL && strcmp(id, route->id) == 0;
}

bool is_late_reply(struct context *context, struct event *event)
{
    for (struct route *each = context->routes; each != NULL; each = each->next)
        if (each->given_up && is_reply_to(event, each)) {
            forget(context, each);
            return true;
        }
    return false;
}

/* Keep an event for dora_next_event. If there are too many, the oldest that is no reply is lost. */
static void defer(struct context *context, struct event *event)
{
    line_add(&context->deferred, event);
    if (++context->deferred_count <= MAX_DEFERRED)
        return;
    struct event **place = &context->deferred.first;
    while (*place != NULL && (*place)->entry.flags & CORRELATED)
        place = &(*place)->next;
    if (*place == NULL)
        place = &context->deferred.first;
    struct event *old = line_remove(&context->deferred, place);
    context->deferred_count--;
    log_text(context, "warn",
             "more than %d messages came on input `%s` while the node waited for a reply there; the "
             "oldest is dropped",
             MAX_DEFERRED, old->id);
    event_free(old);
}

static struct event *take_deferred(struct context *context, const struct route *route)
{
    for (struct event **place = &context->deferred.first; *place != NULL; place = &(*place)->next)
        if (is_reply_to(*place, route)) {
            context->deferred_count--;
            return line_remove(&context->deferred, place);
        }
    return NULL;
}

/* Return why no reply can come, and set the reason as error; 0 if one may come. */
static int failure(struct context *context, const struct route *route)
{
    const char *peer = route->peer;
    bool closed = true;
    for (size_t at = 0; at < context->input_count; at++)
        if (replies_on(context->inputs[at], peer) &&
            name_in(&context->closed, context->inputs[at]->id) == NULL)
            closed = false;
    if (context->lost)
        fail("the daemon has closed the connection; no reply can come");
    else if (name_in(&context->failed, peer) != NULL)
        fail("node `%s` has failed; no reply can come", peer);
    else if (restarts_of(context, peer) != route->restarts)
        fail("node `%s` was restarted before its reply; the request is lost", peer);
    else if (context->stopping) {
        fail("the node is being stopped; no reply can come");
        return DORA_STOPPING;
    } else if (closed)
        fail("node `%s` has ended; no reply can come", peer);
    else if (is_broken(context, peer) && !route->was_broken)
        fail("nothing came from node `%s` within the input_timeout", peer);
    else if (context->ending) {
        fail("all inputs are closed; no reply can come");
        return DORA_STOPPING;
    } else
        return 0;
    return DORA_PEER_LOST;
}

/* Record the error that a reply carries. */
static int remote_error(struct event *event)
{
    const DoraMetadata *metadata = dora_event_metadata(event);
    const char *text = dora_metadata_get_string(metadata, "request_error");
    const char *kind = dora_metadata_get_string(metadata, "request_error_type");
    if (text == NULL) {
        text = dora_metadata_get_string(metadata, "goal_error");
        kind = dora_metadata_get_string(metadata, "goal_error_type");
    }
    if (text == NULL)
        return 0;
    fail("%s: %s", kind ? kind : "Error", text);
    return DORA_REMOTE_ERROR;
}

static bool is_last_reply(const struct route *route, struct event *reply)
{
    return !route->is_goal ||
           dora_metadata_get_string(dora_event_metadata(reply), "goal_status") != NULL;
}

/* Put a goal's result behind its feedback, which may have come on an input that is served later: what
   was sent before the result is queued by now. */
static struct event *feedback_first(struct context *context, const struct route *route,
                                    struct event *result)
{
    struct event *next;
    for (int polls = 0; polls < MAX_DEFERRED; polls++) {
        if ((next = poll_from(context, route->peer)) == NULL)
            break;
        if (is_late_reply(context, next))
            event_free(next);
        else
            defer(context, next);
    }
    defer(context, result);
    return take_deferred(context, route);
}

static int wait_for(struct context *context, struct route *route, int64_t timeout_ms,
                    struct event **event)
{
    int64_t deadline = INT64_MAX;
    if (timeout_ms >= 0 && timeout_ms < INT64_MAX / 2000000)
        deadline = now_ns(context) + timeout_ms * 1000000;
    if (context->mock != NULL) {
        const char *key = route->is_goal ? "goal_id" : "request_id";
        *event = mock_reply(context, route->output, key, route->id);
        if (*event != NULL)
            return 0;
        fail("no reply was prepared for output `%s`", route->output);
        return DORA_NO_ANSWER;
    }
    *event = take_deferred(context, route);
    while (*event == NULL) {
        struct event *next = poll_from(context, route->peer);
        if (next != NULL && is_reply_to(next, route))
            *event = route->is_goal && is_last_reply(route, next)
                         ? feedback_first(context, route, next)
                         : next;
        else if (next != NULL && !is_late_reply(context, next))
            defer(context, next);
        else
            event_free(next);
        if (next != NULL)
            continue;
        int why = failure(context, route);
        /* A reply sent before the failure still counts: poll once more with all packets read. */
        if (why != 0 && context->packets == context->packets_polled)
            return why;
        if (why != 0)
            continue;
        if (has_passed(context, deadline)) {
            fail("no reply from node `%s` within %lld ms", route->peer, (long long)timeout_ms);
            return DORA_NO_ANSWER;
        }
        if (wait_for_event(context, deadline == INT64_MAX ? NULL : &deadline, route->peer) < 0)
            return -1;
    }
    return 0;
}

DORA_API int dora_wait_reply(void *dora_context, const char *id, int64_t timeout_ms, void **event)
{
    struct context *context = dora_context;
    struct event *reply = NULL;
    if (context == NULL || id == NULL || event == NULL)
        return fail("dora_wait_reply was called with NULL");
    *event = NULL;
    struct route *route = find_route(context, id);
    if (route == NULL || route->given_up)
        return fail("no request or goal with the id %s waits for a reply", id);
    disarm(context);
    beat(context);
    int result = wait_for(context, route, timeout_ms, &reply);
    beat(context);
    *event = reply;
    if (result == DORA_NO_ANSWER) {
        /* The result of a goal may be waited for again; a late answer to a request is dropped. */
        route->given_up = !route->is_goal;
        return result;
    }
    if (result == 0)
        result = remote_error(reply);
    if (reply == NULL || is_last_reply(route, reply))
        forget(context, route);
    return result;
}

DORA_API int dora_call(void *dora_context, const char *output, const void *data, size_t size,
                       const DoraMetadata *metadata, int64_t timeout_ms, void **event)
{
    char id[37];
    if (event == NULL)
        return fail("dora_call was called with NULL");
    *event = NULL;
    DoraMetadata *request = metadata_copy(metadata);
    int result = dora_new_request(dora_context, output, request, id);
    if (result == 0 && dora_send_bytes(dora_context, output, data, size, request) < 0) {
        forget(dora_context, find_route(dora_context, id));
        result = -1;
    }
    dora_metadata_free(request);
    return result == 0 ? dora_wait_reply(dora_context, id, timeout_ms, event) : result;
}
