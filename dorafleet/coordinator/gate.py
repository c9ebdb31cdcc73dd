"""Bound the connections that are not authenticated yet, and let hosts take turns.

Any host on the network may open connections and send nothing, or half of a handshake. A connection
is nothing but a descriptor until its peer has sent something. Then it waits for its turn:
at most `MAX_HANDSHAKES` shake hands at a time, so that each of them is fast, however many wait.

The newest connection of a host is the first: its peer waits longest from now on. With the oldest
first, a coordinator that is short of processor time would begin each handshake just before its
peer gives up, and complete none.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from dorad.hosts import host_of

MAX_HANDSHAKES = 64
"""Connections that shake hands at the same time."""

MAX_WAITING = 8192
"""Connections that wait until they may: each is a descriptor, and nothing else."""

MAX_TURN_S = 2.0
"""Seconds that the host with the most handshakes has for one while those of others wait."""

MIN_HANDSHAKE_S = 5.0
"""Seconds that every handshake has while others wait. One takes milliseconds, and three round
trips."""

HANDSHAKE_S = 10.0
"""Seconds for a handshake while no other waits, and for the first byte."""

LOOK_S = 0.25
"""Seconds between two looks at what has waited for too long."""

ACCEPTED_AT_ONCE = 256
"""Then other work of the event loop has its turn."""

RETRY_S = 1.0
"""Seconds until connections are accepted again if the process has no descriptor left."""

KEEPALIVE = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 60_000,
}
"""A peer that vanishes is detected after a minute."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logging.getLogger(__name__)

T = TypeVar("T", bound="Hashable")


class Pending(NamedTuple):
    """A connection that shakes hands."""

    host: str
    since: float


def choose_victim(pending: Mapping[Any, Pending], host: str, now: float) -> Any:
    """Return which handshake makes room for one of `host`; None if all have time left."""
    counts = Counter(each.host for each in pending.values())
    busiest, most = counts.most_common(1)[0]
    key, oldest = min(
        ((key, each) for key, each in pending.items() if each.host == busiest),
        key=lambda item: item[1].since,
    )
    # With equal shares two hosts would replace each other's connections again and again.
    allowed = MAX_TURN_S if most > counts[host] + 1 else MIN_HANDSHAKE_S
    return key if now - oldest.since >= allowed else None


def victims(pending: Mapping[Any, Pending], hosts: Iterable[str], now: float) -> list[Any]:
    """Return which handshakes make room for one of each of these hosts, as `choose_victim` does.

    Of a fleet, thousands of hosts may wait: those with equally many handshakes get one answer.
    """
    left, counts = dict(pending), Counter(each.host for each in pending.values())
    chosen: list[Any] = []
    refused: set[int] = set()
    for host in hosts:
        if not left:
            break
        if counts[host] in refused:
            continue
        victim = choose_victim(left, host, now)
        if victim is None:
            refused.add(counts[host])
            continue
        counts[left.pop(victim).host] -= 1
        refused.clear()
        chosen.append(victim)
    return chosen


