/* The connection to the daemon: its packets, and what they change. */

#include "node.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* -- to the daemon ----------------------------------------------------------------------------- */

void beat(struct context *context)
{
    struct dora_words words = context->box->words;
    if (context->watched)
        dora_store(words, BOX_PULSE, dora_load(words, BOX_PULSE, memory_order_relaxed) + 1,
                   memory_order_relaxed);
}

void notify(struct context *context, const struct json_text *text)
{
    if (!context->lost && packet_send(context->socket, text->at, text->size) < 0 &&
        (errno == EPIPE || errno == ECONNRESET))
        context->lost = true;
}

void note(struct context *context, const char *text)
{
    struct json_text packet = {0};
    text_put(&packet, "{\"t\":\"note\",\"text\":");
    text_quote(&packet, text, strlen(text));
    text_put(&packet, "}");
    notify(context, &packet);
    free(packet.at);
}

/* -- events ------------------------------------------------------------------------------------ */

static void urgent(struct context *context, enum event_type type, const char *id, const char *text)
{
    line_add(&context->urgent, event_new(type, id, text));
}

static void on_closed(struct context *context, const char *input)
{
    name_remove(&context->broken, input);
    if (name_add(&context->closed, input))
        line_add(&context->endings, event_new(INPUT_CLOSED, input, "finished"));
}

static void on_broken(struct context *context, const char *input)
{
    if (name_in(&context->closed, input) == NULL && name_add(&context->broken, input))
        urgent(context, INPUT_CLOSED, input, "timeout");
}

static void on_recovered(struct context *context, const char *input)
{
    bool was_broken = name_remove(&context->broken, input);
    bool was_closed = name_remove(&context->closed, input);
    if (was_broken || was_closed)
        urgent(context, INPUT_RECOVERED, input, "");
}

static void on_restarted(struct context *context, const char *node, const struct json *count)
{
    bool counted = count != NULL && count->type == JSON_INT;
    size_t at = 0;
    while (at < context->restart_count && strcmp(context->restarts[at].node, node) != 0)
        at++;
    if (at == context->restart_count) {
        context->restarts = must(
            realloc(context->restarts, (context->restart_count + 1) * sizeof *context->restarts));
        context->restarts[context->restart_count].node = copy_text(node, strlen(node));
        context->restarts[context->restart_count].seen = 0;
        context->restarts[context->restart_count++].count = -1;
    } else if (counted && context->restarts[at].count == count->number)
        return; /* A daemon that has taken over repeats it. */
    if (counted)
        context->restarts[at].count = count->number;
    context->restarts[at].seen++;
    name_remove(&context->failed, node);
    for (at = 0; at < context->input_count; at++)
        if (context->inputs[at]->origin != NULL && strcmp(context->inputs[at]->origin, node) == 0)
            name_remove(&context->closed, context->inputs[at]->id);
    urgent(context, NODE_RESTARTED, node, "");
}

static void on_failed(struct context *context, const char *node, const char *error,
                      const struct json *affected)
{
    if (!name_add(&context->failed, node))
        return;
    struct event *event = event_new(NODE_FAILED, node, error != NULL ? error : "");
    const bool is_list = affected != NULL && affected->type == JSON_LIST;
    for (const struct json *each = is_list ? affected->items.first : NULL; each; each = each->next)
        if (each->type == JSON_STRING)
            name_add(&event->affected, each->string.at);
    line_add(&context->endings, event);
}

static void on_stop(struct context *context, const char *reason)
{
    if (strcmp(reason, "MANUAL") == 0) {
        if (!context->stopping)
            urgent(context, STOP, reason, "");
        context->stopping = true;
    } else if (!context->ending) {
        context->ending = true;
        line_add(&context->endings, event_new(STOP, reason, ""));
    }
}

void set_param(struct context *context, const char *key, const struct json *value)
{
    struct json_text text = {0};
    if (value != NULL)
        json_write(&text, value);
    size_t at = 0;
    while (at < context->param_count && strcmp(context->params[at].key, key) != 0)
        at++;
    if (at < context->param_count) {
        free(context->params[at].value);
        context->params[at].value = text.at;
    } else {
        context->params =
            must(realloc(context->params, (context->param_count + 1) * sizeof *context->params));
        context->params[context->param_count].key = copy_text(key, strlen(key));
        context->params[context->param_count++].value = text.at;
    }
}

static void on_param(struct context *context, const char *key, const struct json *value)
{
    struct json_text text = {0};
    set_param(context, key, value);
    if (value != NULL)
        json_write(&text, value);
    urgent(context, PARAM_UPDATE, key, text.at == NULL ? "null" : text.at);
    free(text.at);
}

