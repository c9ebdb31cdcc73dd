/* What the parts of libdora_node share. One thread at a time uses a context; what an event holds is
   counted atomically, because any thread may free events. */

#pragma once

#include "../shm/core/arrays.h"
#include "include/dora/node_api.h"
#include "json.h"

#include <string.h>

#define DORA_API __attribute__((visibility("default")))

/* -- error.c: errors of this thread ------------------------------------------------------------ */

/* Record an error; return -1. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *last_error(void);

/* -- memory.c: mapped segments, and samples in use ---------------------------------------------- */

struct mapping {
    _Atomic int users;
    struct dora_words words;
    char *at;
    size_t size;
    uint64_t device, file;
};

/* Map all of a descriptor, which stays the caller's; NULL after an error. */
struct mapping *mapping_new(int descriptor, bool writable);
struct mapping *mapping_use(struct mapping *mapping);
void mapping_drop(struct mapping *mapping);

/* The hazard slots of one ring. They outlive the context, until the last borrow ends. */
struct slots {
    _Atomic int users;
    struct mapping *box;
    uint64_t first; /* word of the first one */
    _Atomic uint32_t free, foreign;
};

struct slots *slots_new(struct mapping *box, uint64_t base);
void slots_drop(struct slots *slots);
/* Take a free slot; -1 without one. */
int slots_take(struct slots *slots);
void slots_return(struct slots *slots, int slot);

/* A sample in use, by events and exported arrays. */
struct borrow {
    _Atomic int users;
    struct slots *slots;
    int slot;
    struct mapping *segment;
};

struct borrow *borrow_use(struct borrow *borrow);
void borrow_drop(struct borrow *borrow);

/* -- packet.c ---------------------------------------------------------------------------------- */

#define MAX_DESCRIPTORS 5

struct packet {
    struct json *fields;
    struct json_arena arena;
    const char *kind;
    int descriptors[MAX_DESCRIPTORS];
    int count;
};

/* Receive a packet: 1; 0 at the end of the connection; -1 with `errno`, EAGAIN if there is none. */
int packet_receive(int socket, struct packet *packet, int flags);
/* Take exactly `count` descriptors; false if there are others. */
bool packet_take(struct packet *packet, int *descriptors, int count);
void packet_free(struct packet *packet);
/* Send a packet of JSON; -1 with `errno`. */
int packet_send(int socket, const char *text, size_t size);
/* Return the content of sealed memory, ended by a zero; NULL after an error. */
char *read_sealed(int descriptor, size_t limit, size_t *size);

/* -- the context ------------------------------------------------------------------------------- */

struct peer {
    int users;
    char *node;
    struct mapping *box;
    int bell;
};

/* One receiver of an output. */
struct edge {
    int users;
    struct peer *peer;
    struct dora_outlet ring, lane;
    bool has_lane, latched;
    uint64_t marks; /* word of the lane's first mark */
};

struct kept {
    uint64_t stamp;
    struct dora_entry entry;
    char *payload;
    size_t metadata_size;
    char *metadata;
};

struct names {
    char **at;
    size_t count;
};

/* text.c: return the place of a name; NULL if it is not there. */
char **name_in(const struct names *names, const char *name);
/* Add a name; return false if it was there. */
bool name_add(struct names *names, const char *name);
/* Remove a name; return false if it was not there. */
bool name_remove(struct names *names, const char *name);
void names_free(struct names *names);

struct output {
    char *id;
    uint64_t key; /* in hop records */
    struct edge **edges; /* those that never block come first */
    size_t count;
    struct names receivers; /* the ids of their nodes, on other machines, too; no observers */
    bool late;         /* a new subscriber lacks the last message */
    struct kept *kept; /* the last message, while there is no subscriber */
};

/* A push of a sample: to an edge, as an index of its ring or lane. */
struct mark {
    struct edge *edge;
    uint64_t index;
    bool lane;
};

struct content;

struct segment {
    uint32_t number;
    int order;
    bool idle;
    struct mapping *mapping;
    struct sample *samples;
    size_t count;
    struct segment *next;
};

enum use { FREE, HELD, FLYING };

