/* How a node sleeps until an event comes: it spins, then waits for its doorbell. */

#include "node.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

static bool add_to_epoll(int epoll, int descriptor, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = descriptor};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

bool make_waiters(struct context *context)
{
    context->epoll = epoll_create1(EPOLL_CLOEXEC);
    context->space_epoll = epoll_create1(EPOLL_CLOEXEC);
    context->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (context->epoll >= 0 && context->space_epoll >= 0 && context->timer >= 0 &&
        add_to_epoll(context->epoll, context->bell, EPOLLIN | EPOLLET) &&
        add_to_epoll(context->epoll, context->timer, EPOLLIN) &&
        add_to_epoll(context->epoll, context->socket, EPOLLIN) &&
        add_to_epoll(context->space_epoll, context->space, EPOLLIN | EPOLLET) &&
        add_to_epoll(context->space_epoll, context->socket, EPOLLIN))
        return true;
    fail("a node cannot wait for messages: %s", strerror(errno));
    return false;
}

/* -- time -------------------------------------------------------------------------------------- */

/* At its end it takes what is queued. */
bool must_hold(const struct context *context)
{
    return dora_is_held(context->box->words) && !context->stopped && !context->stopping &&
           !context->lost;
}

int64_t now_ns(const struct context *context)
{
    return context->mock != NULL ? dora_monotonic_ns() : dora_timeout_ns(context->box->words);
}

bool has_passed(const struct context *context, int64_t deadline_ns)
{
    return deadline_ns != INT64_MAX && now_ns(context) >= deadline_ns &&
           (context->mock != NULL || !must_hold(context));
}

int64_t sleep_until(struct context *context, int64_t due_ns)
{
    if (!dora_is_stepped(context->box->words))
        return due_ns;
    dora_store(context->box->words, BOX_DUE, due_ns == INT64_MAX ? 0 : (uint64_t)due_ns,
               memory_order_relaxed);
    return INT64_MAX;
}

void wait_for_turn(struct context *context)
{
    begin_poll(context);
    while (must_hold(context) && wait_for_event(context, NULL, NULL) >= 0)
        begin_poll(context);
}

/* -- sleeping ---------------------------------------------------------------------------------- */

int64_t next_due(struct context *context)
{
    int64_t due = INT64_MAX;
    for (size_t at = 0; !context->stopped && at < context->input_count; at++) {
        const struct input *input = context->inputs[at];
        int64_t next = is_choosy(input)                        ? chosen_due(context, input)
                       : input->is_timer && !input->stopped ? input->due_ns
                                                               : INT64_MAX;
        due = next < due ? next : due;
    }
    return due;
}

static void watch(struct context *context, struct dora_watched *watched, const char *node)
{
    watched->count = watched->lanes = 0;
    context->sees_all = true;
    const bool is_held = must_hold(context);
    if (is_held)
        dora_watch_held(watched, context->box->words);
    for (size_t at = 0; !is_held && at < context->input_count; at++) {
        const struct input *input = context->inputs[at];
        if (!input->is_timer && is_from(input, node) &&
            !(is_choosy(input) ? chosen_watch(context, watched, input)
                               : dora_watch_ring(watched, context->box->words, &input->inlet)))
            context->sees_all = false;
    }
    dora_watch_mail(watched, context->box->words, context->polled_mail.value);
}

/* Return whether more rings than can be watched hold nothing. */
static bool rest_is_empty(struct context *context, const char *node)
{
    for (size_t at = 0; !context->sees_all && !must_hold(context) && at < context->input_count; at++)
        if (!context->inputs[at]->is_timer && is_from(context->inputs[at], node) &&
            (is_choosy(context->inputs[at]) ? chosen_is_ready(context, context->inputs[at])
                                            : has_queued(context, context->inputs[at])))
            return false;
    return true;
}

/* Have the doorbell rung from now on; return true if it is safe to sleep. */
static bool fall_asleep(struct context *context, const struct dora_watched *watched,
                        const char *node)
{
    return dora_fall_asleep(context->box->words, watched) && context->polled_mail.given &&
           rest_is_empty(context, node) && context->packets == context->packets_polled;
}

bool may_fall_asleep(struct context *context)
{
    struct dora_watched watched;
    watch(context, &watched, NULL);
    if (fall_asleep(context, &watched, NULL))
        return true;
    dora_wake_up(context->box->words);
    return false;
}

int wait_for_event(struct context *context, const int64_t *deadline_ns, const char *node)
{
    struct dora_watched watched;
    struct dora_spin *spin = &context->spin;
    int64_t started = dora_monotonic_ns();
    watch(context, &watched, node);
    if (spin->budget_ns && context->sees_all &&
        dora_watch_look(&watched, started + spin->budget_ns)) {
        dora_spin_found(spin);
        return 0;
    }
    struct epoll_event ready[DORA_MAX_READY];
    int count = 0;
    int64_t tick = node == NULL ? next_due(context) : INT64_MAX,
            due = deadline_ns == NULL ? INT64_MAX : *deadline_ns;
    bool fine = tick < due;
    due = fine ? tick : due;
    due = sleep_until(context, due);
    if (fall_asleep(context, &watched, node)) {
        count = dora_sleep(context->epoll, due == INT64_MAX ? NULL : &due, fine, ready);
    }
    int code = errno;
    dora_wake_up(context->box->words);
    if (count < 0)
        return code == EINTR ? 1 : fail("a node cannot wait for messages: %s", strerror(code));
    for (int at = 0; at < count; at++) {
        if (ready[at].data.fd == context->bell)
            dora_spin_blocked(spin, dora_monotonic_ns() - started);
        else if (ready[at].data.fd == context->socket)
            read_mail(context);
    }
    return 0;
}
