"""Take the messages of a recorder's inputs from their queues, a few times a second.

The recorder does not wait for each message: it takes what has come every `TAKE_S`, which costs a
third of the time. While nothing comes, it sleeps until a sender wakes it.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.dataflow.recording import input_name
from dorad.link.forward import ForwardedInput
from dorad.node.clock import as_datetime
from dorad.node.events import ALL_INPUTS_CLOSED
from dorad.node.logbridge import MARK_TARGET
from dorad.node.nodeinputs import NodeInputs
from dorad.record.box.incidents import MAX_MARKS, MAX_NOTE, Mark
from dorad.record.encoding import extras
from dorad.record.encoding.messages import Encoded
from dorad.record.mcap.items import Item, make_item
from dorad.shm import doorbell, stepping
from dorad.shm.arrow import decode
from dorad.shm.counters import counters
from dorad.shm.inlet import UnreadableError
from dorad.shm.layout import BOX_MAIL, MAX_AHEAD_NS, RING_BYTES
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.shm.borrow import Borrow, Copied
    from dorad.shm.borrow import Taken as RawTaken

_log = logging.getLogger(__name__)

TAKE_S = 0.02
MAX_BEHIND_NS = 600 * 1_000_000_000
"""Maximum age of a message, which may have waited for a link or be the last of a latched output."""

IDLE_TAKES = 10
"""Takes without a message after which the recorder sleeps until one comes."""

SLEEP_NS = 250_000_000
"""Longest sleep: a signal may have come."""

DRAIN_S = 8.0
"""How long the recorder continues after the dataflow was asked to stop, for the last messages of
slow nodes. Less than the 10 s until SIGTERM."""

LAST_LINES_S = 0.5
"""How long log lines and events are recorded after all recorded nodes have ended."""

LOG_SOURCE = "dora/logs"
MAX_MARK_S = 86_400.0
PART_BYTES = 16 << 20
"""Bytes of a large message that are copied at once, in a few milliseconds."""

MAX_TAKEN = 20_000
"""Messages of one input in one take; a sender that never pauses must not delay the others."""


class LargeMessage:
    """A message that is copied a part at a time, so that no other input waits for the whole."""

    def __init__(self, taken: RawTaken, number: int) -> None:
        """Begin to copy what `Inlet.take` has returned with a borrow."""
        self._stamp, self._code, self._length, self._nulls, size, _, borrow, offset, meta = taken
        assert borrow is not None
        self._borrow: Borrow | None = borrow
        self._from = memoryview(borrow.mapping.memory)[offset : offset + size]
        self._copy = memoryview(bytearray(size))
        self._number = number
        self._meta = meta
        self._at = 0

    def proceed(self) -> Copied | None:
        """Copy the next part; return the message with the last one."""
        begin, end = self._at, self._at + PART_BYTES
        self._copy[begin:end] = self._from[begin:end]
        self._at = end
        if end < len(self._copy):
            return None
        self._from.release()
        self._borrow = None
        content = (self._code, self._length, self._nulls, self._copy, self._meta)
        return (self._stamp, self._number, content)


class RecordedInput(ForwardedInput):
    """One ring. Unlike other nodes, the recorder takes what is sent after it was asked to stop."""

    def __init__(self, connection: DaemonConnection, item: dict[str, Any]) -> None:
        super().__init__(connection, item)
        self.large: LargeMessage | None = None
        """A message that is taken, but not yet copied."""
        self._words = connection.box.words
        self._pushed = 0
        """Bytes of the messages that were looked at, ever: no large one is among them."""

    def stop(self) -> None:
        """Continue: the last messages of other nodes belong to the recording."""

    def take_copies(self, limit: int) -> list[Copied]:
        """Return the next messages as `Inlet.take_copies` does; count unreadable ones.

        A large one takes several calls, which return nothing before the last.
        """
        if self.large is not None:
            done = self.large.proceed()
            if done is None:
                return []
            self.large = None
            return [done]
        pushed: int = self._words[self.ring + RING_BYTES]
        if pushed - self._pushed >= PART_BYTES:
            return self._take_one(pushed)
        self._pushed = pushed
        if self.lacks_bell and not self._get_bell():
            return []
        while True:
            try:
                return self.inlet.take_copies(limit)
            except UnreadableError as error:
                self.inlet.count_unreadable()
                _log.warning("input %s: a message cannot be read: %s", self.id, error)

    def _take_one(self, pushed: int) -> list[Copied]:
        """Return the next message, unless it is large; `pushed` bytes were sent before now."""
        taken = self.take_raw()
        if taken is None:
            self._pushed = pushed
            return []
        number = self.inlet.tail + self.inlet.lane_tail - 1
        stamp, code, length, nulls, size, payload, borrow, offset, metadata = taken
        if borrow is not None and size >= PART_BYTES:
            self.large = LargeMessage(taken, number)
            return []
        if borrow is not None:
            payload = bytes(memoryview(borrow.mapping.memory)[offset : offset + size])
        return [(stamp, number, (code, length, nulls, payload or b"", metadata))]


class Taken(NamedTuple):
    """The result of one take."""

    items: list[Item]
    most: float
    """The largest share of a queue that was in use, 0 to 1."""
    marks: list[Mark]
    """Incidents that nodes ask to keep."""


class RecorderInputs:
    """The inputs of a recorder: an attached node, whose connection this uses directly."""

    def __init__(
        self, connection: DaemonConnection, on_event: Callable[[Event], None], *, discard: bool
    ) -> None:
        """Serve the inputs. `discard` drops what was queued before now."""
        self._connection = connection
        # A recorder is never held. It has the time of the nodes whose messages it records.
        stepping.allow(connection.config.get("stepped") is True)
        self._on_event = on_event
        self._topics = topics_of(connection.config)
        self._inputs: list[RecordedInput] = []
        self._skipped: dict[int, int] = {}
        """Messages of each ring that were skipped before now: who had it then counts them."""
        self.begin: dict[str, int] = {}
        """The number of the first message that is taken, by topic."""
        made = [self._make_input(item) for item in connection.config["inputs"]]
        if discard:
            for item in self._inputs:
                item.inlet.discard()
        for item in self._inputs:
            inlet = item.inlet
            number = self.begin[self._topic(item)] = inlet.tail + inlet.lane_tail
            self._skipped[item.ring] = number - inlet.received
        self._node_inputs = NodeInputs(
            connection, connection.daemon_events, made, Spin(0), self._make_input
        )
        self._waiter = doorbell.Waiter(connection.bell, [connection.descriptor])
        self._warned = False
        self._stop_s: float | None = None
        self._ended_s: float | None = None
        self._all_closed = False
        self._idle = 0
        self._marks: list[Mark] = []
        self._pause_s = TAKE_S

    @property
    def finished(self) -> bool:
        """True if no more messages will come."""
        if self._connection.lost or self._all_closed:
            return True
        now_s = time.monotonic()
        if self._sources_ended():
            # What the daemon says about the end of the last node comes a moment later.
            self._ended_s = self._ended_s or now_s
            return self._stop_s is not None or now_s >= self._ended_s + LAST_LINES_S
        self._ended_s = None
        return self._stop_s is not None and now_s >= self._stop_s

    def _sources_ended(self) -> bool:
        """Return True if all nodes whose messages are recorded have ended for good."""
        closed = self._connection.daemon_events.closed
        return all(closed(item.id) for item in self._inputs if not extras.is_own(self._topic(item)))

    @property
    def stopped(self) -> bool:
        """True if the dataflow was asked to stop, or all its nodes have ended."""
        return self._all_closed or self._stop_s is not None

    @property
    def copying(self) -> bool:
        """True while a large message is copied."""
        return any(item.large is not None for item in self._inputs)

    @property
    def lost(self) -> bool:
        """True if the daemon has ended, or has removed the recorder."""
        return self._connection.lost

    def hurry(self) -> None:
        """Finish within the next moments: the process is to end."""
        self._stop_s = min(self._stop_s or time.monotonic() + 1.0, time.monotonic() + 1.0)

    def dropped(self) -> dict[str, int]:
        """Return the messages that left their queues before they were taken, by topic."""
        losses: dict[str, int] = {}
        for item in self._inputs:
            topic = self._topic(item)
            lost = self._dropped(item) - self._skipped.get(item.ring, 0)
            # One that is still copied is not recorded if this is the end.
            losses[topic] = losses.get(topic, 0) + max(0, lost) + (item.large is not None)
        return losses

    def take(self) -> Taken:
        """Handle the daemon's events, and return what has come since the last take."""
        mail = self._connection.box.words[BOX_MAIL]
        while (event := self._node_inputs.poll()) is not None:
            self._handle(event)
        self._mail = mail
        items: list[Item] = []
        most = 0.0
        for each in list(self._inputs):
            taken = self._take_from(each)
            items += taken
            most = max(most, len(taken) / each.inlet.queue_size)
        marks, self._marks = self._marks, []
        return Taken(items, most, marks)

    def pause(self, taken: Taken) -> None:
        """Sleep until the next take is due."""
        if self.copying:
            return
        self._idle = 0 if taken.items else self._idle + 1
        if self._idle >= IDLE_TAKES:
            self._sleep()
            return
        if taken.most > 0.25:
            self._pause_s = 0.0005 if taken.most > 0.5 else self._pause_s / 2
        else:
            self._pause_s = min(TAKE_S, self._pause_s * 1.5)
        time.sleep(self._pause_s)

    def _sleep(self) -> None:
        inputs = self._node_inputs
        watched = [(BOX_MAIL, self._mail)]
        for item in self._inputs:
            watched += item.watched
        inputs.set_asleep(True)
        try:
            if inputs.may_sleep(watched):
                self._waiter.wait(SLEEP_NS)
        finally:
            inputs.set_asleep(False)
        self._connection.read_mail()

    def _make_input(self, item: dict[str, Any]) -> RecordedInput:
        made = RecordedInput(self._connection, item)
        self._inputs = [each for each in self._inputs if each.ring != made.ring] + [made]
        return made

    def _topic(self, item: RecordedInput) -> str:
        known = self._topics.get(item.id)
        if known is not None:
            return known
        # An input that was added since the recorder has started.
        prefix = input_name(f"{item.source}/")
        if item.source and item.id.startswith(prefix):
            return f"{item.source}/{item.id.removeprefix(prefix)}"
        return item.id

    def _dropped(self, item: RecordedInput) -> int:
        return counters(self._connection.box.words, item.ring).dropped

    def _take_from(self, item: RecordedInput) -> list[Item]:
        topic = self._topic(item)
        items: list[Item] = []
        for _ in range(MAX_TAKEN):
            copies = item.take_copies(MAX_TAKEN - len(items))
            if not copies:
                break
            copies = self._plausible(topic, copies)
            if topic == extras.LOG_TOPIC:
                items += self._log_items(copies)
            elif topic == extras.HOPS_TOPIC:
                items += _hop_items(copies)
            else:
                items += [
                    make_item((stamp, topic, number, content)) for stamp, number, content in copies
                ]
        return items

    def _plausible(self, topic: str, copies: list[Copied]) -> list[Copied]:
        """Return the messages as `with_plausible_times` does; warn of the first that is changed."""
        plausible = with_plausible_times(copies, stepping.time_ns(self._connection.box.words))
        if plausible is not copies and not self._warned:
            self._warned = True
            wrong = next(
                old for old, new in zip(copies, plausible, strict=True) if old[0] != new[0]
            )
            _log.warning(
                "%s: a message is dated %s; such messages are recorded with the time of their"
                " arrival; check the clock of the sender",
                *(topic, as_datetime(wrong[0]).isoformat(" ", "seconds")),
            )
        return plausible

    def _log_items(self, copies: list[Copied]) -> Iterator[Item]:
        """Yield log lines as they are recorded; keep the marks among them."""
        for stamp, number, (code, length, nulls, payload, _) in copies:
            line = _line(code, length, nulls, payload)
            if line is None:
                continue
            if line.get("target") == MARK_TARGET and len(self._marks) < MAX_MARKS:
                self._marks.append(mark_of(line, stamp))
            yield Item(stamp, extras.LOG_TOPIC, number, extras.log_line(line, stamp))

    def _handle(self, event: Event) -> None:
        if event["type"] == "STOP":
            if event["id"] == ALL_INPUTS_CLOSED:
                self._all_closed = True
            else:
                self._stop_s = time.monotonic() + DRAIN_S
        self._on_event(event)


