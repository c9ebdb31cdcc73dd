"""Hop records as the recorders of a dataflow get them, and as recordings keep them: in batches.

A batch has the records that one read of one node has found, and says what the words in them stand
for: so a part of a recording is understood without the rest. It is a map of MessagePack.
"""

import sys
from array import array
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from dorad.shm.hoplog import Hop, HopFields
from dorad.shm.layout import HOP_CONTEXT, HOP_RECEIVE, HOP_SEND
from dorad.trace.model import NodePlaces, Place

MAX_HOPS = 250
"""Records of one batch: it stays a small message, which recordings compress with others."""
MAX_BYTES = 1 << 18
"""Bytes of a batch with the longest names."""
_WORD = 8
_FIELDS = len(Hop._fields)
_OF_OUTPUTS = (HOP_SEND, HOP_CONTEXT)
"""Records that name an output."""


class Losses(msgspec.Struct, frozen=True, omit_defaults=True):
    """Records that the daemon could not read since the dataflow, or the daemon, started."""

    overwritten: int = 0
    skipped: int = 0
    damaged: int = 0


class Exit(msgspec.Struct, frozen=True):
    """The end of threads of a node."""

    threads: list[int]
    failed: bool


class HopBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """New hop records of one node, or the end of its process."""

    dataflow: str
    run: str
    """Who has read: another id for each daemon that runs the dataflow."""
    first: int
    """How many records it had read before these, of all nodes."""
    read_ns: int
    """When it has read, on the monotonic clock."""
    node: str
    rings: dict[int, Place] = {}
    """What feeds the rings that the records name, as in `NodePlaces`."""
    outputs: dict[int, str] = {}
    passes_on: bool = False
    columns: bytes = b""
    """A column of 8-byte little-endian words for each field of `Hop`."""
    losses: Losses = Losses()
    exit: Exit | None = None
    machine: str = ""
    """The machine of the daemon, if the dataflow is over several; empty from an older daemon."""

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.columns) // (_WORD * _FIELDS)

    @property
    def places(self) -> NodePlaces:
        """What the words in the records stand for."""
        return NodePlaces(self.rings, self.outputs, self.passes_on)

    def hops(self) -> list[HopFields]:
        """Return the records. Raises ValueError if they are not what a daemon writes."""
        count, rest = divmod(len(self.columns), _WORD * _FIELDS)
        if rest:
            raise ValueError(f"{len(self.columns)} bytes are no hop records")
        words = array("Q", self.columns)
        if sys.byteorder == "big":
            words.byteswap()
        kinds, *columns = (words[at * count : (at + 1) * count] for at in range(_FIELDS))
        if any(not HOP_RECEIVE <= kind <= HOP_CONTEXT for kind in kinds):
            raise ValueError("a hop record has an unknown kind")
        thread, at_ns, place, stamp, parent_place, parent_stamp, value = columns
        return [
            *zip(kinds, thread, at_ns, place, stamp, parent_place, parent_stamp, value, strict=True)
        ]


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(HopBatch).decode


def decode(data: bytes | memoryview) -> HopBatch:
    """Return a batch. Raises ValueError if the bytes are none that a daemon writes."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"a batch of hop records has {len(data)} bytes")
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"no batch of hop records: {error}") from error


def batches(empty: HopBatch, places: NodePlaces, hops: Sequence[HopFields]) -> Iterator[HopBatch]:
    """Yield batches of new records of a node; `empty` is the first one without its records."""
    for at in range(0, len(hops), MAX_HOPS):
        columns = [*zip(*hops[at : at + MAX_HOPS], strict=True)]
        kinds, _, _, words, _, parents, *_ = columns
        sent = {word for kind, word in zip(kinds, words, strict=True) if kind in _OF_OUTPUTS}
        named = {*words, *parents}
        yield replace(
            empty,
            first=empty.first + at,
            rings={word: places.rings[word] for word in named & places.rings.keys()},
            outputs={word: places.outputs[word] for word in sent & places.outputs.keys()},
            passes_on=places.passes_on,
            columns=b"".join(map(_packed, columns)),
        )


def _packed(column: Sequence[int]) -> bytes:
    words = array("Q", column)
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()
