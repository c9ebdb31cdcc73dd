"""Join the hop records of nodes to messages, and messages to traces.

A message is known by its topic and its timestamp. What a thread sends was caused by the message
that it took last; of a synchronised set, by the one that was sent last, and the others are links.
Times are in ns since 1970 unless a name says otherwise.

A process can write anything into its records. Here it can name only its own inputs and outputs,
memory is bounded, and nothing raises.
"""

import heapq
import itertools
import operator
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from dorad.shm.hoplog import HopFields
from dorad.shm.layout import BUCKETS, HOP_CONTEXT, HOP_DONE, HOP_DROP, HOP_RECEIVE
from dorad.trace.model import (
    Arrival,
    Message,
    NodePlaces,
    Place,
    Receiver,
    Tree,
    arrival_at,
    tree_of,
)

QUIET_NS = 1_000_000_000
"""A trace is complete when nothing has happened to it for so long, and no node works on it."""
LONGEST_NS = 30_000_000_000
"""A trace that is not complete after so long is taken as it is."""
MAX_MESSAGES = 20_000
"""Messages whose traces are not complete; beyond that, the oldest are taken as they are."""
MAX_GENERATIONS = 64
"""Messages that follow from each other; the next one begins a new trace. For loops."""
MAX_THREADS = 1024
"""Threads of which is known when they were done with a message."""
MAX_NODES = 1024
"""Nodes whose work is counted; with more, all counts begin anew."""
MAX_TOPICS = 4096
"""Topics without messages that are not forgotten yet."""
MAX_DROPS = 1024
"""Records of dropped messages that wait for what is known of these messages."""
MAX_SKEW_NS = 60_000_000_000
"""How far the clock of another machine may be ahead; else a record of the arrival is wrong."""
_NEVER = 1 << 63


class _Thread:
    __slots__ = ("done", "last")

    def __init__(self) -> None:
        self.done = 0
        self.last: Arrival | None = None


class _Drops:
    """Messages of a topic that were dropped at an input."""

    __slots__ = ("at", "before", "count", "receiver", "since_ns")

    def __init__(self, receiver: Receiver, at: int, count: int, since_ns: int) -> None:
        self.receiver = receiver
        self.at = at
        self.count = count
        self.before = 0
        """The timestamp of the message that was received next; 0 if none was."""
        self.since_ns = since_ns


class Work:
    """How long a node worked on the messages of one input."""

    __slots__ = ("counts", "topic", "total")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.counts = [0] * BUCKETS
        """As in `dorad.shm.latencies`."""
        self.total = 0

    def add(self, ns: int) -> None:
        """Count a message; it counts as no time if a clock was set back meanwhile."""
        if ns < 0:
            ns = 0
        self.counts[min(ns.bit_length(), BUCKETS - 1)] += 1
        self.total += ns


_Messages = dict[int, Message]
"""The messages of one topic by timestamp."""


class _Input:
    """What feeds one ring of a node, and the messages of that topic."""

    __slots__ = ("local", "messages", "receiver", "sync", "tick", "topic", "work")

    def __init__(self, node: str, place: Place, messages: _Messages) -> None:
        self.receiver = Receiver(place.topic, node, place.input)
        self.topic = place.topic
        self.tick = place.tick
        self.local = place.local
        self.sync = place.sync
        self.messages = messages
        self.work: Work | None = None


class _Node:
    """What the words in the records of a node stand for: rings and outputs."""

    __slots__ = ("inputs", "outputs", "places")

    def __init__(self, name: str, places: NodePlaces, of: Callable[[str], _Messages]) -> None:
        """`of` returns the messages of a topic."""
        self.places = places
        self.inputs = {
            ring: _Input(name, place, of(place.topic)) for ring, place in places.rings.items()
        }
        self.outputs = {key: (topic, of(topic)) for key, topic in places.outputs.items()}


