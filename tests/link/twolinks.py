"""Two link processes without processes: everything but Zenoh and the daemon is real.

Machine `alpha` has a node that sends to `beta`. The rings belong to the machines, as on robots they
belong to the daemons; a link process can be killed at any moment and replaced by another.
"""

import os
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from types import SimpleNamespace
from typing import Any

import zenoh

from dorad.link.arrivals import Arrivals
from dorad.link.channels import Channels
from dorad.link.config import ChannelIn, ChannelOut, LinkConfig
from dorad.link.delivery import Delivery
from dorad.link.direct import DirectIn, LoopSleep
from dorad.link.process import Sending
from dorad.link.reports import ChannelEvent
from dorad.link.session import Received, Seen
from dorad.shm.layout import BOX_WORDS
from tests.shm.edge import Edge, edge

OUTPUT = "a/out"
QUEUE = 1000


class Session:
    """Stands for Zenoh: what is put waits in `sent`, as (kind, bytes)."""

    def __init__(self) -> None:
        self.data: deque[Received] = deque()
        self.control: deque[Received] = deque()
        self.seen: deque[Seen] = deque()
        self.sent: deque[tuple[str, bytes]] = deque()
        self.unopened = ""

    @property
    def waiting(self) -> bool:
        return bool(self.data or self.control or self.seen)

    def publisher(self, _machine: str, kind: str, _priority: object) -> SimpleNamespace:
        return SimpleNamespace(put=lambda frame: self.sent.append((kind, bytes(frame))))


class Reporter:
    """Stands for the daemon, which takes every event."""

    def event(self, _event: ChannelEvent) -> bool:
        return True


def loop_sleep() -> LoopSleep:
    """Return the sleep of a loop that is awake, and that nothing wakes."""
    words = memoryview(bytearray(8 * BOX_WORDS)).cast("Q")
    bell = os.eventfd(0)
    sleep = LoopSleep(words, bell, [])
    weakref.finalize(sleep, os.close, bell)
    sleep.wakes_soon = True
    return sleep


def sample(payload: zenoh.ZBytes) -> Any:
    """Return a sample as Zenoh gives it to callbacks."""
    return SimpleNamespace(payload=payload)


class FakeLink:
    """One link process."""

    def __init__(
        self,
        config: LinkConfig,
        incarnation: int,
        inlet_of: Edge | None,
        outlets_of: list[Edge],
    ) -> None:
        """`inlet_of` is the edge that it takes messages from, `outlets_of` are those it feeds."""
        self.session = Session()
        self.connection: Any = SimpleNamespace(
            box=None if inlet_of is None else inlet_of.box,
            segments={},
            spaces={},
            outlets={},
            late_outputs=set(),
            grow=None,
            retire=None,
        )
        self.feed(outlets_of)
        self.incarnation = incarnation
        delivery = Delivery(self.connection, 0)
        session: Any = self.session
        self.channels = Channels(self.connection, delivery, incarnation, session, {})
        self.delivery = delivery
        self.sleep = loop_sleep()
        reporter: Any = Reporter()
        self.arrivals = Arrivals(self.channels, delivery, reporter, session)
        self.sending = Sending(self.channels)
        if inlet_of is not None:
            item = {"id": "x", "ring": inlet_of.ring.base, "blocking": False, "source": "a"}
            self.channels.make_input(item)
        self.channels.add(config, time.monotonic())

    def feed(self, edges: list[Edge]) -> None:
        """Send to these edges from now on; ends that it has already stay."""
        known = {outlet.peer: outlet for outlet in self.connection.outlets.get(OUTPUT, ())}
        self.connection.outlets[OUTPUT] = tuple(
            known.get(each.peer) or each.new_outlet() for each in edges
        )

    def direct(self, machine: str) -> DirectIn:
        """Return what takes the data of a machine."""
        queue = self.session.data

        def otherwise(sample: Any) -> None:
            queue.append(Received(machine, "data", sample.payload))

        ins = self.channels.ins
        return DirectIn(self.sleep, ins, self.delivery, machine, queue, otherwise)

    def turn(self, now_s: float) -> None:
        """Do once everything that can be done now."""
        self.sending.send()
        self.arrivals.handle_all(now_s)
        self.sending.acknowledge(now_s)
        self.sending.greet(now_s, leaving=False)


