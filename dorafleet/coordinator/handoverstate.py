"""How far a hand-over is: which authority signs for whom, and what each robot and operator has.

A robot trusts the old authority, then both, is offered a certificate of the new one, and has it.
All of it is in the store; what a robot has it tells again when it connects.
"""

import logging
import time
from collections.abc import Collection
from typing import Literal

import msgspec

from dorafleet.ca.authority import SHORT, Authority
from dorafleet.ca.handover import Successor
from dorafleet.coordinator.authority import Authorities, HandOverRecord
from dorafleet.coordinator.grants import Grants
from dorafleet.coordinator.storerecords import read
from dorafleet.coordinator.writer import Writer
from dorafleet.store.model import Store

OWNERS = "hand-over-owners/"
"""How the keys begin of how far each robot and operator has come: the new authority, the kind, the
name."""

WAITING_S = 1.0
"""Seconds for which the list of robots that do not trust the new authority is not made again."""

MAX_DELETED = 100
"""Keys in one transaction."""

Progress = Literal["trusts", "offered", "certified"]
"""A robot trusts both authorities; a certificate of the new one was signed for it; it, or an
operator, has one."""

_STEPS = ("trusts", "offered", "certified")

_log = logging.getLogger(__name__)


def gives_new(record: HandOverRecord, waiting: Collection[str], now: float) -> bool:
    """Return True if robots get certificates of the new authority.

    `waiting` are those that do not trust it yet.
    """
    return not waiting or now > record.begun + (record.ends - record.begun) * 2 / 3


