"""Which inputs have a lane, so that ordinary messages do not displace those of calls."""

import pytest

from dorad.daemon.broker.mailbox import Mailbox
from dorad.dataflow.model import Input, NodeKind, NodeOutput, NodeSpec, QueuePolicy, Sync, Timer
from dorad.shm import layout

SOURCE = NodeOutput("a", "out")


@pytest.mark.parametrize(
    ("item", "protects"),
    [
        (Input("x", SOURCE), True),
        (Input("x", SOURCE, queue_policy=QueuePolicy.BACKPRESSURE), True),
        (Input("x", SOURCE, 1, QueuePolicy.LATEST), False),
        (Input("x", SOURCE, latched=True), False),
        (Input("x", SOURCE, max_rate_hz=5.0), False),
        (Input("left", SOURCE), False),
        (Input("x", Timer(10**9)), False),
    ],
)
def test_an_input_that_selects_messages_has_no_lane(item: Input, protects: bool) -> None:
    sync = (Sync("both", ("left", "right"), 1),)
    box = Mailbox(NodeSpec("n", NodeKind.PATH, inputs=(item,), sync=sync))
    try:
        assert bool(box.rings[item.id].plan.lane) is protects
        added = box.add_ring("more", item)
        assert bool(box._words[added.plan.base + layout.RING_LANE]) is protects
    finally:
        box.close()
