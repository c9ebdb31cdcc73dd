"""Random entries in a ring, as a hostile sender would write them, and receivers that read them.

Behind each segment lies memory that ends the process when it is touched (SIGBUS). So a read
outside a mapping is a crash, not a wrong number.

The native receiver and the one in pure Python read the same entries, each in its own mailbox,
and must come to the same events and leave the same words.
"""

import mmap
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dorad.node.clock import Clock
from dorad.node.correlation import session_of
from dorad.node.events import Event
from dorad.node.inputs import RingInput
from dorad.shm import hoplog, layout, native
from dorad.shm.arrow import encode
from dorad.shm.borrow import Taken
from dorad.shm.inlet import Inlet
from dorad.shm.lane import LanedInlet
from dorad.shm.latch import LatchedInlet
from dorad.shm.mapping import Mapping

SEGMENT_BYTES = 1 << 16
GUARD_BYTES = 16 << 20
QUEUE_SIZE = 8
READ_EVERY = 50
"""One message in this many is read completely, value by value."""
MAX_HELD = layout.HAZARDS + 8
"""How many messages a receiver keeps: more than it can borrow at once."""

_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1
_EDGES = (0, 1, 7, 8, 63, 64, 255, SEGMENT_BYTES - 64, SEGMENT_BYTES, 1 << 31, 1 << 32, 1 << 62)


class Guarded(Mapping):
    """A mapping; memory behind it must not be read."""

    __slots__ = ()

    def __init__(self, size: int = SEGMENT_BYTES) -> None:
        descriptor = os.memfd_create("dorad-fuzz", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size + GUARD_BYTES)
        self.size = size
        self.memory = mmap.mmap(descriptor, size + GUARD_BYTES)
        os.ftruncate(descriptor, size)
        os.close(descriptor)
        self.words = memoryview(self.memory)[:size].cast("Q")
        self._address = int(pa.py_buffer(self.memory).address)


@dataclass
class Result:
    """The result of a campaign.

    `by_native` of the messages were taken without Python. `faults` are the detected reads that a
    receiver must not do, and differences between receivers.
    """

    entries: int = 0
    inputs: int = 0
    errors: int = 0
    by_native: int = 0
    faults: list[str] = field(default_factory=list)


def _samples() -> list[pa.Array]:
    """Return arrays of every kind that a message can have."""
    numbers = pa.array(range(40), pa.int64())
    return [
        pa.nulls(5),
        numbers,
        pa.array([1.5, None, 2.5] * 9),
        pa.array([True, None, False] * 9),
        pa.array(range(8), pa.uint8()),
        pa.array(["one", None, "three"] * 7),
        pa.array(["one", "two"] * 7),
        pa.array([b"\x00" * 30, b""] * 3),
        pa.array(["large", None], pa.large_string()),
        pa.array([b"large"] * 4, pa.large_binary()),
        pa.array([[1, 2], None, [3]]),
        pa.array([[1.0, 2.0]] * 6, pa.list_(pa.float32(), 2)),
        pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": "yy"}]),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        pa.array(["view of a long string", "b"], pa.string_view()),
        pa.RunEndEncodedArray.from_arrays(pa.array([2, 5], pa.int32()), pa.array(["p", "q"])),
        pa.UnionArray.from_sparse(
            pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["s", "t"])]
        ),
        pa.array([[["deep"], []], [[None]]]),
        pa.array([b"abcd", None, b"efgh"], pa.binary(4)),
        pa.array([["a"], [], None, ["bb", "c"]], pa.large_list(pa.large_string())),
        pa.array([{"p": {"x": 1.0, "y": 2.0}, "q": [1, 2], "f": True}] * 5),
        pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.uint8()), pa.array([[1], [2, 3]])),
        # Of these, messages too large to be copied as a whole.
        pa.array([["one", "two"], None, ["three"]] * 200),
        pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": "yy"}] * 200),
        pa.array(["x", "y", "x"] * 1000).dictionary_encode(),
        pa.array([[("k", 1)], []] * 300, pa.map_(pa.string(), pa.int32())),
        pa.array([[1.0, 2.0, 3.0]] * 500, pa.list_(pa.float32(), 3)),
        pa.array([{"image": b"x" * 9000, "size": [2, 3]}]),
        pa.array([["one", None], None, ["three"]] * 300, pa.large_list(pa.large_string())),
        pa.array([[1, None, 3]] * 700, pa.list_(pa.int64(), 3)),
        pa.array([None, "text"] * 500),
        pa.array(["view of a long string", "b"] * 300, pa.string_view()),
    ]


