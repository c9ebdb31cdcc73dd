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

if TYPE_CHECKING:
    from dorad.node.receiver import Receiver
    from hwtests.torture.part import Part

PACE_S = 0.004
"""A source that has sent rests up to so long."""


class _Held(NamedTuple):
    until: float
    value: Any
    metadata: dict[str, Any]


class _Seen(NamedTuple):
    """The latest message on an input, and what the input had dropped by then."""

    incarnation: int
    sequence: int
    dropped: int


class Player:
    """One process of a node."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._folder = Path(part.folder)
        # Habits stay with the node: what it restarts with is what its neighbours know.
        habits = Random(f"{part.node}")
        self._hoard = habits.choice((0, 4, 45))
        self._asynchronous = bool(part.inputs) and habits.random() < 0.3
        self._slow_s = habits.choice((0.0, 0.0, 0.002))
        self._rng = Random(f"{part.seed} {part.node} {part.incarnation}")
        self._ledger = Ledger(self._folder / f"{part.node}.ledger", part.outputs, part.inputs)
        self._held: deque[_Held] = deque()
        self._born: deque[Any] = deque(maxlen=self._rng.choice((1, 6)))
        self._seen: dict[str, _Seen] = {}
        self._stopping = False
        self._node = Node()
        self._excuse_predecessors()

    def play(self) -> None:
        """Take part until the daemon says STOP and the last message is received."""
        if self._asynchronous:
            asyncio.run(self._play_async())
        else:
            self._play()
        while self._held:
            self._let_go()

    def _play(self) -> None:
        node = self._node
        while True:
            if not self._part.inputs:
                event = node.next(timeout=self._rng.random() * PACE_S)
            elif self._rng.random() < 0.1:
                self._ledger.draining = True
                for extra in node.drain():
                    # What was dropped when this one was taken cannot be told any more.
                    self._seen.clear()
                    self._meet(extra)
                self._ledger.draining = False
                self._seen.clear()
                event = node.next()
            else:
                event = node.next()
            if event is None:
                return
            self._meet(event)

    async def _play_async(self) -> None:
        while (event := await self._node.recv_async()) is not None:
            self._meet(event)

    def _meet(self, event: dict[str, Any]) -> None:
        self._ledger.turn()
        kind = event["type"]
        if kind == "STOP":
            self._stopping = True
        elif kind == "INPUT":
            self._receive(event["id"], event["value"], event["metadata"])
        elif "timed out" not in event.get("error", ""):
            self._complain(f"an unexpected event {event}")
        while self._held and (
            len(self._held) > self._hoard or self._held[0].until < time.monotonic()
        ):
            self._let_go()
        if not self._stopping and (not self._part.inputs or self._rng.random() < 0.7):
            self._send()

    def _send(self) -> None:
        for output in self._part.outputs:
            sequence = self._ledger.begin(output)
            born = message.send(self._node, output, sequence, self._part.incarnation, self._rng)
            self._ledger.finish(output)
            if born is not None:
                self._born.append(born)

    def _receive(self, input_id: str, value: Any, metadata: dict[str, Any]) -> None:
        fault = message.fault(value, metadata)
        if fault is not None:
            self._complain(f"input {input_id}: message {metadata}: {fault}")
        self._check_order(input_id, metadata)
        self._ledger.log(input_id, metadata["s"], metadata["n"])
        if self._hoard and self._rng.random() < 0.5:
            until = time.monotonic() + self._rng.expovariate(4.0)
            self._held.append(_Held(until, value, metadata))
        if self._slow_s:
            time.sleep(self._rng.random() * self._slow_s)

    def _check_order(self, input_id: str, metadata: dict[str, Any]) -> None:
        """Check that exactly the messages counted as dropped are missing."""
        sequence, incarnation = metadata["s"], metadata["i"]
        latest = self._ledger.latest(input_id) - 1
        if sequence <= latest:
            self._complain(f"input {input_id}: message {sequence} came after {latest}")
        dropped = self._word(input_id, RING_TAIL) - self._word(input_id, RING_RECEIVED)
        before = self._seen.get(input_id)
        if before is not None:
            missing = sequence - before.sequence - 1 - (dropped - before.dropped)
            # Each end of the publisher may have cost the one message it was sending; those that it
            # could not send any more when it was told to stop are counted apart.
            excused = incarnation - before.incarnation + self._word(input_id, RING_REFUSED)
            if not 0 <= missing <= excused:
                self._complain(
                    f"input {input_id}: {missing} messages lost without being counted between"
                    f" {before} and {incarnation}/{sequence} at {dropped} drops"
                )
        self._seen[input_id] = _Seen(incarnation, sequence, dropped)

    def _excuse_predecessors(self) -> None:
        """Take note of messages that killed processes had taken: one each, unless they drained.

        What they held must be free again by now.
        """
        ledger = self._ledger
        for input_id in self._part.inputs:
            received = self._word(input_id, RING_RECEIVED)
            unknown = received - ledger.logged(input_id) - ledger.excused(input_id)
            if not 0 <= unknown <= 1 and not ledger.draining:
                self._complain(f"input {input_id}: {unknown} messages received but never seen")
            ledger.excuse(input_id, received - ledger.logged(input_id))
            if any(self._word(input_id, RING_HAZARDS + slot) for slot in range(HAZARDS)):
                self._complain(f"input {input_id}: a dead process's borrows were not ended")
        ledger.draining = False

    def _word(self, input_id: str, word: int) -> int:
        receiver = cast("Receiver", self._node._receiver)
        (item,) = receiver.inputs.of(input_id)
        assert isinstance(item, RingInput)
        return int(receiver.inputs.connection.box.words[item.inlet.head_at - RING_HEAD + word])

    def _let_go(self) -> None:
        held = self._held.popleft()
        fault = message.fault(held.value, held.metadata)
        if fault is not None:
            self._complain(f"an array held for a while: message {held.metadata}: {fault}")
        self._ledger.recheck()

    def _complain(self, text: str) -> None:
        with (self._folder / "complaints").open("a", encoding="utf-8") as file:
            file.write(f"{self._part.node}/{self._part.incarnation}: {text}\n")
