/* The node API of dora for C, and what a driver needs beyond it.

   Link with libdora_node: `pkg-config --cflags --libs dora-node`, or in CMake
   `find_package(dora REQUIRED)` and `target_link_libraries(NODE dora::node)`.

   Threads. One thread at a time uses a context. Events, metadata and Arrow data that were received
   are independent of it: any thread may read and free them, one at a time, also after the context
   is freed. A child process after fork() must not use the parent's context.

   Errors. Functions that return int return 0, or -1 after an error that is logged; `dora_last_error`
   returns its text. Strings are UTF-8. */

#ifndef DORA_NODE_API_H
#define DORA_NODE_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* -- as in dora -------------------------------------------------------------------------------- */

/* Join the dataflow that has started this process, and wait until all its nodes are ready. Return
   the context, or NULL after an error. */
void *init_dora_context_from_env(void);
/* Leave the dataflow. Buffers that were not sent go with it. */
void free_dora_context(void *dora_context);

/* Wait for the next event. Return NULL after the last one. */
void *dora_next_event(void *dora_context);
void free_dora_event(void *dora_event);

enum DoraEventType {
    DoraEventType_Stop,
    DoraEventType_Input,
    DoraEventType_InputClosed,
    DoraEventType_Error,
    DoraEventType_Unknown,
};
#ifndef __cplusplus
typedef enum DoraEventType DoraEventType;
#endif

/* Return the type of an event; those that dora's C API does not have are Unknown. */
enum DoraEventType read_dora_event_type(void *dora_event);
/* Get the id of an input's event; NULL and 0 for others. It is not terminated by a zero. */
void read_dora_input_id(void *dora_event, char **out_ptr, size_t *out_len);
/* Get the bytes of an input of type UInt8; NULL and 0 for others, which are logged. */
void read_dora_input_data(void *dora_event, char **out_ptr, size_t *out_len);
/* Return when the message of an input's event was sent: seconds since 1970 in the upper 32 bits,
   and their binary fraction in the lower ones. 0 for other events. */
unsigned long long read_dora_input_timestamp(void *dora_event);

/* Send bytes, which arrive as UInt8. An output that the dataflow does not declare is ignored with
   one warning. Blocks only for inputs with backpressure. */
int dora_send_output(void *dora_context, const char *id_ptr, size_t id_len, const char *data_ptr,
                     size_t data_len);
/* Log a message. The levels are error, warn, info, debug and trace; others count as info. */
int dora_log(void *dora_context, const char *level_ptr, size_t level_len, const char *msg_ptr,
             size_t msg_len);

/* -- beyond dora ------------------------------------------------------------------------------- */

/* Return the text of this thread's last error; empty without one. Valid until its next call. */
const char *dora_last_error(void);
/* Return the version of this library. */
const char *dora_node_version(void);

/* Join a running dataflow as its node `node_id`, which must be declared with `path: dynamic`. */
void *init_dora_context_from_node_id(const char *node_id);

/* Wait for the next event at most `timeout_ms`; negative: without limit, 0: do not wait. `*event` is
   NULL if none came in time or a signal was handled, which is no error, and after the last one: the
   result is then 1. */
int dora_next_event_timeout(void *dora_context, int64_t timeout_ms, void **event);
/* Return a descriptor that becomes readable when `dora_next_event_timeout(context, 0, ...)` should
   be called, for poll and epoll. Call it until it returns no event: then, and only then, call
   `dora_arm_event_fd` before the wait. The descriptor is the context's; do not read or close it. */
int dora_event_fd(void *dora_context);
/* Have the descriptor become readable with the next event. Return 1 if an event is there already. */
int dora_arm_event_fd(void *dora_context);

/* Return the name of an event's type as nodes in Python have it: INPUT, STOP, INPUT_CLOSED,
   INPUT_RECOVERED, NODE_RESTARTED, NODE_FAILED, PARAM_UPDATE, PARAM_DELETED, RELOAD or ERROR. */
const char *dora_event_name(const void *dora_event);
/* Return what an event is about, by its type: the id of an input, the reason of a STOP, the id of a
   node, the key of a parameter; empty for an ERROR. Terminated by a zero. */