class Joiner:
    """The messages of one dataflow whose traces are not complete."""

    def __init__(self) -> None:
        self.unknown = 0
        """Records that name no input or output of their node."""
        self.drops = 0
        """Dropped messages that could not be found."""
        self.contexts = 0
        """Trace contexts of OpenTelemetry that were not valid."""
        self.work: dict[str, dict[str, Work]] = {}
        """By node and input."""
        self._messages: dict[str, _Messages] = {}
        """By topic."""
        self._nodes: dict[str, _Node] = {}
        self._begun: deque[Message] = deque()
        """Messages without a cause, the oldest first: traces may begin with them."""
        self._waiting: list[tuple[int, int, Message]] = []
        """Those that were looked at and not complete: when to look again, number, message."""
        self._numbers = itertools.count()
        self._threads: dict[tuple[str, int], _Thread] = {}
        self._pending: list[_Drops] = []
        self._dropping: dict[Receiver, _Drops] = {}

    def __len__(self) -> int:
        return sum(map(len, self._messages.values()))

    def add(self, node: str, places: NodePlaces, hops: Iterable[HopFields], now_ns: int) -> None:
        """Join what a node has recorded, in order. `now_ns` is on the monotonic clock."""
        known = self._node(node, places)
        inputs, outputs, passes_on = known.inputs, known.outputs, places.passes_on
        number, state = -1, _Thread()
        for kind, thread, at, where, stamp, parent_where, parent_stamp, value in hops:
            if thread != number:
                number, state = thread, self._thread(node, thread)
            if kind == HOP_RECEIVE:
                if (place := inputs.get(where)) is None:
                    self.unknown += 1
                    continue
                message = place.messages.get(stamp) or self._begin(place, stamp, now_ns)
                if place.sync or message.arrivals or at < message.sent or self._dropping:
                    self._received(place, message, state, thread, at, value, now_ns)
                else:  # most records, so without a call
                    state.last = Arrival(message, place.receiver, thread, at, state.done, value)
                    message.arrivals.append(state.last)
                    message.touched_ns = now_ns
                if passes_on:
                    self._done(place, state, at, stamp, now_ns)
            elif kind == HOP_DONE:
                if (place := inputs.get(where)) is None:
                    self.unknown += 1
                    continue
                last = state.last
                if (
                    last is None
                    or last.group
                    or last.done
                    or last.message.stamp != stamp
                    or last.receiver is not place.receiver
                ):
                    self._done(place, state, at, stamp, now_ns)
                else:
                    state.done = last.done = at
                    last.message.touched_ns = now_ns
                    work = place.work or self._work(place)
                    work.add(at - last.at)
            elif kind == HOP_DROP:
                if (place := inputs.get(where)) is None:
                    self.unknown += 1
                else:
                    self._dropped(place, at, value, now_ns)
            elif (output := outputs.get(where)) is None:
                self.unknown += 1
            elif kind == HOP_CONTEXT:
                # If it came over a link, nobody here has recorded its sending.
                context = (parent_where << 64 | parent_stamp, value)
                self._carries(output, stamp, context, now_ns, begins=passes_on)
            else:
                parent = inputs.get(parent_where) if parent_where else None
                self._sent(output, state, at, stamp, parent, parent_stamp, value, now_ns)

    def _node(self, name: str, places: NodePlaces) -> _Node:
        node = self._nodes.get(name)
        if node is None or node.places is not places:
            if len(self._messages) > MAX_TOPICS:
                self._messages = {topic: each for topic, each in self._messages.items() if each}
                self._nodes.clear()
            if len(self._nodes) >= MAX_NODES:
                self._nodes.clear()
            node = self._nodes[name] = _Node(name, places, self._of_topic)
        return node

    def _of_topic(self, topic: str) -> _Messages:
        return self._messages.setdefault(topic, {})

    def _thread(self, node: str, thread: int) -> _Thread:
        state = self._threads.get((node, thread))
        if state is None:
            if len(self._threads) >= MAX_THREADS:
                self._threads.clear()
            state = self._threads[node, thread] = _Thread()
        return state

    def _begin(self, place: _Input, stamp: int, now_ns: int) -> Message:
        """Return a message that nothing was known of."""
        message = Message(place.topic, stamp, stamp, now_ns, now_ns, place.tick, place.local)
        place.messages[stamp] = message
        self._begun.append(message)
        return message

    def _received(
        self,
        place: _Input,
        message: Message,
        state: _Thread,
        thread: int,
        at: int,
        queued: int,
        now_ns: int,
    ) -> None:
        arrival = arrival_at(message, place.receiver)
        if arrival.at:
            return  # its ring has the message twice
        message.touched_ns = now_ns
        if at < message.sent:
            if message.size >= 0 or message.sent - at > MAX_SKEW_NS:
                at = message.sent  # the clock was set back, or the record is wrong
            else:
                message.sent = at  # the clock of the sender's machine is ahead
        arrival.at, arrival.thread, arrival.queued, arrival.outcome = at, thread, queued, ""
        arrival.free = state.done
        if place.sync:
            last = state.last
            together = last is not None and last.group is not None and last.working
            arrival.group = last.group if together and last is not None else []
            if arrival.group is not None:
                arrival.group.append(arrival)
        state.last = arrival
        if self._dropping:
            drops = self._dropping.pop(place.receiver, None)
            if drops is not None:
                drops.before = message.stamp

    def _done(self, place: _Input, state: _Thread, at: int, stamp: int, now_ns: int) -> None:
        state.done = at
        arrival = state.last
        if arrival is None or arrival.message.stamp != stamp or arrival.receiver != place.receiver:
            message = place.messages.get(stamp)
            if message is None:
                return  # its trace was complete, or taken as it was
            arrival = arrival_at(message, place.receiver)
        if arrival.at and not arrival.done:
            (place.work or self._work(place)).add(at - arrival.at)
        for each in arrival.group or (arrival,):
            each.done = each.done or at
            each.message.touched_ns = now_ns

    def _work(self, place: _Input) -> Work:
        """Return the work of an input, which it keeps from now on."""
        topic, node, name = place.receiver
        if node not in self.work and len(self.work) >= MAX_NODES:
            self.work.clear()
            self._nodes.clear()
        inputs = self.work.setdefault(node, {})
        work = inputs.get(name)
        if work is None or work.topic != topic:
            work = inputs[name] = Work(topic)
        place.work = work
        return work

    def _sent(
        self,
        output: tuple[str, _Messages],
        state: _Thread,
        at: int,
        stamp: int,
        parent: _Input | None,
        parent_stamp: int,
        size: int,
        now_ns: int,
    ) -> None:
        topic, messages = output
        message = messages.get(stamp)
        if message is not None and message.size >= 0:
            return
        cause = None
        # Timestamps grow along a chain, so it has no circle.
        if parent is not None and parent_stamp < stamp:
            cause = state.last
            if (
                cause is None
                or cause.group
                or cause.receiver is not parent.receiver
                or cause.message is not parent.messages.get(parent_stamp)
            ):
                cause = self._cause(parent, state, parent_stamp, stamp, now_ns)
        cut = cause is not None and cause.message.generation + 1 >= MAX_GENERATIONS
        if cut:
            cause = None
        generation = 0 if cause is None else cause.message.generation + 1
        sent = at if 0 < at < stamp else stamp
        if message is None:
            message = messages[stamp] = Message(
                topic, stamp, sent, now_ns, now_ns, False, True, size, cause, cut, generation
            )
            if cause is None:
                self._begun.append(message)
        else:
            message.sent, message.size, message.touched_ns = sent, size, now_ns
            message.cause, message.cut, message.generation = cause, cut, generation
            for arrival in message.arrivals:
                arrival.at = max(arrival.at, sent) if arrival.at else 0
        if cause is not None:
            cause.sent.append(message)

    def _carries(
        self,
        output: tuple[str, _Messages],
        stamp: int,
        context: tuple[int, int],
        now_ns: int,
        *,
        begins: bool,
    ) -> None:
        topic, messages = output
        message = messages.get(stamp)
        if begins and message is None:
            message = messages[stamp] = Message(topic, stamp, stamp, now_ns, now_ns, local=False)
            self._begun.append(message)
        elif begins and message is not None:
            message.touched_ns = now_ns
        trace, span = context
        if not trace or not span:
            self.contexts += 1
        elif message is not None:
            message.context = f"{trace:032x}-{span:016x}"

    def _cause(
        self, place: _Input, state: _Thread, stamp: int, before: int, now_ns: int
    ) -> Arrival | None:
        cause = state.last
        message = place.messages.get(stamp)
        if cause is None or cause.message is not message or cause.receiver != place.receiver:
            message = message or self._begin(place, stamp, now_ns)
            cause = arrival_at(message, place.receiver)
        if cause.group:
            # Traces of others of the set may have been taken as they were.
            known = [each for each in cause.group if self._has(each.message)]
            cause = max(known, key=lambda each: each.message.stamp, default=cause)
        return cause if cause.message.stamp < before else None

    def _has(self, message: Message) -> bool:
        return self._messages.get(message.topic, {}).get(message.stamp) is message

    def _dropped(self, place: _Input, at: int, count: int, now_ns: int) -> None:
        if len(self._pending) >= MAX_DROPS:
            self.drops += count
            return
        drops = _Drops(place.receiver, at, count, now_ns)
        self._pending.append(drops)
        self._dropping[place.receiver] = drops

    def process_ended(
        self, node: str, is_gone: Callable[[int], bool], now_ns: int, *, failed: bool
    ) -> set[int]:
        """Mark what threads of a node that are gone had received and were not done with.

        Return these threads.
        """
        threads = set()
        for message in itertools.chain(*(each.values() for each in self._messages.values())):
            for arrival in message.arrivals:
                if arrival.receiver.node == node and arrival.working and is_gone(arrival.thread):
                    arrival.outcome = "failed" if failed else "ended"
                    message.touched_ns = now_ns
                    threads.add(arrival.thread)
        return threads

    def settle(self, now_ns: int, *, everything: bool = False) -> list[Tree]:
        """Return the traces that are complete, or are not waited for any longer; forget them."""
        if self._pending:
            self._resolve_drops(now_ns - QUIET_NS // 2)
        messages, trees, count = self._messages, [], len(self)
        while (first := self._next(now_ns, everything or count > MAX_MESSAGES)) is not None:
            if first.cause is not None or not self._has(first):
                continue  # it is part of another trace
            tree = tree_of(first)
            age = now_ns - first.begun_ns
            if not everything and age < LONGEST_NS and count <= MAX_MESSAGES:
                again = tree.touched_ns + QUIET_NS
                if tree.working and again <= now_ns:
                    again = now_ns + max(QUIET_NS, age // 2)
                if again > now_ns:
                    heapq.heappush(self._waiting, (again, next(self._numbers), first))
                    continue
            for message in tree.messages:
                messages[message.topic].pop(message.stamp, None)
            count -= len(tree.messages)
            trees.append(tree)
        return trees

    def _next(self, now_ns: int, is_due: bool) -> Message | None:
        """Remove and return the message that is to be looked at first, if any is due."""
        begun, waiting = self._begun, self._waiting
        due_ns = begun[0].begun_ns + QUIET_NS if begun else _NEVER
        if waiting and waiting[0][0] <= due_ns:
            return heapq.heappop(waiting)[2] if is_due or waiting[0][0] <= now_ns else None
        return begun.popleft() if begun and (is_due or due_ns <= now_ns) else None

    def present(self, maximum: int) -> list[Tree]:
        """Return the newest traces that are not complete, at most `maximum`."""
        self._resolve_drops(None)
        older = sorted((first for *_, first in self._waiting), key=_begun_of)
        newest = itertools.chain(reversed(self._begun), reversed(older))
        firsts = (each for each in newest if each.cause is None and self._has(each))
        return [tree_of(first) for first in itertools.islice(firsts, maximum)]

    def _resolve_drops(self, until_ns: int | None) -> None:
        """Find the messages that were dropped, once all records about them should be here."""
        ripe: list[_Drops] = []
        later: list[_Drops] = []
        for each in self._pending:
            (ripe if until_ns is None or each.since_ns <= until_ns else later).append(each)
        self._pending = later
        waiting: dict[Receiver, list[Message]] = {}
        """By input: the messages that have not arrived there."""
        for drops in ripe:
            receiver = drops.receiver
            if self._dropping.get(receiver) is drops:
                del self._dropping[receiver]
            left = waiting.get(receiver)
            if left is None:
                left = waiting[receiver] = sorted(self._without(receiver), key=_stamp_of)
            # A ring loses the messages right before the one that is taken next.
            if drops.before:
                end = bisect_left(left, drops.before, key=_stamp_of)
                begin = max(0, end - drops.count)
            else:
                begin, end = 0, min(drops.count, bisect_right(left, drops.at, key=_sent_of))
            for message in left[begin:end]:
                arrival = arrival_at(message, receiver)
                arrival.outcome, arrival.done = "dropped", drops.at
            del left[begin:end]
            self.drops += drops.count - (end - begin)

    def _without(self, receiver: Receiver) -> Iterator[Message]:
        """Yield the messages of a topic that have not arrived at an input."""
        for message in self._messages.get(receiver.topic, {}).values():
            if all(each.receiver != receiver for each in message.arrivals):
                yield message


_stamp_of = operator.attrgetter("stamp")
_sent_of = operator.attrgetter("sent")
_begun_of = operator.attrgetter("begun_ns")
