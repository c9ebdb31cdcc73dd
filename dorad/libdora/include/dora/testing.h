/* Unit tests of nodes without a dataflow: a context that returns prepared events, and keeps what the
   node sends. It never waits. Link with libdora_node as the node itself; for C++ see testing.hpp. */

#ifndef DORA_TESTING_H
#define DORA_TESTING_H

#include "node_api.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Return a context for all functions of node_api.h; free_dora_context() frees it. Its node has every
   output. After the prepared events comes a STOP, unless they contained one. */
void *dora_mock_new(const char *node_id);

/* Add a message on an input, of bytes or of an array, which stays the caller's. */
int dora_mock_input(void *dora_context, const char *input, const void *data, size_t size,
                    const DoraMetadata *metadata);
int dora_mock_input_arrow(void *dora_context, const char *input, const struct ArrowSchema *schema,
                          const struct ArrowArray *array, const DoraMetadata *metadata);
/* Add another event, by its name, id and text as of dora_event_name() and so on. A PARAM_UPDATE sets
   the parameter to its text, which is JSON, when the node receives it. */
int dora_mock_event(void *dora_context, const char *name, const char *id, const char *text);
/* Set a parameter from the start, as JSON. */
int dora_mock_param(void *dora_context, const char *key, const char *json);
/* Add a reply to the requests or goals of an output: each wait for one takes the next. With a
   `goal_status` in its metadata it is a result, with `request_error` or `goal_error` an error. */
int dora_mock_reply(void *dora_context, const char *output, const void *data, size_t size,
                    const DoraMetadata *metadata);

/* Return the oldest message that the node has sent on an output, as an event that is the caller's;
   NULL if there is none left. */
void *dora_mock_sent(void *dora_context, const char *output);

#ifdef __cplusplus
}
#endif

#endif
