"""Mailboxes: made by the daemon, one a node, and kept by it whatever becomes of the process."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from dorad.dataflow.model import Input, LogSource, NodeOutput, QueuePolicy, Timer
from dorad.shm import create, doorbell, layout
from dorad.shm.mapping import Mapping
from dorad.shm.ring import Counters, counters

if TYPE_CHECKING:
    from dorad.dataflow.model import Dataflow, Node


class Mailbox:
    """The daemon's side of one node: its segment, its bells, and the words the daemon writes."""

    def __init__(self, dataflow: Dataflow, node: Node, dataflow_id: str) -> None:
        """Make the segment with a ring for each input, and write down the node's configuration.

        Raises:
            create.ShmFullError: /dev/shm has no room for it.
        """
        self.node = node
        inputs = {item.id: item for item in node.all_inputs}
        sizes = [max(1, item.queue_size) for item in inputs.values()]
        plan = layout.plan(sizes)
        rings = plan.rings
        self.rings = dict(zip(inputs, rings, strict=True))
        self.config = json.dumps(self._config(dataflow, dataflow_id, inputs)).encode()
        self.memory = create.create(plan.size)
        self.bell = doorbell.create()
        self.space = doorbell.create()
        self._mapping = Mapping(self.memory)
        words = self._mapping.words
        for ring in rings:
            words[ring.base + layout.RING_CAPACITY] = ring.capacity
            words[ring.base + layout.RING_QUEUE_SIZE] = ring.queue_size
        words[layout.BOX_MAGIC] = layout.MAGIC

    def _config(
        self, dataflow: Dataflow, dataflow_id: str, inputs: dict[str, Input]
    ) -> dict[str, Any]:
        node = self.node
        return {
            "node_id": node.id,
            "dataflow_id": dataflow_id,
            "descriptor": dataflow.descriptor,
            "run_config": {
                "inputs": {item.id: _as_written(item) for item in inputs.values()},
                "outputs": list(node.all_outputs),
            },
            "inputs": [self._input_config(item) for item in inputs.values()],
            "outputs": list(node.all_outputs),
            "dynamic": node.is_dynamic,
            "restart_count": 0,
            "spin_us": node.spin_us,
            "keep_bytes": node.shared_memory_pool_size,
        }

    def _input_config(self, item: Input) -> dict[str, Any]:
        source = item.source
        if isinstance(source, LogSource):
            raise TypeError(f"input {item.id} of {self.node.id}: dora/logs has no mailbox yet")
        return {
            "id": item.id,
            "ring": self.rings[item.id].base,
            "interval_ns": source.interval_ns if isinstance(source, Timer) else None,
            "source": source.node if isinstance(source, NodeOutput) else None,
            "blocking": item.queue_policy is QueuePolicy.BACKPRESSURE,
        }

    def attach(self) -> None:
        """Prepare for a process that connects: it has read no mail and is awake."""
        words = self._mapping.words
        words[layout.BOX_MAIL] = 0
        words[layout.BOX_ASLEEP] = 0
        self._set_state(layout.STATE_ATTACHED)

    def leave(self) -> None:
        """Take note that nobody reads for now: full rings drop, nobody blocks on them."""
        self._set_state(layout.STATE_DETACHED)

    def close_rings(self) -> None:
        """Take note that nobody will read again."""
        self._set_state(layout.STATE_CLOSED)

    def _set_state(self, state: int) -> None:
        for ring in self.rings.values():
            self._mapping.words[ring.base + layout.RING_STATE] = state

    def clear_hazards(self) -> None:
        """Take back the samples of a process that has ended. Never called while it lives."""
        words = self._mapping.words
        words[layout.BOX_ASLEEP] = 0
        for ring in self.rings.values():
            for slot in range(layout.HAZARDS):
                words[ring.base + layout.RING_HAZARDS + slot] = 0

    def mail_sent(self, count: int) -> None:
        """Tell the node, without a system call on its side, how many packets were sent so far."""
        self._mapping.words[layout.BOX_MAIL] = count

    def counters(self, input_id: str) -> Counters:
        """Return what an input has seen so far."""
        return counters(self._mapping.words, self.rings[input_id].base)

    def close(self) -> None:
        """Let go of the descriptors; the memory ends with the last process that maps it."""
        for descriptor in (self.memory, self.bell, self.space):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _as_written(item: Input) -> Any:
    """Return an input as `node_config()` gives it: a plain text unless the file has options."""
    if not item.long_form:
        return item.source.text
    options: dict[str, Any] = {"source": item.source.text, "queue_size": item.queue_size}
    if item.queue_policy is not QueuePolicy.DROP_OLDEST:
        options["queue_policy"] = str(item.queue_policy)
    if item.input_timeout is not None:
        options["input_timeout"] = item.input_timeout
    return options