def _hop_items(copies: list[Copied]) -> Iterator[Item]:
    """Yield batches of hop records as they are recorded."""
    for stamp, number, (_, _, _, payload, _) in copies:
        yield Item(stamp, extras.HOPS_TOPIC, number, Encoded(extras.HOP_BATCH, b"", payload, b""))


def with_plausible_times(copies: list[Copied], now_ns: int) -> list[Copied]:
    """Return messages of one input, in their order, with times that a recording can have.

    One message of a wrong clock would stretch the recording by years, and its replay as well. It
    gets the time of its arrival, `now_ns`, or that of the message behind it.
    """
    stamps = [copy[0] for copy in copies]
    earliest, latest = now_ns - MAX_BEHIND_NS, now_ns + MAX_AHEAD_NS
    if earliest <= min(stamps) and max(stamps) <= latest:
        return copies
    plausible = []
    bound = now_ns
    for stamp, number, content in reversed(copies):
        if earliest <= stamp <= latest:
            bound = min(bound, stamp)
        else:
            stamp = bound
        plausible.append((stamp, number, content))
    return plausible[::-1]


def mark_of(line: dict[str, Any], stamp: int) -> Mark:
    """Return what a node's call of `mark` asks for; `stamp` is its time in ns since 1970."""
    fields = line.get("fields")
    known = fields if isinstance(fields, dict) else {}
    seconds = {}
    for key in ("before", "after"):
        value = known.get(key)
        if isinstance(value, int | float) and 0 <= value <= MAX_MARK_S:
            seconds[f"{key}_s"] = float(value)
    note = str(line.get("message", ""))[:MAX_NOTE]
    return Mark(stamp, note=note, source=f"node {line.get('node_id')}", **seconds)


def topics_of(config: dict[str, Any]) -> dict[str, str]:
    """Return the topic of each input of a recorder, from the configuration of the node."""
    topics = {}
    for name, value in config["run_config"]["inputs"].items():
        source = value if isinstance(value, str) else value["source"]
        topics[name] = extras.LOG_TOPIC if source.startswith(LOG_SOURCE) else source
    return topics


def _line(code: int, length: int, nulls: int, payload: bytes | memoryview) -> dict[str, Any] | None:
    """Return the log line of a message of `dora/logs`; None if it cannot be read."""
    import pyarrow as pa

    try:
        values = decode(code, length, nulls, pa.py_buffer(payload), shared=False).to_pylist()
        line = json.loads(values[0])
    except (ValueError, IndexError, TypeError, RecursionError) as error:
        _log.debug("a log line cannot be read: %s", error)
        return None
    return line if isinstance(line, dict) else None
