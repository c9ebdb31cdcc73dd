"""The state machine of alerts. Its input is the findings of each robot.

An event is an alert at once, a state once it has lasted. What ends and comes back again and again
is one alert that flaps. Five or more robots with one cause are one alert. It reads no clock.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages import Alert, Finding, PastAlert, Struct
from dorad.natural import natural

RAISED_AFTER_S = 2.0
"""Seconds that a state lasts before it is an alert."""
CLEARED_AFTER_S = 10.0
"""Seconds without the finding after which an alert is over."""
FLAPS = 3
"""Number of returns from which an alert counts as flapping."""
CALM_S = 60.0
"""Seconds without the finding after which an alert that flaps is over."""
RETURNS_WITHIN_S = 600.0
"""Seconds within which a finding whose alert is over returns, instead of being a new one."""
FOLD = 5
"""Minimum number of robots with one cause that become one alert."""
MAX_NAMED = 100
"""Robots that an alert names."""
MAX_OF_ROBOT = 200
"""Maximum number of findings of one robot that are kept; the log reports when there are more."""
MAX_EPISODES = 20_000
"""The same of all robots, and the number of alerts that are over and may return."""
MAX_PAST = 200
"""Alerts that are over and are kept."""

_log = logging.getLogger(__name__)


class Key(NamedTuple):
    """Identifies a finding of the whole fleet."""

    robot: str
    cause: str
    subject: str

    def __str__(self) -> str:
        return f"{self.robot}:{self.cause}:{self.subject}"


class StoredAlert(Struct):
    """An alert of one robot as a server keeps it for the next one."""

    finding: Finding
    returns: int = 0
    acked_by: str = ""
    acked_at: float | None = None


def identity(alerts: Iterable[StoredAlert]) -> object:
    """Return the parts of alerts whose change is stored: id, severity, acknowledgement."""
    return frozenset(
        (
            each.finding.cause,
            each.finding.subject,
            each.finding.severity,
            each.finding.since,
            each.acked_by,
        )
        for each in alerts
    )


@dataclass(slots=True)
class Episode:
    """A finding from its beginning until it has been absent for long enough."""

    finding: Finding
    first: float
    """When it was seen first, on the clock of the caller."""
    last: float
    """When it was seen last."""
    present: bool = True
    returns: int = 0
    """How often it has come back."""
    raised: bool = False
    acked_by: str = ""
    acked_at: float | None = None


class AlertBook:
    """The alerts of one server."""

    def __init__(self) -> None:
        self._episodes: dict[Key, Episode] = {}
        self._counts: Counter[str] = Counter()
        """Episodes by robot."""
        self._over: dict[Key, tuple[int, float]] = {}
        """How often alerts that are over had come, and when they ended; the first one first."""
        self._full: set[str] = set()
        """Robots whose findings are left out; an empty name stands for all."""

    def observe(
        self,
        now: float,
        by_robot: Mapping[str, Iterable[Finding]],
        quiet: Collection[str] = (),
        unknown: Collection[str] = (),
    ) -> list[Alert]:
        """Take what is wrong at the time `now` (seconds, never falling), by robot.

        Return the alerts that are over, one for each robot.

        `quiet` are robots that are being changed on purpose: they raise no new alert meanwhile,
        and keep those whose cause lasts. Of `unknown` ones nothing has been heard yet: their
        alerts stay as they are.
        """
        self._forget_returns(now)
        seen: set[Key] = set()
        ended: list[Alert] = []
        for robot, findings in by_robot.items():
            for finding in findings:
                key = Key(robot, finding.cause, finding.subject)
                if robot in quiet and not self._is_raised(key):
                    continue
                seen.add(key)
                self._see(key, finding, now)
        for key, episode in list(self._episodes.items()):
            if key in seen:
                if not episode.raised and _is_due(episode, now):
                    _log.debug("alert %s is raised: %s", key, episode.finding.text)
                    episode.raised = True
                continue
            if key.robot in unknown:
                episode.last = now
                continue
            episode.present = False
            if now - episode.last >= (CALM_S if episode.returns >= FLAPS else CLEARED_AFTER_S):
                _log.debug("alert %s is over", key)
                if episode.raised:
                    ended.append(_single(str(key), key, episode))
                    self._over[key] = (episode.returns + 1, now)
                self._forget(key)
        if len(self._episodes) < MAX_EPISODES:
            self._full.discard("")
        return ended

    def forget_robot(self, robot: str) -> None:
        """Forget the alerts of a robot that has left the fleet: they are not over, but gone."""
        for key in [key for key in self._episodes if key.robot == robot]:
            self._forget(key)
        self._over = {key: value for key, value in self._over.items() if key.robot != robot}

    def _forget(self, key: Key) -> None:
        del self._episodes[key]
        self._counts[key.robot] -= 1
        if not self._counts[key.robot]:
            del self._counts[key.robot]
            self._full.discard(key.robot)

    def _forget_returns(self, now: float) -> None:
        while self._over:
            key, (_, ended_at) = next(iter(self._over.items()))
            if len(self._over) <= MAX_EPISODES and now - ended_at < RETURNS_WITHIN_S:
                break
            del self._over[key]

    def _is_raised(self, key: Key) -> bool:
        episode = self._episodes.get(key)
        return episode is not None and episode.raised

    def _see(self, key: Key, finding: Finding, now: float) -> None:
        episode = self._episodes.get(key)
        if episode is None:
            if len(self._episodes) >= MAX_EPISODES:
                self._leave_out("", f"more than {MAX_EPISODES} findings")
                return
            if self._counts[key.robot] >= MAX_OF_ROBOT:
                self._leave_out(key.robot, f"more than {MAX_OF_ROBOT} findings of `{key.robot}`")
                return
            self._counts[key.robot] += 1
            returns, _ = self._over.pop(key, (0, now))
            self._episodes[key] = Episode(finding, now, now, returns=returns)
            return
        if not episode.present:
            episode.returns += 1
        episode.finding, episode.last, episode.present = finding, now, True

    def _leave_out(self, robot: str, why: str) -> None:
        if robot not in self._full:
            _log.warning("%s: the rest is left out", why)
            self._full.add(robot)

    def alerts(self) -> list[Alert]:
        """Return all alerts, the worst first, then the newest."""
        groups: dict[tuple[str, str], dict[Key, Episode]] = {}
        for key, episode in self._episodes.items():
            if episode.raised:
                groups.setdefault((key.cause, key.subject), {})[key] = episode
        listed: list[Alert] = []
        for (cause, subject), members in groups.items():
            if len(members) >= FOLD:
                listed.append(_folded(f"*:{cause}:{subject}", members))
            else:
                listed += [_single(str(key), key, episode) for key, episode in members.items()]
        return sorted(
            listed, key=lambda each: (each.severity != "fail", -each.since, natural(each.id))
        )

    def ack(self, id_: str, who: str, at: float, *, undo: bool = False) -> Alert:
        """Record who has acknowledged an alert. Raises ControlError if there is no such alert."""
        for key in self._members(id_):
            episode = self._episodes[key]
            episode.acked_by, episode.acked_at = ("", None) if undo else (who, at)
        _log.debug("alert %s: acknowledged by %r, undo: %s", id_, who, undo)
        return self.find(id_)

    def stored_after_ack(
        self, id_: str, who: str, at: float, *, undo: bool = False
    ) -> dict[str, list[StoredAlert]]:
        """Return what `stored` has of the robots of an alert after `ack`. Raises as that."""
        members = set(self._members(id_))
        robots = {key.robot for key in members}
        stored = {robot: each for robot, each in self.stored().items() if robot in robots}
        for robot, alerts in stored.items():
            for each in alerts:
                if Key(robot, each.finding.cause, each.finding.subject) in members:
                    each.acked_by, each.acked_at = ("", None) if undo else (who, at)
        return stored

    def _members(self, id_: str) -> list[Key]:
        """Return the findings of an alert. Raises ControlError if there is no such alert."""
        self.find(id_)
        return [
            key
            for key, episode in self._episodes.items()
            if episode.raised and id_ in (str(key), f"*:{key.cause}:{key.subject}")
        ]

    def stored(self) -> dict[str, list[StoredAlert]]:
        """Return all alerts by robot, to be kept for the next server."""
        rows: dict[str, list[StoredAlert]] = {}
        for key, episode in self._episodes.items():
            if episode.raised:
                rows.setdefault(key.robot, []).append(
                    StoredAlert(
                        finding=episode.finding,
                        returns=episode.returns,
                        acked_by=episode.acked_by,
                        acked_at=episode.acked_at,
                    )
                )
        return rows

    def restore(self, now: float, stored: Mapping[str, Iterable[StoredAlert]]) -> None:
        """Take over the alerts of the previous server as seen now."""
        for robot, alerts in stored.items():
            for each in alerts:
                key = Key(robot, each.finding.cause, each.finding.subject)
                room = len(self._episodes) < MAX_EPISODES and self._counts[robot] < MAX_OF_ROBOT
                if room and key not in self._episodes:
                    self._counts[robot] += 1
                    self._episodes[key] = Episode(
                        finding=each.finding,
                        first=now,
                        last=now,
                        returns=each.returns,
                        raised=True,
                        acked_by=each.acked_by,
                        acked_at=each.acked_at,
                    )

    def find(self, id_: str) -> Alert:
        """Return an alert. Raises ControlError if there is none."""
        for alert in self.alerts():
            if alert.id == id_:
                return alert
        raise ControlError("not-found", f"there is no alert `{id_[:200]}`", "it may be over")


class PastAlertBook:
    """The last alerts of one server that are over."""

    def __init__(self, of_robot: int = MAX_PAST) -> None:
        """Keep at most `of_robot` alerts of one robot, so that one cannot push out all others."""
        self._alerts: deque[PastAlert] = deque(maxlen=MAX_PAST)
        self._of_robot = of_robot

    def add(self, ended: Iterable[Alert], at: float) -> None:
        """Add alerts of one robot each that are over at the time `at`, in seconds since 1970.

        One that was stored as over and as lasting ends again under the next server: it is moved.
        """
        for each in ended:
            own = [past for past in self._alerts if past.robots == each.robots]
            same = [past for past in own if (past.id, past.since) == (each.id, each.since)]
            if same or len(own) >= self._of_robot:
                self._alerts.remove((same or own)[0])
            self._alerts.append(PastAlert(**msgspec.structs.asdict(each), until=at))

    def forget_robot(self, robot: str) -> None:
        """Forget the alerts of a robot that has left the fleet."""
        for each in [each for each in self._alerts if each.robots == [robot]]:
            self._alerts.remove(each)

    def restore(self, alerts: Iterable[PastAlert]) -> None:
        """Take over those of the previous server, the newest first."""
        self._alerts.extendleft(islice(alerts, MAX_PAST - len(self._alerts)))

    def latest(self, limit: int) -> list[PastAlert]:
        """Return the last alerts, the newest first."""
        return [*islice(reversed(self._alerts), min(max(limit, 0), MAX_PAST))]


def _is_due(episode: Episode, now: float) -> bool:
    return episode.finding.event or now - episode.first >= RAISED_AFTER_S


def _single(id_: str, key: Key, episode: Episode) -> Alert:
    finding = episode.finding
    return Alert(
        id=id_,
        severity=finding.severity,
        text=finding.text,
        robots=[key.robot],
        count=1,
        since=finding.since,
        cause=finding.cause,
        dataflow=finding.dataflow,
        node=finding.node,
        flapping=episode.returns if episode.returns >= FLAPS else 0,
        acked_by=episode.acked_by,
        acked_at=episode.acked_at,
        hint=finding.hint,
    )


def _folded(id_: str, members: Mapping[Key, Episode]) -> Alert:
    keys = sorted(members, key=lambda each: natural(each.robot))
    first = min(members.values(), key=lambda each: each.finding.since)
    alert = _single(id_, keys[0], first)
    acked = [each for each in members.values() if each.acked_by]
    errors = {each.finding.error for each in members.values()}
    if not first.finding.error or len(errors) > 1:
        alert.text = first.finding.brief or alert.text
    alert.robots = [key.robot for key in keys[:MAX_NAMED]]
    alert.count = len(keys)
    alert.severity = (
        "fail" if any(e.finding.severity == "fail" for e in members.values()) else "warn"
    )
    returns = max(each.returns for each in members.values())
    alert.flapping = returns if returns >= FLAPS else 0
    everyone = len(acked) == len(members)
    alert.acked_by = acked[-1].acked_by if everyone else ""
    alert.acked_at = acked[-1].acked_at if everyone else None
    return alert