struct sample {
    struct segment *segment;
    uint64_t offset;
    enum use use;
    struct mark *marks;
    size_t count, room;
    struct sample *before, *after; /* in its list */
};

struct line {
    struct sample *first, *last;
    size_t count;
};

struct pool {
    struct segment *segments;
    struct line free[ORDERS], flying[ORDERS];
    uint64_t keep;
    int64_t trim_due_ns;
    uint64_t refused; /* orders for which there was no room ahead of need */
};

/* A request to the daemon for a segment. One that was sent ahead of need is done when its answer
   comes; for the other the sender waits. */
struct request {
    uint64_t number, size;
    int order;
    bool ahead, done, granted;
    struct request *next;
};

/* A packet about an input, for the next poll. */
struct change {
    struct json_arena arena;
    struct json *fields;
    bool gone;
    struct change *next;
};

struct event {
    enum event_type {
        INPUT,
        STOP,
        INPUT_CLOSED,
        INPUT_RECOVERED,
        NODE_RESTARTED,
        NODE_FAILED,
        PARAM_UPDATE,
        PARAM_DELETED,
        RELOAD,
        ERROR,
        HAPPENED,
        EVENT_TYPES
    } type;
    char *id, *text;
    size_t id_size;
    int64_t stamp;
    bool is_tick, has_message;
    struct dora_entry entry; /* its header, and metadata that fit into it */
    struct borrow *payload, *metadata_home;
    char *copied, *copied_metadata;
    const char *data, *meta;
    struct DoraMetadata *metadata;
    struct names affected;  /* inputs that a failed node leaves without messages */
    struct event **members; /* of a set of synchronised inputs */
    size_t member_count;
    struct event *next; /* in the daemon's lines of events */
    _Alignas(64) char place[INLINE];
};

struct event_line {
    struct event *first, **last;
};

/* A flush of a lane: its index, how many ordinary messages precede it, and its session. */
struct flush {
    uint64_t at, before;
    char *session; /* NULL: of all */
};

struct input {
    char *id, *source, *origin;
    uint64_t ring;
    bool removed, stopped, is_timer, has_lane;
    /* Of a latched one: whether the newest message is still to be taken again. */
    bool latched, pending, may_be_late;
    int64_t since_ns;
    /* Of a ring. */
    struct dora_inlet inlet;
    struct slots *slots;
    int space_bell; /* -1 if its sender never waits */
    uint64_t marks, lane_entries;
    struct dora_optional lane_limit;
    struct flush *flushes;
    size_t flush_count;
    uint64_t scanned;
    /* Of one with `max_rate_hz`: the time between two messages, and when the next one is due. */
    int64_t pace_ns, paced_due_ns;
    bool keeps_all;
    /* Of a synchronised one: its HEAD at the last search, and how long it waits for the others. */
    struct sync_group *group;
    uint64_t searched_to;
    int64_t partner_due_ns;
    struct type_check *check; /* of its declared type, until nothing is left to check */
    /* Of a timer. */
    int64_t interval_ns, deadline_ns, due_ns;
    struct dora_optional late_ns;
    uint64_t queue_size, tail, received, latency_sum, latency_diff, late_max, missed;
};

struct seen_segment {
    uint32_t number;
    struct mapping *mapping; /* NULL: retired */
};

struct context {
    char *node_id, *dataflow_id;
    char *config_text;
    struct json_arena arena;
    struct json *config;
    int socket, bell, space, epoll, space_epoll, timer;
    struct mapping *box;
    bool lost, watched, started, stopped, ended, ending, stopping, armed, warned_stamp;
    bool sees_all; /* all rings could be watched */
    int64_t epoch_ns, clock;
    uint64_t packets, packets_polled;
    struct dora_optional mail, polled_mail;
    struct dora_spin spin;

    struct peer **peers;
    size_t peer_count;
    struct {
        char *node;
        int bell;
    } *spaces;
    size_t space_count;
    struct seen_segment *segments;
    size_t segment_count;
    bool no_patience; /* after a segment that was never announced */
    struct output *outputs;
    size_t output_count;
    struct names undeclared;

