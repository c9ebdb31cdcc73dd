"""Declared types of inputs and outputs of nodes in C are checked as those of nodes in Python."""

from typing import Any

import pytest

from tests.harness.dataflow import Flow
from tests.libdora.conftest import Compile, add

SENDER = r"""
#include <dora/node_api.h>
#include <stdio.h>

static void keep_schema(struct ArrowSchema *schema) { schema->release = NULL; }
static void keep_array(struct ArrowArray *array) { array->release = NULL; }

int main(void)
{
    void *context = init_dora_context_from_env();
    if (context == NULL)
        return 1;
    double values[2] = {1.5, 2.5};
    const void *buffers[2] = {NULL, values};
    struct ArrowSchema schema = {.format = "g", .name = "", .release = keep_schema};
    struct ArrowArray array = {
        .length = 2, .n_buffers = 2, .buffers = buffers, .release = keep_array};
    int right = dora_send_arrow(context, "out", &schema, &array, NULL);
    schema.format = "l";
    int wrong = dora_send_arrow(context, "out", &schema, &array, NULL);
    void *buffer = dora_alloc_output(context, 10000);
    int bytes = dora_send_buffer(context, "out", buffer, 10000, NULL);
    printf("sent %d %d %d\n", right, wrong, bytes);
    free_dora_context(context);
    return 0;
}
"""

RECEIVER = r"""
#include <dora/node_api.h>
#include <stdio.h>

int main(void)
{
    void *context = init_dora_context_from_env(), *event;
    if (context == NULL)
        return 1;
    int count = 0;
    while ((event = dora_next_event(context)) != NULL) {
        count += read_dora_event_type(event) == DoraEventType_Input;
        free_dora_event(event);
    }
    printf("received %d\n", count);
    free_dora_context(context);
    return 0;
}
"""

FLOAT = "std/core/v1/Float64"
WRONG = "type mismatch: sender/out -> receiver/in: not std/core/v1/Float64: expected Float64, found"


def typed(flow: Flow, compile_node: Compile, check: str, *, declared: str = FLOAT) -> str:
    env = {"DORA_RUNTIME_TYPE_CHECK": check} if check else {}
    sender = compile_node("sender", SENDER)
    add(flow, "sender", sender, outputs=["out"], env=env, output_types={"out": declared})
    receiver = compile_node("receiver", RECEIVER)
    add(flow, "receiver", receiver, inputs={"in": "sender/out"}, env=env)
    return flow.run().output


@pytest.mark.parametrize(
    ("check", "sent", "received"),
    [("", "0 0 0", 3), ("warn", "0 0 0", 3), ("error", "0 -1 -1", 1), ("warn,first", "0 0 0", 3)],
)
def test_outputs_are_checked_as_the_environment_asks(
    flow: Flow, compile_node: Compile, check: str, sent: str, received: int
) -> None:
    output = typed(flow, compile_node, check)
    assert f"stdout sender: sent {sent}" in output
    assert f"stdout receiver: received {received}" in output
    found = check in ("warn", "error")
    assert (f"{WRONG} Int64" in output) == (f"{WRONG} UInt8" in output) == found, output


def test_a_setting_that_is_not_understood_ends_the_node(flow: Flow, compile_node: Compile) -> None:
    assert "DORA_RUNTIME_TYPE_CHECK=maybe: `maybe` is not understood" in typed(
        flow, compile_node, "maybe"
    )


SENDERS = {
    "right": ("[1.5]", ""),
    "whole": ("[1]", "expected Float64, found Int64"),
    "text": ('["a"]', "expected Float64, found Utf8"),
}


@pytest.mark.parametrize("case", SENDERS)
def test_the_first_message_of_a_typed_input_is_checked(
    flow: Flow, compile_node: Compile, case: str
) -> None:
    data, wrong = SENDERS[case]
    source = "import pyarrow as pa\nfrom dora import Node\nnode = Node()\nfor turn in range(3):\n"
    flow.node("sender", f"{source}    node.send_output('out', pa.array({data}))", outputs=["out"])
    receiver = compile_node("receiver", RECEIVER)
    inputs: dict[str, Any] = {"in": {"source": "sender/out", "queue_size": 9}}
    add(flow, "receiver", receiver, inputs=inputs, input_types={"in": FLOAT})
    output = flow.run().expect(0).output
    assert "stdout receiver: received 3" in output
    assert output.count("type mismatch") == bool(wrong)
    assert wrong in output


def test_a_node_that_is_to_write_its_events_is_refused_instead(
    flow: Flow, compile_node: Compile
) -> None:
    env = {"DORA_WRITE_EVENTS_TO": "events"}
    add(flow, "receiver", compile_node("receiver", RECEIVER), env=env)
    outcome = flow.run()
    assert outcome.code == 1
    assert "DORA_WRITE_EVENTS_TO is set, but nodes in C do not write their events" in outcome.output