class HandOverState:
    """The authorities that a leading coordinator signs with and trusts."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        grants: Grants,
        authorities: Authorities,
        robots: Collection[str],
    ) -> None:
        """`robots` are the ids in the cluster file."""
        self._store = store
        self._writer = writer
        self._grants = grants
        self.current, self.record, self.successor = authorities
        self._robots = robots
        self._progress: dict[str, Progress] = {}
        """By `kind/name`."""
        self.refusals: dict[str, str] = {}
        """Why a robot did not take the last hand-over."""
        self.forced = False
        """Whether robots get certificates of the new authority before all trust it."""
        self._waiting: tuple[float, list[str]] = (float("-inf"), [])
        """The last answer of `waiting`, and when it ends."""

    async def load(self) -> None:
        """Read how far each robot has come. Raises StoreError."""
        prefix = self._prefix
        self._progress = {}
        others = []
        for entry, progress in await read(self._store, OWNERS, str):
            if prefix and entry.key.startswith(prefix) and progress in _STEPS:
                self._progress[entry.key.removeprefix(prefix)] = progress  # type: ignore[assignment]
            else:
                others.append(entry.key)
        for start in range(0, len(others), MAX_DELETED):
            await self._writer.keep({}, others[start : start + MAX_DELETED])

    @property
    def open(self) -> Successor | None:
        """What the fleet is handed over to now, or None."""
        return self.successor if self.record is not None and self.record.open else None

    @property
    def trusted(self) -> str:
        """The certificates (PEM) of all authorities that are trusted, the current one first."""
        new = self.open
        return self.current.certificate + (new.authority.certificate if new else "")

    @property
    def for_operators(self) -> Authority:
        """What signs certificates of operators: the one that will stay."""
        return self.open.authority if self.open else self.current

    def for_robot(self, robot: str) -> Authority:
        """Return what signs the next certificate of a robot that has connected."""
        new, progress = self.open, self.progress_of(robot)
        if new is None or progress is None:
            return self.current
        return new.authority if progress == "certified" or self._gives_new else self.current

    def is_due(self, robot: str) -> bool:
        """Return True if a robot gets a certificate of the new authority now."""
        takes = self.progress_of(robot) in ("trusts", "offered")
        return takes and self.open is not None and self._gives_new

    def progress_of(self, robot: str) -> Progress | None:
        """Return how far a robot has come, None if it trusts only the old authority."""
        return self._progress.get(f"robot/{robot}")

    def replaces(self, operator: str) -> bool:
        """Return True if an operator may have a second certificate, of the authority that stays."""
        holder = self._grants.holder("operator", operator)
        if holder is None or holder.revoked or self.record is None:
            return False
        return self._is_certified("operator", operator) is bool(self.record.cancelled)

    def waiting(self) -> list[str]:
        """Return the enrolled robots that do not trust the new authority yet."""
        if time.monotonic() >= self._waiting[0]:
            missing = [id_ for id_ in self.enrolled_robots if self.progress_of(id_) is None]
            self._waiting = (time.monotonic() + WAITING_S, missing)
        return self._waiting[1]

    def old(self) -> list[str]:
        """Return the enrolled robots without a certificate of the new authority."""
        if self.record is None or self.record.cancelled:
            return []
        return [each for each in self.enrolled_robots if not self._is_certified("robot", each)]

    def new(self) -> list[str]:
        """Return the enrolled robots that have, or may have, a certificate of the new authority."""
        known = ("offered", "certified")
        return [each for each in self.enrolled_robots if self.progress_of(each) in known]

    def trusting(self) -> list[str]:
        """Return the enrolled robots that trust the new authority."""
        return [each for each in self.enrolled_robots if self.progress_of(each) is not None]

    def operators(self, *, new: bool) -> list[str]:
        """Return the operators with a certificate of the new authority, or those without one."""
        if self.record is None:
            return []
        now = self._grants.clock()
        return [
            each.name
            for each in self._grants.list()
            if each.kind == "operator"
            and not each.revoked
            and each.expires > now
            and self._is_certified("operator", each.name) is new
        ]

    def warning(self, robot: str) -> str:
        """Return what an operator should know of a robot during or after a hand-over."""
        record = self.record
        if record is None or not self._is_enrolled(robot):
            return ""
        if refusal := self.refusals.get(robot):
            what = (
                "still trusts an authority that does not follow"
                if record.cancelled
                else ("does not trust the new authority")
            )
            return f"it {what}: {refusal}"
        if record.cancelled or self._is_certified("robot", robot):
            return ""
        if record.finished:
            return (
                f"it was away during the hand-over of the authority that ended on "
                f"{day_of(record.finished)}, and trusts only the old one: `dorafleet enrol "
                f"CLUSTER.yml {robot} --again`"
            )
        if self.progress_of(robot) is None:
            return (
                "it trusts only the old authority, and must be enrolled again if it does not "
                f"connect until {day_of(record.ends)}"
            )
        return ""

    async def enrolled(self, robot: str) -> None:
        """Record that a robot has a certificate of the current authority, and a new identity."""
        self.refusals.pop(robot, None)
        if self.record is None:
            return
        if self.record.finished:
            await self.came("robot", robot, "certified")
        else:
            await self.left("robot", robot)

    async def added(self, operator: str) -> None:
        """Record that an operator has a certificate of the authority that will stay."""
        if self.record is None:
            return
        if self.record.cancelled:
            await self.left("operator", operator)
        else:
            await self.came("operator", operator, "certified")

    async def offered(self, robot: str) -> None:
        """Record that a certificate of the new authority is on its way to a robot."""
        if self.progress_of(robot) == "trusts":
            await self.came("robot", robot, "offered")

    async def came(self, kind: str, name: str, progress: Progress) -> None:
        """Store how far a robot or an operator has come."""
        key = f"{kind}/{name}"
        now = self._progress.get(key)
        # A certificate that is on its way may arrive yet.
        if now == progress or (now == "offered" and progress == "trusts"):
            return
        await self._writer.keep({f"{self._prefix}{key}": msgspec.json.encode(progress)}, ())
        self._progress[key] = progress
        _log.info("%s `%s`: %s the new authority", kind, name, progress)

    async def left(self, kind: str, name: str) -> None:
        """Store that a robot or an operator has nothing of the new authority."""
        key = f"{kind}/{name}"
        if self._progress.pop(key, None) is not None:
            await self._writer.keep({}, [f"{self._prefix}{key}"])
            _log.info("%s `%s` has nothing of the new authority", kind, name)

    def forget(self) -> None:
        """Forget how far all have come: another hand-over begins."""
        self._progress.clear()
        self.refusals.clear()
        self.forced = False
        self._waiting = (float("-inf"), [])

    @property
    def enrolled_robots(self) -> list[str]:
        """The robots that are enrolled."""
        return [id_ for id_ in self._robots if self._is_enrolled(id_)]

    @property
    def _gives_new(self) -> bool:
        assert self.record is not None
        return self.forced or gives_new(self.record, self.waiting(), time.time())

    @property
    def _prefix(self) -> str:
        return f"{OWNERS}{self.record.next[:SHORT]}/" if self.record is not None else ""

    def _is_enrolled(self, robot: str) -> bool:
        holder = self._grants.holder("robot", robot)
        return holder is not None and not holder.revoked

    def _is_certified(self, kind: str, name: str) -> bool:
        return self._progress.get(f"{kind}/{name}") == "certified"


def day_of(seconds: float) -> str:
    """Return a day, in local time."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