    struct input **inputs; /* in the order in which they are served */
    size_t input_count;
    struct sync_group *groups;
    struct type_checks *types;
    struct route *routes; /* newest first */
    struct mock *mock;    /* NULL with a daemon */
    size_t route_count;
    struct event_line urgent, endings, deferred; /* deferred: passed over by a wait for a reply */
    size_t deferred_count;
    struct change *changes, **last_change;
    struct names closed, broken, failed;
    struct {
        char *node;
        int64_t count; /* as the daemon has said it */
        int64_t seen;
    } *restarts;
    size_t restart_count;
    struct {
        char *key, *value;
    } *params;
    size_t param_count;
    char *fatal; /* why the daemon has refused the node */

    struct pool pool;
    struct request *requests;
    uint64_t last_request;
    struct sample **held; /* buffers of dora_alloc_output */
    size_t held_count;
};

/* Count a heartbeat, if the daemon watches this node for hangs. */
void beat(struct context *context);

/* -- connect.c --------------------------------------------------------------------------------- */

struct context *connect_from_env(void);
struct context *connect_by_id(const char *node_id);
struct context *context_new(int socket);

/* -- daemon.c ---------------------------------------------------------------------------------- */

/* Handle all packets that have come; never blocks. */
void read_mail(struct context *context);
/* Wait up to `millis` for packets, and handle them. */
void wait_for_mail(struct context *context, int millis);
void refresh(struct context *context);
/* Send a packet of text; a daemon that is gone is noticed. */
void notify(struct context *context, const struct json_text *text);
void note(struct context *context, const char *text);
void set_param(struct context *context, const char *key, const struct json *value);
void daemon_free(struct context *context);

/* -- peers.c ----------------------------------------------------------------------------------- */

/* Take over the mailbox and the doorbell of a node that this one sends to. */
void peer_add(struct context *context, const char *node, int memory, int bell);
void peer_remove(struct context *context, const char *node);
void peer_drop(struct peer *peer);
/* Take over the bell of a node that waits for room here. */
void space_add(struct context *context, const char *node, int bell);
void segment_add(struct context *context, uint64_t number, int memory);
void segment_retire(struct context *context, uint64_t number);
/* Return the mapping of a segment; NULL if it is not announced in time. */
struct mapping *find_segment(struct context *context, uint32_t number);
struct output *find_output(struct context *context, const char *id, size_t size);
/* Take all receivers of an output, as the daemon lists them. */
void output_rewire(struct context *context, const char *id, const struct json *to);
void edge_drop(struct edge *edge);

/* -- pool.c ------------------------------------------------------------------------------------ */

/* Return a sample of at least `size` bytes that no subscriber can reach, in no list; NULL after an
   error. */
struct sample *pool_take(struct context *context, uint64_t size);
char *sample_at(const struct sample *sample);
/* Record that a sample was pushed, as its marks say; without any it is free. */
void pool_sent(struct context *context, struct sample *sample);
void sample_mark(struct sample *sample, struct edge *edge, uint64_t index, bool lane);
struct sample *pool_find(struct context *context, uint32_t segment, uint64_t offset);
void pool_trim(struct context *context, int64_t now_ns);
/* Take the daemon's answer to a request: a segment, or NULL. False if no request waits for it. */
bool pool_answer(struct context *context, uint64_t number, uint32_t segment,
                 struct mapping *mapping);
void pool_free(struct context *context);
/* Send the requests without an answer to a new daemon. */
void pool_repeat(struct context *context);

/* -- lane.c ------------------------------------------------------------------------------------ */

void lane_init(struct input *input, struct dora_words words, const struct dora_plan *plan);
enum lane_next { IN_RING, IN_LANE, EMPTY, LAPPED };
/* Where the next message is, if the lane has some; `lost` is of messages that had to be dropped. */
enum lane_next lane_next(struct context *context, struct input *input, uint64_t *lost,
                         const char **damage);
void lane_free(struct input *input);

/* Continue with the message of an index of the ring, or of its lane. */
void skip_to(struct context *context, struct input *input, bool lane, uint64_t tail);

/* -- choosing.c -------------------------------------------------------------------------------- */