class TwoLinks:
    """Both machines, and what is on its way between them."""

    def __init__(self, *, reliable: bool, messages: int) -> None:
        """`messages` is the credit of the channel."""
        self._stack = ExitStack()
        self.source = self._stack.enter_context(edge(QUEUE))
        """From the node to the link of alpha."""
        self.sinks = [self._stack.enter_context(edge(QUEUE))]
        """From the link of beta to each node there."""
        out = ChannelOut(OUTPUT, "beta", "x", reliable)
        into = ChannelIn(OUTPUT, "alpha", OUTPUT, messages=messages)
        self._configs = {
            "alpha": LinkConfig("flow", "alpha", outgoing=[out]),
            "beta": LinkConfig("flow", "beta", incoming=[into]),
        }
        self._incarnations = 0
        self.links = {name: self._new(name) for name in self._configs}
        self.on_the_way: dict[str, deque[tuple[str, bytes]]] = {"alpha": deque(), "beta": deque()}
        """Frames to each machine."""
        self.sent = 0
        self.received: list[list[int]] = [[]]
        """By sink: the numbers that its node has taken."""
        self._now_s = time.monotonic()
        for name in self.links:
            self._show(name, alive=True)

    def close(self) -> None:
        """Free all memory."""
        self._stack.close()

    def _new(self, name: str) -> FakeLink:
        self._incarnations += 1
        is_alpha = name == "alpha"
        return FakeLink(
            self._configs[name],
            self._incarnations,
            self.source if is_alpha else None,
            [] if is_alpha else self.sinks,
        )

    def _show(self, name: str, *, alive: bool) -> None:
        """Let the other machine see that the link of `name` is there, or is gone."""
        other = self.links["beta" if name == "alpha" else "alpha"]
        other.session.seen.append(Seen(name, self.links[name].incarnation, alive))

    # What may happen.

    def send(self, count: int) -> None:
        """Let the node of alpha send its next numbers."""
        for _ in range(count):
            self.source.push(b"%d" % self.sent, b"{}")
            self.sent += 1

    def turn(self, name: str) -> None:
        """Let a link work once."""
        self._now_s += 0.25
        link = self.links[name]
        link.turn(self._now_s)
        self._put(name)

    def wake(self, count: int) -> None:
        """Let the link of alpha fall asleep, and be woken by the node's next numbers."""
        self.turn("alpha")
        link = self.links["alpha"]
        link.sleep.prepared = link.sending.prepare()
        self.send(count)
        link.sleep.sleep(0)
        link.sending.finish(link.sleep.prepared)
        self._put("alpha")

    def _put(self, name: str) -> None:
        sent = self.links[name].session.sent
        self.on_the_way["beta" if name == "alpha" else "alpha"] += sent
        sent.clear()

    def arrive(self, name: str, count: int, *, asleep: bool = False) -> None:
        """Let some frames arrive at a machine, whose link may be asleep."""
        link, other = self.links[name], "beta" if name == "alpha" else "alpha"
        session = link.session
        for _ in range(min(count, len(self.on_the_way[name]))):
            kind, frame = self.on_the_way[name].popleft()
            queue = session.data if kind == "data" else session.control
            payload = zenoh.ZBytes(frame)
            if asleep and kind == "data":
                link.sleep.working.release()
                link.direct(other).take(sample(payload))
                link.sleep.working.acquire()
            else:
                queue.append(Received(other, kind, payload))

    def cut(self) -> None:
        """Lose everything that is on its way, and the connection; then it is there again."""
        for frames in self.on_the_way.values():
            frames.clear()
        for name in self.links:
            self._show(name, alive=False)
            self._show(name, alive=True)

    def kill(self, name: str, survive: int = 0) -> None:
        """Replace a link process. Of the frames that it has sent, the first ones still arrive."""
        other = "beta" if name == "alpha" else "alpha"
        self._show(name, alive=False)
        self.on_the_way[name].clear()
        self.on_the_way[other] = deque(islice(self.on_the_way[other], survive))
        self.links[name] = self._new(name)
        self._show(name, alive=True)
        self.links[name].session.seen.append(Seen(other, self.links[other].incarnation, True))

    def add_sink(self) -> None:
        """Let one more node of beta receive the output from now on."""
        self.sinks.append(self._stack.enter_context(edge(QUEUE)))
        self.received.append([])
        self.links["beta"].feed(self.sinks)

    def take(self) -> None:
        """Let the nodes of beta take everything that is queued."""
        for sink, numbers in zip(self.sinks, self.received, strict=True):
            while (payload := sink.take()) is not None:
                numbers.append(int(payload))

    def settle(self) -> None:
        """Let everything arrive that is not lost."""
        quiet = 0
        for _ in range(2000):
            before = self._progress()
            for name in self.links:
                self.arrive(name, 1000)
                self.turn(name)
            self.take()
            quiet = quiet + 1 if before == self._progress() and not self._pending() else 0
            if quiet > 3:
                return
        raise AssertionError("it never settles")

    def _progress(self) -> tuple[int, ...]:
        return (*map(len, self.received), self.source.counters.received)

    def _pending(self) -> bool:
        return any(self.on_the_way.values()) or bool(self.source.counters.queued)

    # What came of it.

    @property
    def lost(self) -> Iterator[int]:
        """By sink: how many messages its edge has counted as lost."""
        return (sink.counters.lost for sink in self.sinks)