/* Keep a packet about an input for the next poll: an input may be in use. */
static void on_change(struct context *context, struct packet *packet, bool gone)
{
    const char *id = json_string(packet->fields, "id");
    if (!gone && id != NULL)
        name_remove(&context->closed, id);
    struct change *change = must(malloc(sizeof *change));
    *change = (struct change){packet->arena, packet->fields, gone, NULL};
    packet->arena = (struct json_arena){0};
    *context->last_change = change;
    context->last_change = &change->next;
}

/* -- packets ----------------------------------------------------------------------------------- */

static void on_grown(struct context *context, struct packet *packet)
{
    uint64_t number = 0, segment;
    int memory;
    json_count(packet->fields, "ask", &number);
    if (strcmp(packet->kind, "full") == 0) {
        const char *error = json_string(packet->fields, "error");
        fail("%s", error == NULL ? "there is no room in /dev/shm" : error);
        pool_answer(context, number, 0, NULL);
        return;
    }
    if (!json_count(packet->fields, "segment", &segment) || !packet_take(packet, &memory, 1))
        return;
    struct mapping *mapping = mapping_new(memory, true);
    close(memory);
    if (pool_answer(context, number, (uint32_t)segment, mapping))
        return;
    /* Two daemons have answered the same request. */
    mapping_drop(mapping);
    struct json_text text = {0};
    text_put(&text, "{\"t\":\"retire\",\"segment\":");
    text_number(&text, (int64_t)segment);
    text_put(&text, "}");
    notify(context, &text);
    free(text.at);
}

static void on_adopted(struct context *context)
{
    struct json_text ready = {0};
    if (!context->started) {
        text_put(&ready, "{\"t\":\"ready\"}");
        notify(context, &ready);
        free(ready.at);
    }
    pool_repeat(context);
}

static void on_refused(struct context *context, const char *error)
{
    free(context->fatal);
    context->fatal = copy_text(error, strlen(error));
    context->lost = true;
    urgent(context, ERROR, "", error);
}

static void handle(struct context *context, struct packet *packet)
{
    const struct json *fields = packet->fields;
    const char *kind = packet->kind;
    const char *node = json_string(fields, "node"), *input = json_string(fields, "input");
    const char *key = json_string(fields, "key");
    uint64_t number;
    int descriptors[2];
#define IS(name) (strcmp(kind, name) == 0)
    if (IS("peer") && node != NULL && packet_take(packet, descriptors, 2))
        peer_add(context, node, descriptors[0], descriptors[1]);
    else if (IS("peer_gone") && node != NULL)
        peer_remove(context, node);
    else if (IS("source") && node != NULL && packet_take(packet, descriptors, 1))
        space_add(context, node, descriptors[0]);
    else if (IS("segment") && json_count(fields, "segment", &number) &&
             packet_take(packet, descriptors, 1))
        segment_add(context, number, descriptors[0]);
    else if (IS("retired") && json_count(fields, "segment", &number))
        segment_retire(context, number);
    else if (IS("edges") && json_string(fields, "output") != NULL)
        output_rewire(context, json_string(fields, "output"), json_get(fields, "to"));
    else if (IS("start") && json_count(fields, "epoch_ns", &number)) {
        context->epoch_ns = (int64_t)number;
        context->started = true;
    } else if (IS("grown") || IS("full"))
        on_grown(context, packet);
    else if (IS("adopted"))
        on_adopted(context);
    else if (IS("refused"))
        on_refused(context, json_string(fields, "error") ? json_string(fields, "error") : "refused");
    else if (IS("ping"))
        /* Wakes a sender that waits for room, which looks again anyway. */
        dora_bell_ring(context->space);
    else if (IS("input") || IS("input_gone"))
        on_change(context, packet, IS("input_gone"));
    else if (IS("closed") && input != NULL)
        on_closed(context, input);
    else if (IS("broken") && input != NULL)
        on_broken(context, input);
    else if (IS("recovered") && input != NULL)
        on_recovered(context, input);
    else if (IS("restarted") && node != NULL)
        on_restarted(context, node, json_get(fields, "count"));
    else if (IS("failed") && json_string(fields, "source_node_id") != NULL)
        on_failed(context, json_string(fields, "source_node_id"), json_string(fields, "error"),
                  json_get(fields, "affected_input_ids"));
    else if (IS("stop") && json_string(fields, "reason") != NULL)
        on_stop(context, json_string(fields, "reason"));
    else if (IS("reload") && json_string(fields, "operator") != NULL)
        urgent(context, RELOAD, json_string(fields, "operator"), "");
    else if (IS("param") && key != NULL)
        on_param(context, key, json_get(fields, "value"));
    else if (IS("param_gone") && key != NULL) {
        set_param(context, key, json_get(fields, "value"));
        urgent(context, PARAM_DELETED, key, "");
    }
#undef IS
}