/* Read the options that select messages of an input; false if they are not valid. */
bool choosing_begin(struct context *context, struct input *input, const struct json *item);
static inline bool is_choosy(const struct input *input)
{
    return input->pace_ns != 0 || input->group != NULL;
}
struct event *take_chosen(struct context *context, struct input *input);
bool chosen_is_ready(struct context *context, const struct input *input);
bool chosen_holds(struct context *context, struct input *input);
/* Return when an event may become due without a new message; INT64_MAX for never. */
int64_t chosen_due(struct context *context, const struct input *input);
bool chosen_watch(struct context *context, struct dora_watched *watched, const struct input *input);
void groups_free(struct context *context);

/* -- inputs.c ---------------------------------------------------------------------------------- */

/* Create the ring or timer that the daemon describes; false if a peer has damaged its words. */
bool input_add(struct context *context, struct json *item);
void input_remove(struct context *context, uint64_t ring);
void inputs_free(struct context *context);
/* Return whether a message is queued that will still be taken. */
bool has_queued(struct context *context, const struct input *input);
/* Return whether an input may carry the replies of a node; any does without one. */
static inline bool is_from(const struct input *input, const char *node)
{
    return node == NULL || (input->origin != NULL && strcmp(input->origin, node) == 0 &&
                            !is_choosy(input));
}
/* Read what the daemon has sent, before the inputs: a packet that comes meanwhile changes the word
   again. */
void begin_poll(struct context *context);
/* Return the next event if there is one. */
struct event *poll_event(struct context *context);
/* Return the next message of a node if there is one; all others stay in their queues. */
struct event *poll_from(struct context *context, const char *node);
void apply_changes(struct context *context);
bool discard_queued(struct context *context);

/* -- message.c --------------------------------------------------------------------------------- */

/* Take the next message of a ring or its lane; NULL if there is none. */
struct event *take_message(struct context *context, struct input *input);

/* -- timer.c ----------------------------------------------------------------------------------- */

void timer_begin(struct context *context, struct input *input, const struct dora_plan *plan,
                 int64_t interval_ns);
bool tick_is_due(const struct input *input);
/* Take the next tick; NULL if none is due. */
struct event *take_tick(struct context *context, struct input *input);

/* -- waiting.c --------------------------------------------------------------------------------- */

/* Create the descriptors that a node sleeps on; false after an error. */
bool make_waiters(struct context *context);
/* Return whether the node must take nothing now, because it is stepped and another one runs. */
bool must_hold(const struct context *context);
/* Sleep until the daemon lets a node that is stepped begin; else return at once. */
void wait_for_turn(struct context *context);
/* The time for timeouts: CLOCK_MONOTONIC, or logical while the node is stepped. */
int64_t now_ns(const struct context *context);
/* Return whether a wait until a deadline is over. It is not while the node is held. */
bool has_passed(const struct context *context, int64_t deadline_ns);
/* Return when a sleep ends without an event, on CLOCK_MONOTONIC, INT64_MAX if it does not: the daemon
   ends the sleep of a node that is stepped, and learns when that is `due_ns`. */
int64_t sleep_until(struct context *context, int64_t due_ns);
/* Return when the next tick is due, or an input goes on without a message; see `now_ns`. */
int64_t next_due(struct context *context);
bool may_fall_asleep(struct context *context);
/* Sleep until an event may have come, or until the deadline; with a node, until a message of it may
   have come. Return 1 if a signal came. */
int wait_for_event(struct context *context, const int64_t *deadline_ns, const char *node);

/* -- replies.c --------------------------------------------------------------------------------- */

/* Return whether an event replies to a request that was given up; such events are dropped. */
bool is_late_reply(struct context *context, struct event *event);
void routes_free(struct context *context);

/* -- mock.c: a context without a daemon --------------------------------------------------------- */

struct event *mock_poll(struct context *context);
/* Keep a message instead of sending it. */
void mock_send(struct context *context, const char *id, size_t size, struct content *content,
               const DoraMetadata *metadata);
/* Return the next prepared reply to a request on an output; NULL if there is none. */
struct event *mock_reply(struct context *context, const char *output, const char *key,
                         const char *id);
