/* How a receiver waits, and how it is woken: the protocol of `NodeInputs.wait` of
   dorad/node/nodeinputs.py, and dorad/shm/doorbell.py. */

#include "core.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 8
#endif

#define LOOKS 8 /* at the words for each at the clock */

bool dora_watch_ring(struct dora_watched *watched, struct dora_words words,
                     const struct dora_inlet *inlet)
{
    /* Room for this ring's two words, and one for the mail. */
    if (watched->lanes >= DORA_MAX_WATCHED / 2 || watched->count > DORA_MAX_WATCHED - 3)
        return false;
    const dora_word *head = &words.at[inlet->base + RING_HEAD];
    const dora_word *lane_head = &words.at[inlet->base + RING_LANE_HEAD];
    watched->words[watched->count].at = head;
    watched->words[watched->count++].seen = inlet->tail;
    watched->lane_heads[watched->lanes].at = lane_head;
    watched->lane_heads[watched->lanes++].seen = inlet->lane_tail;
    if (inlet->lane_tail) {
        watched->words[watched->count].at = lane_head;
        watched->words[watched->count++].seen = inlet->lane_tail;
    }
    return true;
}

void dora_watch_mail(struct dora_watched *watched, struct dora_words words, uint64_t mail)
{
    watched->words[watched->count].at = &words.at[BOX_MAIL];
    watched->words[watched->count++].seen = mail;
}

void dora_watch_held(struct dora_watched *watched, struct dora_words words)
{
    watched->words[watched->count].at = &words.at[BOX_HELD];
    watched->words[watched->count++].seen = 1;
}

/* Return true if one of the words has changed. */
static bool has_moved(const struct dora_watched *watched)
{
    for (int at = 0; at < watched->count; at++)
        /* Relaxed: who takes the message loads HEAD again, with acquire. */
        if (atomic_load_explicit(watched->words[at].at, memory_order_relaxed) !=
            watched->words[at].seen)
            return true;
    return false;
}

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

bool dora_watch_look(const struct dora_watched *watched, int64_t until_ns)
{
    /* A look at the clock takes longer than several at the words. */
    do
        for (int looks = 0; looks < LOOKS; looks++) {
            if (has_moved(watched))
                return true;
            pause_briefly();
        }
    while (dora_monotonic_ns() < until_ns);
    return false;
}

bool dora_fall_asleep(struct dora_words words, const struct dora_watched *watched)
{
    dora_store(words, BOX_ASLEEP, 1, memory_order_relaxed);
    /* We stored ASLEEP and look at HEAD and MAIL; pairs with the fence of `dora_ring_pushed`, after
       which a sender that has stored HEAD looks at ASLEEP, and with that of the daemon. */
    atomic_thread_fence(memory_order_seq_cst);
    if (has_moved(watched))
        return false;
    for (int at = 0; at < watched->lanes; at++)
        if (atomic_load_explicit(watched->lane_heads[at].at, memory_order_relaxed) !=
            watched->lane_heads[at].seen)
            return false;
    return true;
}

void dora_wake_up(struct dora_words words)
{
    dora_store(words, BOX_ASLEEP, 0, memory_order_relaxed);
}

int dora_sleep(int epoll, const int64_t *due_ns, bool fine, struct epoll_event *ready)
{
    if (due_ns == NULL)
        return epoll_wait(epoll, ready, DORA_MAX_READY, -1);
    int64_t now = dora_monotonic_ns(), left = *due_ns < now ? 0 : *due_ns - now;
    if (fine) {
        struct pollfd descriptor = {.fd = epoll, .events = POLLIN};
        struct timespec time = {.tv_sec = left / DORA_NANOS, .tv_nsec = left % DORA_NANOS};
        int count = ppoll(&descriptor, 1, &time, NULL);
        return count > 0 ? epoll_wait(epoll, ready, DORA_MAX_READY, 0) : count;
    }
    int64_t millis = left / 1000000 + (left % 1000000 > 0);
    return epoll_wait(epoll, ready, DORA_MAX_READY, millis > INT32_MAX ? INT32_MAX : (int)millis);
}

int dora_bell_ring(int descriptor)
{
    /* EAGAIN: it has been rung 2^64 times and will wake its owner anyway. */
    return eventfd_write(descriptor, 1) == 0 || errno == EAGAIN ? 0 : errno;
}

void dora_bell_clear(int descriptor)
{
    uint64_t rings;
    struct iovec into = {.iov_base = &rings, .iov_len = sizeof rings};
    /* Even if a peer made the open file blocking; nothing is lost where it cannot be read. */
    /* Without the function, which only newer C libraries have. */
    long got = syscall(SYS_preadv2, descriptor, &into, 1UL, -1L, -1L, RWF_NOWAIT);
    (void)got;
}
