"""The program of every node: receive, verify, hold some arrays for a while, send."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dorad.node.inputs import RingInput
from dorad.node.node import Node
from dorad.shm.layout import (
    HAZARDS,
    RING_HAZARDS,
    RING_HEAD,
    RING_RECEIVED,
    RING_REFUSED,
    RING_TAIL,
)
from hwtests.torture import message
from hwtests.torture.ledger import Ledger
from hwtests.torture.spec import FAULTS_FILE

if TYPE_CHECKING:
    from dorad.node.receiver import Receiver
    from hwtests.torture.spec import ProcessSpec

PACE_S = 0.004
"""Longest pause of a source between two messages."""


class _Held(NamedTuple):
    until: float
    value: Any
    metadata: dict[str, Any]


class _Seen(NamedTuple):
    """The latest message on an input, and what the input had dropped by then."""

    incarnation: int
    sequence: int
    dropped: int


class TortureNode:
    """One process of a node."""

    def __init__(self, spec: ProcessSpec) -> None:
        self._spec = spec
        self._folder = Path(spec.folder)
        # Traits are the same in every process of the node: other nodes rely on them.
        traits = Random(f"{spec.node}")
        self._max_held = traits.choice((0, 4, 45))
        self._asynchronous = bool(spec.inputs) and traits.random() < 0.3
        self._slow_s = traits.choice((0.0, 0.0, 0.002))
        self._rng = Random(f"{spec.seed} {spec.node} {spec.incarnation}")
        self._ledger = Ledger(self._folder / f"{spec.node}.ledger", spec.outputs, spec.inputs)
        self._held: deque[_Held] = deque()
        self._recent: deque[Any] = deque(maxlen=self._rng.choice((1, 6)))
        self._seen: dict[str, _Seen] = {}
        self._stopping = False
        self._node = Node()
        self._account_for_predecessors()

    def run(self) -> None:
        """Receive and send until STOP and the last queued message have been received."""
        if self._asynchronous:
            asyncio.run(self._run_async())
        else:
            self._run()
        while self._held:
            self._release()

    def _run(self) -> None:
        node = self._node
        while True:
            if not self._spec.inputs:
                event = node.next(timeout=self._rng.random() * PACE_S)
            elif self._rng.random() < 0.1:
                self._ledger.draining = True
                for extra in node.drain():
                    # The number of drops before this message is unknown after a drain.
                    self._seen.clear()
                    self._handle(extra)
                self._ledger.draining = False
                self._seen.clear()
                event = node.next()
            else:
                event = node.next()
            if event is None:
                return
            self._handle(event)

    async def _run_async(self) -> None:
        while (event := await self._node.recv_async()) is not None:
            self._handle(event)

    def _handle(self, event: dict[str, Any]) -> None:
        self._ledger.turn()
        kind = event["type"]
        if kind == "STOP":
            self._stopping = True
        elif kind == "INPUT":
            self._receive(event["id"], event["value"], event["metadata"])
        elif "timed out" not in event.get("error", ""):
            self._report(f"an unexpected event {event}")
        while self._held and (
            len(self._held) > self._max_held or self._held[0].until < time.monotonic()
        ):
            self._release()
        if not self._stopping and (not self._spec.inputs or self._rng.random() < 0.7):
            self._send()

    def _send(self) -> None:
        for output in self._spec.outputs:
            sequence = self._ledger.begin(output)
            array = message.send(self._node, output, sequence, self._spec.incarnation, self._rng)
            self._ledger.finish(output)
            if array is not None:
                self._recent.append(array)

    def _receive(self, input_id: str, value: Any, metadata: dict[str, Any]) -> None:
        fault = message.fault(value, metadata)
        if fault is not None:
            self._report(f"input {input_id}: message {metadata}: {fault}")
        self._check_order(input_id, metadata)
        self._ledger.log(input_id, metadata["s"], metadata["n"])
        if self._max_held and self._rng.random() < 0.5:
            until = time.monotonic() + self._rng.expovariate(4.0)
            self._held.append(_Held(until, value, metadata))
        if self._slow_s:
            time.sleep(self._rng.random() * self._slow_s)

    def _check_order(self, input_id: str, metadata: dict[str, Any]) -> None:
        """Check that exactly the messages counted as dropped are missing."""
        sequence, incarnation = metadata["s"], metadata["i"]
        latest = self._ledger.latest(input_id) - 1
        if sequence <= latest:
            self._report(f"input {input_id}: message {sequence} came after {latest}")
        dropped = self._word(input_id, RING_TAIL) - self._word(input_id, RING_RECEIVED)
        before = self._seen.get(input_id)
        if before is not None:
            missing = sequence - before.sequence - 1 - (dropped - before.dropped)
            # Each kill of the sender may have cost the message it was sending. Messages that it
            # could not send after its STOP are counted in RING_REFUSED.
            excused = incarnation - before.incarnation + self._word(input_id, RING_REFUSED)
            if not 0 <= missing <= excused:
                self._report(
                    f"input {input_id}: {missing} messages lost without being counted between"
                    f" {before} and {incarnation}/{sequence} at {dropped} drops"
                )
        self._seen[input_id] = _Seen(incarnation, sequence, dropped)

    def _account_for_predecessors(self) -> None:
        """Excuse messages that killed processes had taken: one each, or more if they drained.

        Samples that they held must have been released.
        """
        ledger = self._ledger
        for input_id in self._spec.inputs:
            received = self._word(input_id, RING_RECEIVED)
            unknown = received - ledger.logged(input_id) - ledger.excused(input_id)
            if not 0 <= unknown <= 1 and not ledger.draining:
                self._report(f"input {input_id}: {unknown} messages received but never seen")
            ledger.excuse(input_id, received - ledger.logged(input_id))
            if any(self._word(input_id, RING_HAZARDS + slot) for slot in range(HAZARDS)):
                self._report(f"input {input_id}: a dead process's borrows were not ended")
        ledger.draining = False

    def _word(self, input_id: str, word: int) -> int:
        receiver = cast("Receiver", self._node._receiver)
        (item,) = receiver.inputs.of(input_id)
        assert isinstance(item, RingInput)
        return int(receiver.inputs.connection.box.words[item.inlet.head_at - RING_HEAD + word])

    def _release(self) -> None:
        held = self._held.popleft()
        fault = message.fault(held.value, held.metadata)
        if fault is not None:
            self._report(f"an array held for a while: message {held.metadata}: {fault}")
        self._ledger.recheck()

    def _report(self, text: str) -> None:
        with (self._folder / FAULTS_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{self._spec.node}/{self._spec.incarnation}: {text}\n")
