"""Leases: what on this robot must not be interrupted by a switch to a new release.

Nodes hold some (see `broker.nodeleases`), clients of the control API the others: as long as a
stream is open, or for some time. Those of clients are in a file that lasts until the next boot, so
that a restarted daemon knows them.
"""

import logging
import pwd
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from dorad.atomicfile import atomic_file
from dorad.control.errors import ControlError
from dorad.control.messages import Lease
from dorad.control.messages.leases import MAX_TTL_S
from dorad.control.peer import Peer

MAX_LEASES = 64
"""Maximum number of leases of clients."""
MAX_USER_LEASES = 16
"""Maximum number of leases of one user other than root."""
MAX_RESERVED = 100
"""Maximum number of reservations that are remembered."""
COME_BACK_S = 5.0
"""Seconds that a restarted daemon keeps a lease until its client has connected again."""

_log = logging.getLogger(__name__)


class _Held(msgspec.Struct):
    id: str
    reason: str
    owner: str
    uid: int
    since: float
    until: float | None
    """By the clock since the boot; None as long as its stream is open."""


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leases:
    """The leases of clients. Belongs to one event loop."""

    def __init__(
        self, path: Path, warn: Callable[[str], None], clock: Callable[[], float] = _clock
    ) -> None:
        """`path` is a file in a folder that is empty after a boot."""
        self._path = path
        self._warn = warn
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._reserved: dict[str, float] = {}
        """Until when no lease begins, by the key of the request; those that are over, too."""
        for each in self._load():
            until = clock() + COME_BACK_S if each.until is None else each.until
            self._held[each.id] = msgspec.structs.replace(each, until=until)

    def take(self, peer: Peer, reason: str, ttl: float | None) -> Lease:
        """Return a new lease: for `ttl` seconds, or until `end`.

        Raises:
            ControlError: there are too many, or the time is not possible.
        """
        if ttl is not None and not 0 < ttl <= MAX_TTL_S:
            raise ControlError(
                "bad-request", f"the time of a lease must be above 0 and at most {MAX_TTL_S:g} s"
            )
        if left := self.reserved:
            raise ControlError(
                "busy",
                f"this robot is about to switch to a release: no lease begins for {left:.0f} s",
                "try again then",
            )
        self._expire()
        owner = _owner(peer)
        # The same client after a restart of the daemon, whose place is kept.
        for each in list(self._held.values()):
            if (each.owner, each.reason) == (owner, reason) and each.until is not None:
                del self._held[each.id]
        of_user = sum(1 for each in self._held.values() if each.uid == peer.uid)
        if len(self._held) >= MAX_LEASES or (peer.uid != 0 and of_user >= MAX_USER_LEASES):
            raise ControlError(
                "busy",
                f"there are {len(self._held)} leases, {of_user} of this user; at most {MAX_LEASES} "
                f"and {MAX_USER_LEASES} are possible",
                "`dora busy list` shows them",
            )
        until = None if ttl is None else self._clock() + ttl
        held = _Held(uuid.uuid4().hex[:12], reason, owner, peer.uid, time.time(), until)
        self._held[held.id] = held
        _log.info("busy: %s (%s)", reason, owner)
        self._store()
        return self._as_lease(held)

    @property
    def reserved(self) -> float:
        """The seconds for which no lease begins."""
        return max(0.0, max(self._reserved.values(), default=0.0) - self._clock())

    def reserve(self, key: str, seconds: float) -> float:
        """Let no lease begin for some seconds; return how many are left.

        A reservation is not extended, and one that is over does not begin again.
        """
        now = self._clock()
        if seconds == 0:
            self._reserved.pop(key, None)
        elif key not in self._reserved:
            for oldest in sorted(self._reserved, key=self._reserved.__getitem__)[:-MAX_RESERVED]:
                del self._reserved[oldest]
            self._reserved[key] = now + seconds
            _log.info("no lease begins for %g s: %s", seconds, key)
        return max(0.0, self._reserved.get(key, 0.0) - now)

    def end(self, id_: str, peer: Peer | None = None) -> None:
        """End a lease; a `peer` may end its user's only, root all.

        Raises:
            ControlError: there is none with this id, or it belongs to another user.
        """
        held = self._held.get(id_)
        if held is None:
            raise ControlError("not-found", f"there is no lease {id_[:40]!r}")
        if peer is not None and peer.uid not in (0, held.uid):
            raise ControlError("refused", f"this lease belongs to {held.owner}")
        if peer is not None and held.until is None:
            raise ControlError(
                "refused", f"{held.owner} holds this lease", "it ends when that process ends"
            )
        del self._held[id_]
        _log.info("no longer busy: %s (%s)", held.reason, held.owner)
        self._store()

    def all(self, nodes: Iterable[Lease] = ()) -> list[Lease]:
        """Return all leases of clients and these of `nodes`, the oldest first."""
        self._expire()
        leases = [*map(self._as_lease, self._held.values()), *nodes]
        return sorted(leases, key=lambda each: each.since)

    def _as_lease(self, held: _Held) -> Lease:
        left = None if held.until is None else held.until - self._clock()
        return Lease(
            id=held.id,
            reason=held.reason,
            owner=held.owner,
            since=held.since,
            expires=None if left is None else time.time() + left,
        )

    def _expire(self) -> None:
        now = self._clock()
        over = [each for each in self._held.values() if each.until is not None and each.until < now]
        for each in over:
            _log.debug("the time of the lease %s is over", each.id)
            del self._held[each.id]

    def _load(self) -> list[_Held]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Held])[:MAX_LEASES]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            self._warn(f"the leases in {self._path} cannot be read: {error}")
            return []

    def _store(self) -> None:
        try:
            with atomic_file(self._path, durable=False) as file:
                file.write(msgspec.json.encode(list(self._held.values())))
        except OSError as error:
            self._warn(f"leases cannot be stored, a restarted daemon will not know them: {error}")


def _owner(peer: Peer) -> str:
    if peer.name:
        return peer.name
    try:
        name = pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        name = str(peer.uid)
    return f"{name} (pid {peer.pid})"