const char *dora_event_id(const void *dora_event);
/* Return the text of an ERROR or NODE_FAILED, the reason of an INPUT_CLOSED (finished or timeout),
   or the new value of a parameter as JSON; else empty. */
const char *dora_event_text(const void *dora_event);
/* Return the id of an input that gets no more messages after a NODE_FAILED, NULL beyond the last. */
const char *dora_event_affected_input(const void *dora_event, size_t index);
/* Return when the message of an input was sent, or the tick was due, in ns since 1970. */
int64_t dora_event_timestamp_ns(const void *dora_event);

/* -- metadata */

typedef struct DoraMetadata DoraMetadata;

/* Types of metadata values. */
enum DoraMetadataType {
    DORA_METADATA_NONE, /* there is no such key */
    DORA_METADATA_BOOL,
    DORA_METADATA_INT,
    DORA_METADATA_FLOAT,
    DORA_METADATA_STRING,
    DORA_METADATA_TIME,
    DORA_METADATA_INTS,
    DORA_METADATA_FLOATS,
    DORA_METADATA_STRINGS,
};

/* Return the metadata of an event, which are its own; NULL if they are malformed. */
const DoraMetadata *dora_event_metadata(void *dora_event);
DoraMetadata *dora_metadata_new(void);
void dora_metadata_free(DoraMetadata *metadata);
/* Return the number of keys, and one of them; they keep their order. */
size_t dora_metadata_count(const DoraMetadata *metadata);
const char *dora_metadata_key(const DoraMetadata *metadata, size_t index);
enum DoraMetadataType dora_metadata_type(const DoraMetadata *metadata, const char *key);

/* Get a value: 0, or -1 if there is none of that type. An int is also a float. */
int dora_metadata_get_bool(const DoraMetadata *metadata, const char *key, bool *value);
int dora_metadata_get_int(const DoraMetadata *metadata, const char *key, int64_t *value);
int dora_metadata_get_float(const DoraMetadata *metadata, const char *key, double *value);
/* NULL if there is none. */
const char *dora_metadata_get_string(const DoraMetadata *metadata, const char *key);
/* In microseconds since 1970. */
int dora_metadata_get_time(const DoraMetadata *metadata, const char *key, int64_t *micros);
/* Return the number of items of a list, and get one of them. */
size_t dora_metadata_length(const DoraMetadata *metadata, const char *key);
int dora_metadata_get_int_at(const DoraMetadata *metadata, const char *key, size_t at,
                             int64_t *value);
int dora_metadata_get_float_at(const DoraMetadata *metadata, const char *key, size_t at,
                               double *value);
const char *dora_metadata_get_string_at(const DoraMetadata *metadata, const char *key, size_t at);

/* Set a value; one that was there is replaced. */
int dora_metadata_set_bool(DoraMetadata *metadata, const char *key, bool value);
int dora_metadata_set_int(DoraMetadata *metadata, const char *key, int64_t value);
int dora_metadata_set_float(DoraMetadata *metadata, const char *key, double value);
int dora_metadata_set_string(DoraMetadata *metadata, const char *key, const char *value);
int dora_metadata_set_time(DoraMetadata *metadata, const char *key, int64_t micros);
int dora_metadata_set_ints(DoraMetadata *metadata, const char *key, const int64_t *values,
                           size_t count);
int dora_metadata_set_floats(DoraMetadata *metadata, const char *key, const double *values,
                             size_t count);
int dora_metadata_set_strings(DoraMetadata *metadata, const char *key, const char *const *values,
                              size_t count);

/* Send bytes with metadata, which may be NULL. */
int dora_send_bytes(void *dora_context, const char *output, const void *data, size_t size,
                    const DoraMetadata *metadata);

/* -- buffers in shared memory */

/* Return `size` writable bytes in shared memory, aligned to 64 bytes, or NULL. Fill them, and pass
   them to `dora_send_buffer`, which sends them without a copy, or to `dora_free_output`. */
void *dora_alloc_output(void *dora_context, size_t size);
/* Send the first `size` bytes of a buffer. It belongs to the receivers then, also after an error. */
int dora_send_buffer(void *dora_context, const char *output, void *buffer, size_t size,
                     const DoraMetadata *metadata);