/* Answer a request for a segment. */
void mock_grow(struct context *context, uint64_t number, uint64_t size);
void mock_free(struct mock *mock);

/* -- typeshapes.c ------------------------------------------------------------------------------ */

/* The first difference; `field` is empty for the whole message. */
struct mismatch {
    char field[256], expected[128], actual[128];
};

/* Return whether an array has none of the shapes that the type of a port accepts. */
bool shapes_differ(const struct json *port, const struct ArrowSchema *schema,
                   const struct ArrowArray *array, struct mismatch *first);

/* -- typecheck.c ------------------------------------------------------------------------------- */

/* Read the types of the context's outputs, and which checks the environment asks for. */
bool types_read(struct context *context);
bool types_begin(struct context *context, struct input *input);
void type_check_free(struct type_check *check);
void types_free(struct context *context);
/* Log it if a message does not have the type of its input. */
void check_received(struct context *context, struct input *input, struct event *event);
/* The same for one to be sent, of bytes without a schema; -1 if it must not be sent. */
int check_sent(struct context *context, const struct output *output,
               const struct ArrowSchema *schema, const struct ArrowArray *array,
               const DoraMetadata *metadata);

/* -- api.c ------------------------------------------------------------------------------------- */

/* End the time in which the event descriptor tells of events. */
void disarm(struct context *context);
void content_of_bytes(struct content *content, const void *data, size_t size);

/* -- event.c ----------------------------------------------------------------------------------- */

struct event *event_new(enum event_type type, const char *id, const char *text);
void event_free(struct event *event);
void line_add(struct event_line *line, struct event *event);
struct event *line_take(struct event_line *line);
/* Take out the event that `place` points to. */
struct event *line_remove(struct event_line *line, struct event **place);

/* -- send.c ------------------------------------------------------------------------------------ */

/* The payload of a message: memory to copy, the parts of an array, or a sample. */
struct content {
    uint8_t code;
    uint64_t length, nulls, size;
    struct dora_part parts[1];
    int count; /* 0 if the array has several parts */
    struct sample *sample;
    /* Of an array, freed by `content_free`. */
    struct dora_written written;
    struct dora_type *type;
    /* What the parts are of; NULL for bytes. */
    const struct ArrowSchema *schema;
    const struct ArrowArray *array;
};

/* Copy what is sent to where its payload lies. */
void copy_parts(char *into, const struct content *content);
int send_content(struct context *context, const char *output, size_t size, struct content *content,
                 const DoraMetadata *metadata);
void catch_up(struct context *context);
struct sample *held_at(struct context *context, const void *buffer);
void unhold(struct context *context, struct sample *sample);
void kept_free(struct kept *kept);

/* -- format.c: how arrays become messages. All that depends on the form of an entry is here. ------ */

/* Find the parts of an array; -1 for one that has no form yet. The caller calls `content_free` in
   both cases. */
int format_encode(const struct ArrowSchema *schema, const struct ArrowArray *array,
                  struct content *content);
void content_free(struct content *content);
/* Export the array of a message; the payload stays where it is, as long as the event's borrow. */
int format_decode(struct event *event, struct ArrowSchema *schema, struct ArrowArray *array);

/* -- metadata.c -------------------------------------------------------------------------------- */

struct DoraMetadata {
    struct json_arena arena;
    struct json *object;
};

/* Decode metadata; NULL if they are malformed. */
DoraMetadata *metadata_decode(const char *text, size_t size);
DoraMetadata *metadata_copy(const DoraMetadata *metadata);
/* Write metadata as JSON, and the flags that they give an entry. */
void metadata_encode(const DoraMetadata *metadata, struct json_text *text, uint16_t *flags);
/* Return the text under a key in the metadata of a request, a goal, or a reply; else NULL. */
const char *correlation_of(struct event *event, const char *key);
/* Return the session in encoded metadata as JSON, which the caller frees; NULL if there is none. */
char *session_of(const char *text, size_t size);

/* -- error.c: lines of the log ----------------------------------------------------------------- */

void log_line(const struct context *context, const char *level, size_t level_size,
              const char *message, size_t size);
void log_text(const struct context *context, const char *level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
