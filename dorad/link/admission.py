"""Which connections at a link's port may shake hands with Zenoh, and which are closed.

Pure. Each connection comes from a host, which is an IPv4 address or an IPv6 network of /64:

    waiting    its TLS greeting (ClientHello) is not complete; it never reaches Zenoh
    ready      its greeting is complete, and all places are taken
    shaking    it has one of Zenoh's places, until Zenoh knows who it is

Whatever is over a limit is closed, and it is always the host with the most connections that loses
its oldest one. So a host with few connections, such as a peer, gets in beside any other.
"""

from dataclasses import dataclass
from enum import Enum

MAX_WAITING = 256
"""Connections that are waiting or ready."""

GREETING_S = 3.0
"""How long a connection may take for its greeting: a satellite needs 0.6 s, once."""

READY_S = 0.5
"""How long a connection waits for a place. The other end then tries again soon; it would not while
it waits. A host that has few connections gets a place sooner than that."""

HANDSHAKE_S = 5.0
"""How long a handshake may take, with that of Zenoh: four round trips of a satellite."""

UNDISTURBED_S = 0.5
"""How long a handshake keeps its place although others of its own host wait."""

COOLING_S = 0.12
"""How long a place is not used after a handshake has failed: Zenoh then rests for 0.1 s."""

_RECORD_HEAD = 5
_HANDSHAKE, _CLIENT_HELLO, _VERSION_MAJOR = 22, 1, 3
_MAX_RECORD = 1 << 14
MAX_GREETING = _RECORD_HEAD + _MAX_RECORD
"""Bytes of a greeting."""


class Refusal(Enum):
    """Why a connection was closed; the value completes a sentence about how many."""

    SLOW = "without a TLS greeting in time"
    NOT_TLS = "without TLS"
    CROWDED = "too many at a time"
    FAILED = "without a certificate of this fleet, or broken off"
    LATE = "whose handshake took too long"
    UNKNOWN = "of machines that are not in the dataflow"
    REPEATED = "of a machine that has others"


def greeting_size(data: bytes) -> int | None:
    """Return how many bytes a connection's TLS greeting has, or at least has, by its beginning.

    Returns None if it is no such greeting.
    """
    if not data:
        return _RECORD_HEAD
    if data[0] != _HANDSHAKE or (len(data) > 1 and data[1] != _VERSION_MAJOR):
        return None
    if len(data) < _RECORD_HEAD:
        return _RECORD_HEAD
    length = int.from_bytes(data[3:5], "big")
    if not 4 <= length <= _MAX_RECORD:
        return None
    if len(data) > _RECORD_HEAD and data[_RECORD_HEAD] != _CLIENT_HELLO:
        return None
    if len(data) >= _RECORD_HEAD + 4 and int.from_bytes(data[6:9], "big") != length - 4:
        return None
    return _RECORD_HEAD + length


@dataclass(slots=True)
class _Connection:
    host: str
    since_s: float
    """When it came, was complete, or got its place."""
    ready: bool = False
    place: int | None = None


class Admission:
    """The connections that are not known yet, by a number that the caller gives them."""

    def __init__(self, places: int) -> None:
        """`places` is how many handshakes Zenoh does at a time."""
        self._connections: dict[int, _Connection] = {}
        self._free_s = dict.fromkeys(range(places), 0.0)
        """From when on each place that is not taken can be used."""
        self._places = places

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._connections)

    @property
    def shaking(self) -> list[int]:
        """The connections that have a place."""
        return [key for key, each in self._connections.items() if each.place is not None]

    def arrive(self, key: int, host: str, now_s: float) -> int | None:
        """Let a new connection wait; return one that has to be closed for it."""
        self._connections[key] = _Connection(host, now_s)
        waiting = len(self._connections) - (self._places - len(self._free_s))
        return self.most_waiting() if waiting > MAX_WAITING else None

    def most_waiting(self) -> int | None:
        """Return the oldest connection of the host that has most of those without a place."""
        waiting = [key for key, each in self._connections.items() if each.place is None]
        return self._oldest_of_largest(waiting) if waiting else None

    def complete(self, key: int, now_s: float) -> None:
        """Handle that the greeting of a waiting connection is complete."""
        each = self._connections[key]
        each.ready, each.since_s = True, now_s

    def next(self, now_s: float) -> tuple[int, int] | None:
        """Give a free place to a connection that is ready; return its key and the place.

        The host with the fewest handshakes comes first, and of its connections the newest: the
        other end of an old one may have given up.
        """
        ready = self._ready()
        free = [place for place, from_s in self._free_s.items() if from_s <= now_s]
        if not ready or not free:
            return None
        taken = self._count(self.shaking)
        key = min(
            ready,
            key=lambda key: (
                taken.get(self._connections[key].host, 0),
                -self._connections[key].since_s,
                -key,
            ),
        )
        each, place = self._connections[key], free[0]
        each.place, each.since_s = place, now_s
        del self._free_s[place]
        return key, place

    def displaced(self, now_s: float) -> int | None:
        """Return a handshake that has to give way to a connection that is ready, if there is one.

        The caller closes it. Places that will be free soon count as free.
        """
        ready = self._ready()
        if len(ready) <= len(self._free_s):
            return None
        shaking = self.shaking
        if not shaking:
            return None
        key = self._oldest_of_largest(shaking)
        taken = self._count(shaking)
        fewest = min(taken.get(self._connections[each].host, 0) for each in ready)
        each = self._connections[key]
        if taken[each.host] > fewest + 1 or now_s - each.since_s >= UNDISTURBED_S:
            return key
        return None

    def leave(self, key: int, now_s: float, *, failed: bool) -> None:
        """Forget a connection; one that has failed leaves its place to cool."""
        each = self._connections.pop(key)
        if each.place is not None:
            self._free_s[each.place] = now_s + COOLING_S if failed else now_s

    def overdue(self, now_s: float) -> list[tuple[int, Refusal]]:
        """Return the connections that have taken too long, and at what."""
        late = []
        for key, each in self._connections.items():
            age_s = now_s - each.since_s
            if each.place is not None and age_s >= HANDSHAKE_S:
                late.append((key, Refusal.LATE))
            elif each.place is None and each.ready and age_s >= READY_S:
                late.append((key, Refusal.CROWDED))
            elif each.place is None and not each.ready and age_s >= GREETING_S:
                late.append((key, Refusal.SLOW))
        return late

    def _ready(self) -> list[int]:
        return [key for key, each in self._connections.items() if each.ready and each.place is None]

    def _count(self, keys: list[int]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for key in keys:
            host = self._connections[key].host
            counts[host] = counts.get(host, 0) + 1
        return counts

    def _oldest_of_largest(self, keys: list[int]) -> int:
        """Return the oldest connection of the host that has the most of these."""
        counts = self._count(keys)

        def rank(key: int) -> tuple[int, float, int]:
            each = self._connections[key]
            return -counts[each.host], each.since_s, key

        return min(keys, key=rank)
