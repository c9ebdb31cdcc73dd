"""What the nodes of a dataflow record, made by hand."""

import itertools
from typing import NamedTuple

from dorad.dataflow.model import LINK
from dorad.shm.hoplog import Hop
from dorad.shm.layout import HOP_DONE, HOP_DROP, HOP_RECEIVE, HOP_SEND
from dorad.trace.join import Joiner
from dorad.trace.model import NodePlaces, Place, Tree

MS = 1_000_000
START = 1_700_000_000_000 * MS
LATER = 1 << 62
"""A time on the monotonic clock at which every trace is complete."""


class Recorded:
    """A node that records. Times are in ms after START; messages are sent at their timestamps."""

    def __init__(self, name: str, places: dict[str, Place], outputs: tuple[str, ...] = ()) -> None:
        self.name = name
        self.hops: list[Hop] = []
        self._rings = dict(zip(places, itertools.count(9000, 128), strict=False))
        self._keys = dict(zip(outputs, itertools.count(70), strict=False))
        self.places = NodePlaces(
            {self._rings[name]: place for name, place in places.items()},
            {key: f"{name}/{output}" for output, key in self._keys.items()},
        )

    def receive(
        self, name: str, stamp: float, at: float, *, thread: int = 5, queued: int = 0
    ) -> None:
        ring = self._rings[name]
        self.hops.append(Hop(HOP_RECEIVE, thread, ns(at), ring, ns(stamp), 0, 0, queued))

    def done(self, name: str, stamp: float, at: float, *, thread: int = 5) -> None:
        self.hops.append(Hop(HOP_DONE, thread, ns(at), self._rings[name], ns(stamp), 0, 0, 0))

    def send(
        self,
        output: str,
        stamp: float,
        of: tuple[str, float] | None = None,
        *,
        size: int = 8,
        at: float | None = None,
    ) -> None:
        """`at` is another time than that of the timestamp, which may be later."""
        ring, parent = (0, 0) if of is None else (self._rings[of[0]], ns(of[1]))
        key = self._keys[output]
        sent = ns(stamp if at is None else at)
        self.hops.append(Hop(HOP_SEND, 5, sent, key, ns(stamp), ring, parent, size))

    def drop(self, name: str, at: float, count: int) -> None:
        self.hops.append(Hop(HOP_DROP, 5, ns(at), self._rings[name], 0, 0, 0, count))


class Linked(Recorded):
    """A link process: it has passed on a message as soon as it has taken it."""

    def __init__(self, places: dict[str, Place]) -> None:
        super().__init__(LINK, places)
        self.places = self.places._replace(passes_on=True)


def ns(ms: float) -> int:
    """Return a time in ms after START as ns since 1970."""
    return START + round(ms * MS)


def tick(node: str, name: str = "tick") -> dict[str, Place]:
    """Return a timer of a node."""
    return {name: Place(name, f"{node}/{name}", tick=True)}


def fed(**topics: str) -> dict[str, Place]:
    """Return inputs by name, with the topics that feed them."""
    return {name: Place(name, topic) for name, topic in topics.items()}


class Chain(NamedTuple):
    """`camera/tick → camera → detector → planner`."""

    camera: Recorded
    detector: Recorded
    planner: Recorded


def chain() -> Chain:
    """Return nodes that have recorded nothing."""
    return Chain(
        Recorded("camera", tick("camera"), ("image",)),
        Recorded("detector", fed(image="camera/image"), ("boxes",)),
        Recorded("planner", fed(boxes="detector/boxes")),
    )


def run_chain(nodes: Chain, at: float, *, work: float = 10.0) -> None:
    """Let a tick at `at` pass the chain; the detector works for `work` ms."""
    camera, detector, planner = nodes
    camera.receive("tick", at, at + 1)
    camera.send("image", at + 5, ("tick", at))
    camera.done("tick", at, at + 6)
    detector.receive("image", at + 5, at + 7, queued=3)
    detector.send("boxes", at + 7 + work, ("image", at + 5))
    detector.done("image", at + 5, at + 7.5 + work)
    planner.receive("boxes", at + 7 + work, at + 8 + work)
    planner.done("boxes", at + 7 + work, at + 12 + work)


def joined(*nodes: Recorded, joiner: Joiner | None = None) -> list[Tree]:
    """Return the traces of what nodes have recorded, in the order of their beginnings."""
    joiner = Joiner() if joiner is None else joiner
    for node in nodes:
        joiner.add(node.name, node.places, node.hops, 0)
    trees = joiner.settle(LATER)
    assert len(joiner) == 0
    return sorted(trees, key=lambda tree: tree.messages[0].stamp)
