/* The hop records of a node's process; see dorad/shm/hops.py. */

#include "core.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The message that this thread took last, and the mailbox that it was taken from. `open` until the
   thread asks for the next one. */
static _Thread_local struct {
    const dora_word *box;
    uint64_t place, stamp;
    bool open;
} taken;

static _Thread_local uint32_t thread;

static void write_hop(struct dora_words box, uint64_t kind, uint64_t at, uint64_t place,
                      uint64_t stamp, uint64_t parent_place, uint64_t parent_stamp, uint64_t value)
{
    if (box.count < BOX_WORDS)
        return;
    if (thread == 0)
        thread = (uint32_t)syscall(SYS_gettid);
    /* Relaxed, as all stores here: a record is valid only with the check of all its words, so no
       order has to be kept. Two threads, or two processes during a replacement, get two places. */
    uint64_t index = atomic_fetch_add_explicit(&box.at[BOX_HOPS], 1, memory_order_relaxed);
    size_t to = BOX_HOP_RECORDS + (index & (HOPS - 1)) * HOP_WORDS;
    const uint64_t fields[HOP_WORDS] = {
        [HOP_KIND] = kind | (uint64_t)thread << HOP_THREAD,
        [HOP_AT] = at,
        [HOP_PLACE] = place,
        [HOP_STAMP] = stamp,
        [HOP_PARENT_PLACE] = parent_place,
        [HOP_PARENT_STAMP] = parent_stamp,
        [HOP_VALUE] = value,
    };
    uint64_t check = index + 1;
    for (size_t word = HOP_KIND; word < HOP_WORDS; word++) {
        check = (check << HOP_TURN | check >> (64 - HOP_TURN)) ^ fields[word];
        dora_store(box, to + word, fields[word], memory_order_relaxed);
    }
    dora_store(box, to + HOP_CHECK, check, memory_order_relaxed);
}

void dora_hop_received(struct dora_words box, uint64_t base, uint64_t stamp, uint64_t at,
                       uint64_t queued)
{
    write_hop(box, HOP_RECEIVE, at, base, stamp, 0, 0, queued);
    dora_hop_resume(box, base, stamp, true);
}

void dora_hop_done(struct dora_words box)
{
    if (!taken.open || taken.box != box.at)
        return;
    taken.open = false;
    write_hop(box, HOP_DONE, (uint64_t)dora_time_ns(box), taken.place, taken.stamp, 0, 0, 0);
}

void dora_hop_sent(struct dora_words box, uint64_t output, uint64_t stamp, uint64_t at,
                   uint64_t size)
{
    bool here = taken.box == box.at;
    if (output != 0)
        write_hop(box, HOP_SEND, at, output, stamp, here ? taken.place : 0, here ? taken.stamp : 0,
                  size);
}

static bool is_hex(char digit)
{
    return (digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f');
}

static bool read_hex(const char *text, uint64_t *word)
{
    *word = 0;
    for (size_t at = 0; at < 16; at++) {
        if (!is_hex(text[at]))
            return false;
        *word = *word << 4 | (uint64_t)(text[at] <= '9' ? text[at] - '0' : text[at] - 'a' + 10);
    }
    return true;
}

/* Read `00-TRACE-SPAN-FLAGS` into the two words of a trace id, and a span id. */
static bool read_traceparent(const char *text, size_t size, uint64_t *ids)
{
    return size == 55 && memcmp(text, "00-", 3) == 0 && read_hex(text + 3, &ids[0]) &&
           read_hex(text + 19, &ids[1]) && text[35] == '-' && read_hex(text + 36, &ids[2]) &&
           text[52] == '-' && is_hex(text[53]) && is_hex(text[54]) && (ids[0] | ids[1]) != 0 &&
           ids[2] != 0;
}

/* Read a context in the form of dora, `traceparent:…;tracestate:…;` in any order. */
static bool read_context(const char *text, size_t size, uint64_t *ids)
{
    static const char key[] = "traceparent:";
    const char *end = text + size;
    while (text < end) {
        const char *stop = memchr(text, ';', (size_t)(end - text));
        size_t part = (size_t)((stop != NULL ? stop : end) - text);
        if (part >= sizeof key - 1 && memcmp(text, key, sizeof key - 1) == 0)
            return read_traceparent(text + sizeof key - 1, part - (sizeof key - 1), ids);
        text += part + 1;
    }
    return false;
}

/* Find a non-empty text in metadata, which are a flat JSON object without spaces. */
static const char *find_text(const char *metadata, size_t size, const char *key, size_t *length)
{
    const char *text = memmem(metadata, size, key, strlen(key));
    if (text == NULL)
        return NULL;
    text += strlen(key);
    const char *end = memchr(text, '"', (size_t)(metadata + size - text));
    *length = end != NULL ? (size_t)(end - text) : 0;
    return *length != 0 ? text : NULL;
}

void dora_hop_context(struct dora_words box, uint64_t output, uint64_t stamp, const char *metadata,
                      size_t size)
{
    uint64_t ids[3];
    size_t length;
    if (output == 0 || size == 0)
        return;
    const char *context = find_text(metadata, size, "\"open_telemetry_context\":\"", &length);
    bool valid = context != NULL && read_context(context, length, ids);
    if (!valid) {
        const char *plain = find_text(metadata, size, "\"traceparent\":\"", &length);
        if (plain == NULL && context == NULL)
            return;
        valid = plain != NULL && read_traceparent(plain, length, ids);
    }
    if (!valid)
        ids[0] = ids[1] = ids[2] = 0;
    write_hop(box, HOP_CONTEXT, stamp, output, stamp, ids[0], ids[1], ids[2]);
}

void dora_hop_dropped(struct dora_words box, uint64_t base, uint64_t number, uint64_t count)
{
    write_hop(box, HOP_DROP, (uint64_t)dora_time_ns(box), base, number, 0, 0, count);
}

void dora_hop_resume(struct dora_words box, uint64_t base, uint64_t stamp, bool open)
{
    taken.box = box.at;
    taken.place = base;
    taken.stamp = stamp;
    taken.open = open;
}

bool dora_hop_taken(struct dora_words box, uint64_t *base, uint64_t *stamp)
{
    bool here = taken.box == box.at;
    *base = here ? taken.place : 0;
    *stamp = here ? taken.stamp : 0;
    return here && taken.open;
}

uint64_t dora_output_key(const char *id, size_t size)
{
    uint64_t key = OUTPUT_KEY_BASIS;
    for (size_t at = 0; at < size; at++)
        key = (key ^ (unsigned char)id[at]) * OUTPUT_KEY_PRIME;
    return key != 0 ? key : 1;
}
