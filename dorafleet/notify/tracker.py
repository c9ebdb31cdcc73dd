"""Which alerts people have been told of, and what the next notification says. It reads no clock.

An alert is told once when it is raised, again if it gets worse, and once it has been over for a
while. One that comes back again and again is over only after a long calm. What happens at nearly
the same time is one notification.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from dorad.control.messages import Severity, Struct
from dorad.int64 import Int64
from dorad.natural import natural
from dorafleet.notify.notification import (
    MAX_GROUPS,
    MAX_NAME,
    MAX_ROBOTS,
    Group,
    Notification,
    clean,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dorad.control.alertbook import StoredAlert

GROUP_S = 5.0
"""Seconds from the first change to its notification, which has all changes until then."""
PACE_S = 30.0
"""Minimum seconds between two notifications."""
CLEAR_S = 60.0
"""Seconds after which an alert that has gone is over."""
CALM_S = 600.0
"""The same for one that has come back `FLAPS` times, each time within as many seconds."""
FLAPS = 2
MAX_OF_ROBOT = 20
"""Alerts of one robot that are told; those beyond are only counted."""

_log = logging.getLogger(__name__)


class Told(Struct):
    """An alert that people have been told of."""

    cause: str
    subject: str
    severity: Severity
    text: str
    since: float
    dataflow: str | None = None
    node: str | None = None
    gone_at: float | None = None
    """Since when it is absent; None while it lasts."""
    over: bool = False
    """Whether its end has been told. It is kept for a while, to count how often it returns."""
    returns: Int64 = 0
    """How often it has come back."""


class Tracker:
    """The alerts of all robots that people have been told of."""

    def __init__(self, severity: Severity = "warn") -> None:
        """Leave out alerts below `severity`."""
        self._least = severity
        self._told: dict[str, dict[tuple[str, str], Told]] = {}
        self._changed: dict[tuple[str, str, str], Told] = {}
        """Changes for the next notification, by robot, cause and subject."""
        self._before: dict[tuple[str, str, str], Told | None] = {}
        """What people know of those until then; None if nothing."""
        self._due: float | None = None
        self._last = float("-inf")
        self._omitted: set[tuple[str, str, str]] = set()
        """Alerts that last and are not told, since their robot has too many."""
        self._new_omitted = 0
        self._unsaved: set[str] = set()

    def restore(self, told: Mapping[str, Iterable[Told]]) -> None:
        """Take over what the previous coordinator has told."""
        for robot, alerts in told.items():
            kept = [*alerts][:MAX_OF_ROBOT]
            self._told[robot] = {(each.cause, each.subject): each for each in kept}

    @property
    def open(self) -> int:
        """The number of alerts that were told and are not over."""
        return sum(not each.over for alerts in self._told.values() for each in alerts.values())

    def observe(self, now: float, alerts: Mapping[str, Sequence[StoredAlert]]) -> None:
        """Take all alerts that last at the time `now`, in seconds since 1970, by robot."""
        present: set[tuple[str, str, str]] = set()
        for robot, raised in alerts.items():
            for each in raised:
                if self._least == "warn" or each.finding.severity == "fail":
                    cause = clean(each.finding.cause, MAX_NAME)
                    subject = clean(each.finding.subject, MAX_NAME)
                    present.add((robot, cause, subject))
                    self._see(robot, cause, subject, each)
        for robot, told in list(self._told.items()):
            for (cause, subject), known in list(told.items()):
                if (robot, cause, subject) not in present:
                    self._miss(robot, known, now)
            if not told:
                del self._told[robot]
        self._omitted &= present
        if self._due is None and (self._changed or self._new_omitted):
            self._due = max(now + GROUP_S, self._last + PACE_S)
        elif self._due is not None and self._due > now + max(GROUP_S, PACE_S):
            self._due = now + GROUP_S  # the clock was set back

    def _see(self, robot: str, cause: str, subject: str, alert: StoredAlert) -> None:
        told = self._told.setdefault(robot, {})
        before = told.get((cause, subject))
        finding = alert.finding
        if before is not None and not before.over:
            before.gone_at = None
            if not (before.severity == "warn" and finding.severity == "fail"):
                return
        elif before is None and len(told) >= MAX_OF_ROBOT:
            key = (robot, cause, subject)
            if key not in self._omitted:
                self._omitted.add(key)
                self._new_omitted += 1
            return
        after = Told(
            cause=cause,
            subject=subject,
            severity=finding.severity,
            text=clean(finding.brief or finding.text),
            since=finding.since,
            dataflow=None if finding.dataflow is None else clean(finding.dataflow, MAX_NAME),
            node=None if finding.node is None else clean(finding.node, MAX_NAME),
            returns=0 if before is None else before.returns + before.over,
        )
        _log.debug("alert %s:%s:%s is raised, it will be told", robot, cause, subject)
        told[cause, subject] = after
        self._change((robot, cause, subject), before, after)

    def _miss(self, robot: str, told: Told, now: float) -> None:
        if told.gone_at is None or told.gone_at > now:
            told.gone_at = now
            self._unsaved.add(robot)
        absent = now - told.gone_at
        if told.over:
            if absent >= CALM_S:
                del self._told[robot][told.cause, told.subject]
                self._unsaved.add(robot)
        elif absent >= (CALM_S if told.returns >= FLAPS else CLEAR_S):
            _log.debug("alert %s:%s:%s is over, told next", robot, told.cause, told.subject)
            before = msgspec.structs.replace(told)
            told.over, told.gone_at = True, now
            self._change((robot, told.cause, told.subject), before, told)

    def _change(self, key: tuple[str, str, str], before: Told | None, after: Told) -> None:
        self._before.setdefault(key, before)
        self._changed[key] = after

    def take(self, now: float, id_: str, coordinator: str) -> Notification | None:
        """Return the notification that is due, or None. Its id is `id_`."""
        if self._due is None or now < self._due:
            return None
        raised, more_raised = _groups(self._changed, over=False)
        cleared, more_cleared = _groups(self._changed, over=True)
        omitted = more_raised + more_cleared + self._new_omitted
        notification = Notification(
            id=id_,
            coordinator=coordinator,
            at=now,
            text=summary(raised, cleared, omitted),
            raised=raised,
            cleared=cleared,
            open=self.open,
            omitted=omitted,
        )
        self._unsaved.update(robot for robot, _, _ in self._changed)
        self._changed.clear()
        self._before.clear()
        self._new_omitted = 0
        self._due, self._last = None, now
        return notification

    def take_unsaved(self) -> dict[str, list[Told]]:
        """Return what must be stored of the robots that have changed since the last call.

        A change that no notification has told yet is not among it: after a crash it is told.
        """
        robots, self._unsaved = self._unsaved, set()
        unsaved: dict[str, list[Told]] = {robot: [] for robot in robots}
        for robot in robots:
            for (cause, subject), told in self._told.get(robot, {}).items():
                known = self._before.get((robot, cause, subject), told)
                if known is not None:
                    unsaved[robot].append(known)
        return unsaved


def _groups(changed: Mapping[tuple[str, str, str], Told], *, over: bool) -> tuple[list[Group], int]:
    """Return the groups, the worst and largest first, and how many alerts are in no group."""
    by_cause: dict[tuple[str, str], dict[str, Told]] = {}
    for (robot, cause, subject), told in changed.items():
        if told.over == over:
            by_cause.setdefault((cause, subject), {})[robot] = told
    groups = sorted(_made(by_cause), key=lambda each: (each.severity != "fail", -each.count))
    return groups[:MAX_GROUPS], sum(each.count for each in groups[MAX_GROUPS:])


def _made(by_cause: Mapping[tuple[str, str], Mapping[str, Told]]) -> Iterator[Group]:
    for (cause, subject), members in by_cause.items():
        robots = sorted(members, key=natural)
        first = min(members.values(), key=lambda each: each.since)
        worst = any(each.severity == "fail" for each in members.values())
        yield Group(
            cause=cause,
            subject=subject,
            severity="fail" if worst else "warn",
            text=first.text,
            robots=robots[:MAX_ROBOTS],
            count=len(robots),
            since=first.since,
            dataflow=first.dataflow,
            node=first.node,
            returns=max(each.returns for each in members.values()),
        )