class Line(Generic[T]):
    """What waits, by host: of one host the newest is the first, and hosts take turns."""

    def __init__(self) -> None:
        self._silent: dict[str, dict[T, float]] = {}
        """Those that have sent nothing, and since when they wait; the oldest first."""
        self._ready: dict[str, deque[T]] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    @property
    def hosts(self) -> list[str]:
        """The hosts that have something ready, in the order of their turns."""
        return list(self._ready)

    def add(self, host: str, item: T, now: float) -> None:
        """Add what has sent nothing yet."""
        self._silent.setdefault(host, {})[item] = now
        self._counts[host] += 1

    def spoke(self, host: str, item: T) -> None:
        """Record that the peer of one has sent something."""
        self._forget_silent(host, item)
        self._ready.setdefault(host, deque()).append(item)
        self._counts[host] += 1

    def remove(self, host: str, item: T) -> None:
        """Remove one that has sent nothing."""
        self._forget_silent(host, item)

    def take(self) -> T | None:
        """Remove and return the one whose turn it is, None if none is ready."""
        host = next(iter(self._ready), None)
        if host is None:
            return None
        items = self._ready.pop(host)
        item = items.pop()
        if items:
            self._ready[host] = items  # behind all other hosts
        self._uncount(host)
        return item

    def shed(self) -> T:
        """Remove and return the oldest one of the host with the most, a silent one if there is."""
        host = self._counts.most_common(1)[0][0]
        if self._silent.get(host):
            item = next(iter(self._silent[host]))
            self._forget_silent(host, item)
            return item
        return self.take_oldest(host)

    def oldest(self, host: str) -> T | None:
        """Return the oldest of a host that is ready, None if there is none."""
        items = self._ready.get(host)
        return items[0] if items else None

    def take_oldest(self, host: str) -> T:
        """Remove and return the oldest of a host that is ready."""
        items = self._ready[host]
        item = items.popleft()
        if not items:
            del self._ready[host]
        self._uncount(host)
        return item

    def expired(self, before: float) -> Iterator[tuple[str, T]]:
        """Yield those that have sent nothing since a time."""
        for host, items in list(self._silent.items()):
            for item, since in list(items.items()):
                if since > before:
                    break
                yield host, item

    def _forget_silent(self, host: str, item: T) -> None:
        items = self._silent[host]
        del items[item]
        if not items:
            del self._silent[host]
        self._uncount(host)

    def _uncount(self, host: str) -> None:
        self._counts[host] -= 1
        if not self._counts[host]:
            del self._counts[host]