static void on_end(struct context *context)
{
    context->lost = true;
    if (context->fatal == NULL)
        urgent(context, ERROR, "",
               "the daemon has closed the connection; no more events will come");
}

void read_mail(struct context *context)
{
    struct dora_words words = context->box->words;
    /* The word before the socket: a later packet is read now or changes the word again. */
    uint64_t mail = dora_load(words, BOX_MAIL, memory_order_acquire);
    while (!context->lost) {
        struct packet packet;
        int got = packet_receive(context->socket, &packet, MSG_DONTWAIT);
        /* ECONNRESET: the daemon has not read all. Its last packets, such as the reason, follow. */
        if (got < 0 && errno == ECONNRESET)
            got = packet_receive(context->socket, &packet, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (got < 0 && errno == EPROTO) {
            on_refused(context, last_error());
            break;
        }
        context->packets++;
        if (got <= 0) {
            on_end(context);
            break;
        }
        handle(context, &packet);
        packet_free(&packet);
    }
    context->mail = (struct dora_optional){true, mail};
    /* The number of packets, not the word: the daemon counts a packet after sending it. Release: a
       stepper that sees this must see that the node is awake. Pairs with its acquire. */
    dora_store(words, BOX_SEEN, context->packets + 1, memory_order_release); /* and the welcome */
}

void refresh(struct context *context)
{
    if (dora_has_mail(context->box->words, context->mail))
        read_mail(context);
}

void wait_for_mail(struct context *context, int millis)
{
    struct pollfd descriptor = {.fd = context->socket, .events = POLLIN};
    beat(context);
    poll(&descriptor, 1, millis);
    read_mail(context);
}

/* -- the end ----------------------------------------------------------------------------------- */

static void close_one(int descriptor)
{
    if (descriptor >= 0)
        close(descriptor);
}

void daemon_free(struct context *context)
{
    if (context->started) {
        struct json_text done = {0};
        text_put(&done, "{\"t\":\"done\"}");
        notify(context, &done);
        free(done.at);
    }
    close_one(context->socket);
    close_one(context->bell);
    close_one(context->space);
    close_one(context->epoll);
    close_one(context->space_epoll);
    close_one(context->timer);
    inputs_free(context);
    groups_free(context);
    types_free(context);
    routes_free(context);
    if (context->mock != NULL)
        mock_free(context->mock);
    pool_free(context);
    for (size_t at = 0; at < context->output_count; at++) {
        struct output *output = &context->outputs[at];
        for (size_t edge = 0; edge < output->count; edge++)
            edge_drop(output->edges[edge]);
        kept_free(output->kept);
        names_free(&output->receivers);
        free(output->edges);
        free(output->id);
    }
    for (size_t at = 0; at < context->peer_count; at++)
        peer_drop(context->peers[at]);
    for (size_t at = 0; at < context->space_count; at++) {
        close(context->spaces[at].bell);
        free(context->spaces[at].node);
    }
    for (size_t at = 0; at < context->segment_count; at++)
        mapping_drop(context->segments[at].mapping);
    for (size_t at = 0; at < context->restart_count; at++)
        free(context->restarts[at].node);
    for (size_t at = 0; at < context->param_count; at++) {
        free(context->params[at].key);
        free(context->params[at].value);
    }
    for (struct change *each = context->changes, *next; each != NULL; each = next) {
        next = each->next;
        json_free(&each->arena);
        free(each);
    }
    for (struct event *each; (each = line_take(&context->urgent)) != NULL;)
        event_free(each);
    for (struct event *each; (each = line_take(&context->endings)) != NULL;)
        event_free(each);
    for (struct event *each; (each = line_take(&context->deferred)) != NULL;)
        event_free(each);
    names_free(&context->closed);
    names_free(&context->broken);
    names_free(&context->failed);
    names_free(&context->undeclared);
    mapping_drop(context->box);
    json_free(&context->arena);
    free(context->outputs);
    free(context->peers);
    free(context->spaces);
    free(context->segments);
    free(context->restarts);
    free(context->params);
    free(context->held);
    free(context->config_text);
    free(context->fatal);
    free(context->node_id);
    free(context->dataflow_id);
    free(context);
}
