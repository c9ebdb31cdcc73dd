"""The checks of `dorafleet doctor`, as functions of the coordinator's data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from dorad.commandline.tables import age
from dorad.phrases import first_of
from dorad.terminal import local_time
from dorafleet.cli.robots import findings_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dorad.control.messages import NodeInfo
    from dorafleet.coordinator.accessmessages import AuthorityStatus, Grant
    from dorafleet.coordinator.messages import AlertReceivers, Robot

SOON_S = 30 * 86400.0
"""Seconds before the end of a certificate or token from which on it is a problem."""

DROPPED_S = 86400.0
"""Seconds for which a notification that was dropped is a problem."""

LAST_S = 7 * 86400.0
"""Seconds before the end of a hand-over from which on it is a failure that robots lack it."""

MAX_NAMED = 10
"""Robots in one check."""

Level = Literal["PASS", "WARN", "FAIL"]


class Check(NamedTuple):
    """The result of one check."""

    level: Level
    name: str
    text: str
    hint: str | None = None
    since: float | None = None
    """Since when, if that is known."""


def check_questions(questions: Iterable[str]) -> Iterator[Check]:
    """Check whether an operator has to decide something, or to bring files of releases."""
    for question in questions:
        text, _, hint = question.partition("; ")
        yield Check("FAIL", "question", text, hint)


def check_authority(status: AuthorityStatus, robots: int, now: float) -> Iterator[Check]:
    """Check how far a hand-over of the fleet's authority is."""
    if status.ends is None:
        return
    name = "authority"
    if status.finished is not None:
        for robot in status.old:
            hint = f"an admin gives it a new certificate: `dorafleet enrol cluster.yml {robot}"
            text = f"{robot} was away during the hand-over to {status.next[:16]}"
            yield Check("FAIL", name, text, f"{hint} --again`")
        return
    if status.cancelled is not None:
        if status.trusting:
            text = f"{first_of(status.trusting, MAX_NAMED)} still trust {status.next[:16]}, "
            text += "whose hand-over was cancelled"
            yield Check("WARN", name, text, "they are told once they are connected")
        return
    until = local_time(status.ends, "%Y-%m-%d")
    text = f"hands over to {status.next[:16]} until {until}: "
    if status.old or status.operators:
        old = [*status.old, *(f"operator {each}" for each in status.operators)]
        text += f"{first_of(old, MAX_NAMED)} have no certificate of it yet"
        hint = "robots get one when they connect, operators with `dorafleet operator add`"
        level: Level = "WARN" if status.ends - now > LAST_S else "FAIL"
        yield Check(level, name, text, hint)
    else:
        text += f"all of {robots} robots have a certificate of it"
        yield Check("WARN", name, text, "`dorafleet authority finish` ends it")


def check_robots(robots: Sequence[Robot]) -> Iterator[Check]:
    """Check whether each robot is connected, and nothing is wrong with it."""
    well = sum(robot.state == "connected" for robot in robots)
    level: Level = "PASS" if well == len(robots) else "FAIL"
    yield Check(level, "robots", f"{well} of {len(robots)} connected")
    for robot in robots:
        for each in findings_of(robot):
            level = "FAIL" if each.severity == "fail" else "WARN"
            yield Check(level, robot.id, words_of(each), each.hint or None, each.since or None)


def check_versions(robots: Iterable[Robot], version: str) -> Iterator[Check]:
    """Check whether the robots have the version of the coordinator."""
    seen = [robot for robot in robots if robot.version]
    others = [robot for robot in seen if robot.version != version]
    if seen and not others:
        yield Check("PASS", "versions", f"all have {version}")
    for robot in others:
        hint = "install the same version with `dorafleet install`"
        text = f"has {robot.version}, the coordinator {version}"
        yield Check("WARN", robot.id, text, hint)


def check_receivers(listed: AlertReceivers, now: float) -> Iterator[Check]:
    """Check whether alerts reach the webhook and the mail server."""
    from dorafleet.console.view.alertrows import receiver_trouble

    if listed.problem:
        text = f"the old configuration is in use: {listed.problem}"
        yield Check("FAIL", "alerts", text, "mend it, then `systemctl reload dorafleet`")
    for each in listed.receivers:
        name = f"alerts by {each.name}"
        hint = "see [alerts] in `dorafleet.toml`; `dorafleet alerts --test` tries it again"
        if each.failing_since is None and not each.stored:
            hint = "is the disk of the coordinator full?"
        if trouble := receiver_trouble(each, now):
            yield Check("FAIL", name, trouble, hint)
        else:
            waiting = f"; {each.waiting} wait" if each.waiting else ""
            yield Check("PASS", name, f"go to {each.place}{waiting}")
        if each.dropped_at is not None and now - each.dropped_at < DROPPED_S:
            since = age(max(now - each.dropped_at, 0.0))
            text = f"{each.dropped} were dropped, the last one {since} ago: {each.why}"
            yield Check("WARN", name, text, "`dorafleet alerts --past` lists what is over")


def check_nodes(nodes: Iterable[NodeInfo]) -> Iterator[Check]:
    """Check for nodes that no machine takes."""
    for info in nodes:
        if info.status == "pending":
            dataflow = info.dataflow_name or info.dataflow
            hint = f"`dorafleet explain` says why; `dora node list -d {dataflow}` lists its nodes"
            yield Check("WARN", f"{dataflow}/{info.node}", f"pending: {info.reason}", hint)


def check_grants(grants: Sequence[Grant], robots: Iterable[Robot], now: float) -> Iterator[Check]:
    """Check for certificates and tokens that have ended, or will soon."""
    known = {robot.id for robot in robots}
    for grant in grants:
        name = f"{grant.kind} {grant.name}"
        again = {
            "robot": f"`dorafleet enrol cluster.yml {grant.name} --again`",
            "operator": f"`dorafleet operator add {grant.name}`",
            "token": f"`dorafleet token create {grant.name}`",
        }[grant.kind]
        if grant.revoked:
            if grant.kind == "robot" and grant.name in known:
                yield Check("WARN", name, "is revoked", f"{again} lets it in again")
        elif grant.expires <= now:
            yield Check("FAIL", name, f"ended {age(now - grant.expires)} ago", f"renew: {again}")
        elif grant.expires - now < SOON_S:
            left = age(grant.expires - now)
            yield Check("WARN", name, f"ends in {left}", f"renew: {again}")