class GatedSocket(socket.socket):
    """A listening socket for asyncio, whose `accept` returns the connections whose turn it is.

    asyncio waits for its descriptor, which is readable while there is such a connection.
    """

    def __init__(
        self,
        family: socket.AddressFamily,
        *,
        handshakes: int = MAX_HANDSHAKES,
        waiting: int = MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`handshakes` and `waiting` are maximum numbers of connections."""
        super().__init__(family, socket.SOCK_STREAM)
        self._handshakes = handshakes
        self._waiting = waiting
        self._clock = clock
        self._turn = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_turn = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._line: Line[_Arrival] = Line()
        self._pending: dict[Any, Pending] = {}
        """Handshakes by the address of the peer."""
        self._accepted: dict[Any, _Accepted] = {}
        self._shed = 0
        """Connections that were closed for want of a place since the last look."""

    @property
    def waiting(self) -> int:
        """Number of connections that wait for their handshake."""
        return len(self._line)

    @property
    def pending(self) -> int:
        """Number of connections that shake hands."""
        return len(self._pending)

    def fileno(self) -> int:
        """Return the descriptor that is readable while `accept` returns a connection."""
        return self._turn

    def listen(self, backlog: int = 0, /) -> None:
        """Listen, and take connections from the kernel. Needs the event loop."""
        super().listen(backlog)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(super().fileno(), self._arrive)
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection whose turn it is. Raises BlockingIOError if there is none."""
        while len(self._pending) < self._handshakes:
            arrival = self._line.take()
            if arrival is None:
                break
            sock, address, host = arrival
            if _has_hung_up(sock):
                _log.debug("a connection from %s ended while it waited", host)
                sock.close()
                continue
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            accepted = _Accepted(self, address, sock)
            self._accepted[address] = accepted
            self._pending[address] = Pending(host, self._clock())
            self._signal()
            return accepted, address
        self._signal()
        raise BlockingIOError

    def admit(self, address: Any) -> None:
        """Stop counting the connection from this address: it is authenticated."""
        self._pending.pop(address, None)
        self._accepted.pop(address, None)
        self._signal()

    def closed(self, accepted: _Accepted) -> None:
        """Stop counting a connection that was closed."""
        if self._accepted.get(accepted.address) is accepted:
            _log.debug("a connection from %s ended before it was admitted", accepted.address[0])
            self.admit(accepted.address)

    def close(self) -> None:
        """Close this socket and all connections that wait."""
        if self._turn < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(super().fileno())
        if self._timer is not None:
            self._timer.cancel()
        while len(self._line):
            self._drop(self._line.shed())
        os.close(self._turn)
        self._turn = -1
        super().close()

    def _arrive(self) -> None:
        """Take connections from the kernel, and let them wait."""
        assert self._loop is not None
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, address = super().accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("no connection is accepted for %g s: %s", RETRY_S, error.strerror)
                self._loop.remove_reader(super().fileno())
                self._loop.call_later(RETRY_S, self._resume)
                return
            sock.setblocking(False)
            arrival = _Arrival(sock, address, host_of(address[0]))
            self._line.add(arrival.host, arrival, self._clock())
            self._loop.add_reader(sock.fileno(), self._spoke, arrival)
            if len(self._line) > self._waiting:
                self._shed += 1
                self._drop(self._line.shed())

    def _resume(self) -> None:
        if self._turn >= 0 and self._loop is not None:
            self._loop.add_reader(super().fileno(), self._arrive)

    def _spoke(self, arrival: _Arrival) -> None:
        """Let a connection take part in the turns: its peer has sent something."""
        assert self._loop is not None
        self._loop.remove_reader(arrival.sock.fileno())
        try:
            has_ended = not arrival.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            has_ended = True
        if has_ended:
            self._line.remove(arrival.host, arrival)
            arrival.sock.close()
            return
        self._line.spoke(arrival.host, arrival)
        self._signal()

    def _look(self) -> None:
        """Close what has waited, or has been shaking hands, for too long."""
        assert self._loop is not None
        now = self._clock()
        for host, arrival in self._line.expired(now - HANDSHAKE_S):
            self._line.remove(host, arrival)
            self._drop(arrival)
        for host in self._line.hosts:
            # Those that were not served in time give up, the oldest first.
            while (oldest := self._line.oldest(host)) and _has_hung_up(oldest.sock):
                self._line.take_oldest(host).sock.close()
        for address, each in list(self._pending.items()):
            if now - each.since >= HANDSHAKE_S:
                self._evict(address)
        if len(self._pending) >= self._handshakes:
            for victim in victims(self._pending, self._line.hosts, now):
                self._evict(victim)
        if self._shed:
            _log.warning("%d connections had no place to wait and were closed", self._shed)
            self._shed = 0
        self._signal()
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def _evict(self, address: Any) -> None:
        _log.debug("the handshake with %s takes too long", self._pending[address].host)
        self._pending.pop(address)
        # Not `close`: the descriptor belongs to the transport, which notices the end.
        with suppress(OSError):
            self._accepted.pop(address).shutdown(socket.SHUT_RDWR)

    def _drop(self, arrival: _Arrival) -> None:
        """Close a connection that waited."""
        if self._loop is not None:
            self._loop.remove_reader(arrival.sock.fileno())
        arrival.sock.close()

    def _signal(self) -> None:
        """Make the descriptor readable if `accept` can return a connection."""
        wanted = bool(self._line.hosts) and len(self._pending) < self._handshakes
        if wanted == self._is_turn or self._turn < 0:
            return
        self._is_turn = wanted
        if wanted:
            os.eventfd_write(self._turn, 1)
        else:
            os.eventfd_read(self._turn)


class _Arrival(NamedTuple):
    """A connection that waits."""

    sock: socket.socket
    address: Any
    host: str


class _Accepted(socket.socket):
    """A connection that notifies its gate when it is closed."""

    def __init__(self, gate: GatedSocket, address: Any, connection: socket.socket) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._gate = gate
        self.address = address

    def close(self) -> None:
        """Close the socket."""
        self._gate.closed(self)
        super().close()


def _has_hung_up(sock: socket.socket) -> bool:
    """Return True if the peer has closed the connection, also with bytes that were not read."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