void dora_free_output(void *dora_context, void *buffer);

/* -- Arrow: the C data interface (https://arrow.apache.org/docs/format/CDataInterface.html) */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif

/* Export the array of an input; the caller releases both. Values stay in shared memory. The event may
   be freed before. */
int dora_event_arrow(void *dora_event, struct ArrowSchema *schema, struct ArrowArray *array);
/* Send an array, which stays the caller's. If its values lie at the start of a buffer of
   `dora_alloc_output`, they are sent without a copy, and the buffer is the receivers' then. */
int dora_send_arrow(void *dora_context, const char *output, const struct ArrowSchema *schema,
                    const struct ArrowArray *array, const DoraMetadata *metadata);

/* -- synchronised inputs */

/* Return how many messages a set has; 0 for all other events. A set is an INPUT whose id is the name
   of the set in the dataflow's `sync`. */
size_t dora_event_member_count(const void *dora_event);
/* Return a message of a set, an event that is the set's own; NULL beyond the last one. */
void *dora_event_member(void *dora_event, size_t index);

/* -- services and actions

   A request has a `request_id` in its metadata, and a goal a `goal_id`; what replies to them has the
   same. Replies come from the node that receives the output, on any input from it that has no
   `max_rate_hz` and no `sync`. */

/* Results of the calls below, besides 0 and -1. */
enum {
    DORA_NO_PEER = -2,      /* no node replies to the output, or several may; nothing was sent */
    DORA_NO_ANSWER = -3,    /* the time limit is over */
    DORA_PEER_LOST = -4,    /* the node that replies has ended, failed or was restarted */
    DORA_STOPPING = -5,     /* this node is being stopped; its STOP still comes */
    DORA_REMOTE_ERROR = -6, /* the reply is an error; dora_last_error() has its text */
};

/* Write a new id, a UUID of version 7 and a zero. */
void dora_new_id(char id[37]);
/* Give the metadata of a message to be sent on `output` a new request_id, or goal_id, which is also
   written to `id`: send it next, and wait for its reply. */
int dora_new_request(void *dora_context, const char *output, DoraMetadata *metadata, char id[37]);
int dora_new_goal(void *dora_context, const char *output, DoraMetadata *metadata, char id[37]);
/* Wait for the answer to a request, or the next feedback or the result of a goal, which alone has a
   `goal_status`. A negative time is without limit. `*event` is the caller's, also with
   DORA_REMOTE_ERROR, else NULL. Messages of other nodes stay in their queues; other ones of this
   node, up to 1000, are returned by dora_next_event afterwards. The answer to a request whose time
   was over is dropped; a goal may be waited for again. */
int dora_wait_reply(void *dora_context, const char *id, int64_t timeout_ms, void **event);
/* Send bytes as a request, and wait for its answer. */
int dora_call(void *dora_context, const char *output, const void *data, size_t size,
              const DoraMetadata *metadata, int64_t timeout_ms, void **event);

/* Give metadata the request_id or goal_id of a message that they answer. For the result of a goal,
   also set `goal_status` to succeeded, aborted or canceled. */
int dora_metadata_answer(DoraMetadata *metadata, void *request);
/* Answer a request, or end a goal, with an error. */
int dora_send_error(void *dora_context, const char *output, void *request, const char *kind,
                    const char *text);

/* -- the node */

const char *dora_node_id(const void *dora_context);
const char *dora_dataflow_id(const void *dora_context);
/* Return how often the daemon has restarted the node. */
uint64_t dora_restart_count(const void *dora_context);
/* Return the inputs and outputs of this node, or the whole dataflow, as JSON; the caller frees it. */
char *dora_node_config_json(const void *dora_context);
char *dora_dataflow_descriptor_json(const void *dora_context);
/* Return a parameter's present value as JSON, which the caller frees; NULL if it is not set. */
char *dora_param_json(const void *dora_context, const char *key);
/* Return the time of the dataflow in ns since 1970: never earlier than a message received. */
int64_t dora_timestamp_ns(void *dora_context);

#ifdef __cplusplus
}
#endif

#endif