class Hostile:
    """Writes messages that mostly have an invalid field, the same to all `boxes`."""

    def __init__(self, rng: Random, boxes: Sequence[Mapping], plan: layout.RingPlan) -> None:
        self._rng = rng
        self._boxes = boxes
        self._plan = plan
        self._messages = [encode(array) for array in _samples()]
        self._heads = [0, 0]
        self.segments = {1: Guarded(), 2: Guarded(), 3: Guarded(4096)}

    def _number(self, right: int, limit: int = _U64) -> int:
        """Return what a field should be, or something else."""
        rng = self._rng
        chance = rng.random()
        if chance < 0.93:
            return right
        if chance < 0.96:
            return (right + rng.choice((-64, -8, -1, 1, 8, 64))) & limit
        if chance < 0.98:
            return rng.choice(_EDGES) & limit
        return rng.getrandbits(64) & limit

    def _payload(self, parts: tuple[tuple[int, Any], ...], size: int) -> bytearray:
        rng = self._rng
        payload = bytearray(size)
        for at, data in parts:
            payload[at : at + len(data)] = data
        if size and rng.random() < 0.5:
            for _ in range(rng.randrange(1, 6)):
                width = rng.choice((1, 4, 8))
                at = rng.randrange(size)
                wrong = struct.pack("=Q", self._number(rng.randrange(1 << 8)))[:width]
                payload[at : at + width] = wrong[: size - at]
        return payload

    def _metadata(self) -> bytes:
        rng = self._rng
        chance = rng.random()
        if chance < 0.5:
            return b""
        if chance < 0.8:
            return b'{"session_id":"s","flush":true,"at":{"$time":5}}'
        return rng.choice(
            (
                b"[" * 150,
                b'{"a":{"$time":"x"}}',
                b'{"a":{"$time":99999999999999999999}}',
                b'{"a":{"$time":1}',
                b"[1]",
                b"\xff\xfe",
                b'{"timestamp":3,"request_id":[1]}',
                rng.randbytes(40),
            )
        )

    def entry(self) -> bytes:
        """Return an entry, whose payload and metadata may be elsewhere than it claims."""
        rng = self._rng
        code, length, nulls, size, parts = rng.choice(self._messages)
        payload, metadata = self._payload(parts, size), self._metadata()
        segment = meta_segment = offset = 0
        if size > layout.INLINE - len(metadata) or rng.random() < 0.6:
            segment = rng.choice((1, 2))
            mapping = self.segments[segment]
            last = SEGMENT_BYTES - size & ~63
            offset = last if rng.random() < 0.5 else rng.randrange(0, last + 1, 64)
            mapping.memory[offset : offset + size] = payload
        meta_offset = 0
        inline = bytes(metadata)
        if rng.random() < 0.2:
            meta_segment, meta_offset = 3, 4096 - 64 * rng.randrange(4, 20)
            self.segments[3].memory[meta_offset : meta_offset + len(metadata)] = metadata
            inline = b""
        if not segment:
            inline += bytes(payload)
        n = self._number
        head = layout.ENTRY.pack(
            n(1 << 60),
            n(length),
            n(nulls),
            n(size),
            n(offset),
            n(meta_offset),
            n(segment, _U32),
            n(meta_segment, _U32),
            n(len(metadata), _U32),
            n(code, 255),
            n(0, 255),
            rng.choice((0, 0, layout.CORRELATED, layout.FLUSH)),
        )
        return (head + inline)[: layout.ENTRY_SIZE]

    def push(self, entry: bytes) -> None:
        """Put an entry into the ring or its lane, and now and then write to a word of the ring."""
        rng, plan = self._rng, self._plan
        laned = bool(plan.lane) and rng.random() < 0.4
        base = plan.base
        at, word = (
            (plan.lane + plan.capacity * layout.WORD, base + layout.RING_LANE_HEAD)
            if laned
            else (plan.entries, base + layout.RING_HEAD)
        )
        head = self._heads[laned]
        slot = head & plan.capacity - 1
        start = at + slot * layout.ENTRY_SIZE
        for box in self._boxes:
            box.memory[start : start + len(entry)] = entry
        if laned:
            self._write(plan.lane // layout.WORD + slot, self._number(self._heads[0]))
            if rng.random() < 0.3:
                self._write(base + layout.RING_FLUSHED, self._number(head + 1))
        self._heads[laned] = head + 1
        self._write(word, head + 1)
        if rng.random() < 0.02:
            overwritten = base + rng.randrange(layout.RING_HEAD, layout.RING_WORDS)
            self._write(overwritten, self._number(head))

    def _write(self, at: int, value: int) -> None:
        for box in self._boxes:
            box.words[at] = value

    def settle(self) -> None:
        """Send valid entries again."""
        for word, head in zip((layout.RING_HEAD, layout.RING_LANE_HEAD), self._heads, strict=True):
            self._write(self._plan.base + word, head)


def _touch(value: Any) -> None:
    """Read all of an array, as nodes do."""
    value.validate(full=True)
    if len(value) < 1 << 16:
        # A struct may have two fields of one name, which no dictionary has.
        with suppress(ValueError):
            value.to_pylist()
        for name in ("sum", "min_max", "count_distinct", "drop_null", "sort_indices"):
            try:
                pc.call_function(name, [value])
            except (pa.ArrowException, TypeError):
                continue


class _Counted(Inlet):
    """An inlet that counts the messages that Python takes."""

    __slots__ = ("calls",)

    calls: int

    def take(self) -> Taken | None:
        self.calls += 1
        return super().take()


class Receiver:
    """A receiver with its mailbox, over inlets of a class; without `by_native`, Python takes."""

    def __init__(self, plan: layout.MailboxPlan, kind: type[Inlet], *, by_native: bool) -> None:
        (self._ring,) = plan.rings
        self.box = Guarded(plan.size)
        self.box.words[self._ring.base + layout.RING_STATE] = layout.STATE_ATTACHED
        self._bytes = self.box.words.cast("B")
        self._hops = hoplog.HopCursor()
        self._kind = kind
        self.by_native = by_native
        self.clock = Clock()
        self.took_by_native = False
        self._last: Event | None = None
        self._held: list[Event] = []

    def restart(self, segments: Any) -> None:
        """Continue with the words as they are, like a new process of the node."""
        inlet = self.inlet = self._kind(self.box, self._ring, segments, None)
        if isinstance(inlet, LanedInlet):
            inlet.session_of = session_of
        if isinstance(inlet, _Counted):
            inlet.calls = 0
            inlet.plain = self.by_native
        self.item = RingInput("in", inlet, self.clock)

    def take(self) -> Event | None:
        """Return the next event; it is kept until `let_go`."""
        inlet = self.inlet
        before = inlet.calls if isinstance(inlet, _Counted) else 0
        event = self._last = self.item.take()
        self.took_by_native = isinstance(inlet, _Counted) and inlet.calls == before
        return event

    def let_go(self, *, keep: bool, release: bool) -> None:
        """Hold the last event longer if `keep`, and release all if `release`."""
        if keep and self._last is not None:
            self._held.append(self._last)
        self._last = None
        if release or len(self._held) > MAX_HELD:
            self._held.clear()

    def state(self) -> tuple[Any, ...]:
        """All words of the mailbox, and what the receiver counts on its own."""
        inlet = self.inlet
        hops, self._hops = hoplog.read(self.box.words, self._hops)
        steps = [hoplog.Hop(*hop)._replace(at_ns=0) for hop in hops]
        rest = self._bytes[layout.BOX_WORDS * layout.WORD :]
        return (
            bytes(rest),
            steps,
            self._hops,
            inlet.tail,
            inlet._free,
            inlet._received,
            self.clock.last,
        )


def run(rng: Random, entries: int) -> Result:
    """Let receivers of each kind read `count` entries, half of them with and without C."""
    result = Result()
    both = (True, False) if native.module is not None else (False,)
    _run(rng, -(-entries // 2), _Counted, both, result)
    for kind in (LanedInlet, LatchedInlet):
        _run(rng, -(-entries // 4), kind, (False,), result)
    return result


def _run(
    rng: Random, entries: int, kind: type[Inlet], variants: Sequence[bool], result: Result
) -> None:
    plan = layout.plan([QUEUE_SIZE], lanes=[kind is LanedInlet])
    receivers = [Receiver(plan, kind, by_native=by_native) for by_native in variants]
    hostile = Hostile(rng, [each.box for each in receivers], plan.rings[0])
    left = entries
    while left > 0:
        for each in receivers:
            each.restart(hostile.segments)
        for _ in range(min(left, 1000)):
            hostile.push(hostile.entry())
            left -= 1
            result.entries += 1
            if rng.random() < 0.8:
                _receive(receivers, rng, result)
        hostile.settle()
        for each in receivers:
            each.item.ready()


def _receive(receivers: list[Receiver], rng: Random, result: Result) -> None:
    """Let all receivers take what there is, and compare what comes of it."""
    for _ in range(2 * QUEUE_SIZE):
        if not _receive_one(receivers, result):
            return
        keep, release = rng.random() < 0.5, rng.random() < 0.02
        for each in receivers:
            each.let_go(keep=keep, release=release)


def _receive_one(receivers: list[Receiver], result: Result) -> bool:
    """Let all receivers take a message; return False if there was none."""
    event, *others = [each.take() for each in receivers]
    for receiver, other in zip(receivers[1:], others, strict=True):
        difference = _difference(event, other)
        if not difference and receivers[0].state() != receiver.state():
            difference = "the words, or what a receiver counts"
        if difference:
            result.faults.append(f"native and pure differ in {difference}")
    if event is None:
        return False
    result.by_native += receivers[0].took_by_native
    if event["type"] == "ERROR":
        result.errors += 1
        return True
    result.inputs += 1
    if result.inputs % READ_EVERY == 0:
        try:
            _touch(event["value"])
        except (pa.ArrowException, UnicodeDecodeError, OverflowError) as error:
            # Text that is no UTF-8 shows when it is looked at.
            if "utf" not in str(error).lower():
                result.faults.append(f"{event['value'].type}: {error}")
    return True


def _difference(one: Event | None, other: Event | None) -> str:
    """Return in what two events differ, empty if in nothing."""
    if one is None or other is None or one["type"] == other["type"] == "ERROR":
        return "" if one == other else f"the event: {one} and {other}"
    if one["type"] != other["type"]:
        return f"the event: {one} and {other}"
    # As text: a NaN is not equal to itself.
    if repr(one["metadata"]) != repr(other["metadata"]):
        return f"the metadata: {one['metadata']} and {other['metadata']}"
    if _parts(one["value"]) != _parts(other["value"]):
        return f"the array: {one['value'].type}"
    return ""


def _parts(array: pa.Array) -> tuple[Any, ...]:
    return array.type, len(array), array.offset, array.buffers()
