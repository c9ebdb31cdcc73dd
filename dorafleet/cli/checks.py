"""The checks of `dorafleet doctor`, as functions of the coordinator's data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from dorad.cli.tables import age
from dorad.phrases import first_of
from dorad.terminal import local_time
from dorafleet.cli.robots import MAX_SKEW_S, links_down, release_trouble, skew_text
from dorafleet.coordinator.messages import CLOCK_WARNING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dorad.control.messages import NodeInfo
    from dorad.control.messages.agent import ShareState
    from dorafleet.coordinator.accessmessages import AuthorityStatus, Grant
    from dorafleet.coordinator.messages import AlertReceivers, Robot
    from dorafleet.coordinator.secretmessages import Secret

SOON_S = 30 * 86400.0
"""Seconds before the end of a certificate or token from which on it is a problem."""

DROPPED_S = 86400.0
"""Seconds for which a notification that was dropped is a problem."""

START_S = 10.0
"""Seconds after which a start without links is a problem."""

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


def check_secrets(secrets: Iterable[Secret]) -> Iterator[Check]:
    """Check whether each robot has its secrets."""
    count = 0
    for secret in secrets:
        count += 1
        for each in secret.robots:
            if each.state in ("held", "waiting"):
                continue
            hint = f"`dorafleet secret set {secret.name} --for {each.robot}`"
            if each.state == "unknown":
                hint += f", or `dorafleet secret remove {secret.name}`"
            reason = f": {each.reason}" if each.reason else ""
            level: Level = "WARN" if each.state == "unknown" else "FAIL"
            yield Check(level, each.robot, f"secret {secret.name} is {each.state}{reason}", hint)
        for each in secret.robots:
            for node in each.old_nodes:
                hint = f"`dora node restart {node.rpartition('/')[2]}` gives it the new one"
                text = f"node {node} runs with the value before of secret {secret.name}"
                yield Check("WARN", each.robot, text, hint)
    if count:
        yield Check("PASS", "secrets", f"{count} are set" if count > 1 else "1 is set")


def check_questions(questions: Iterable[str]) -> Iterator[Check]:
    """Check whether an operator has to decide something after a restore."""
    for question in questions:
        text, _, hint = question.partition("; ")
        yield Check("FAIL", "restore", text, hint)


def check_authority(found: AuthorityStatus, robots: int, now: float) -> Iterator[Check]:
    """Check how far a hand-over of the fleet's authority is."""
    if found.ends is None:
        return
    name = "authority"
    if found.finished is not None:
        for robot in found.old:
            hint = f"an admin gives it a new certificate: `dorafleet enrol cluster.yml {robot}"
            text = f"{robot} was away during the hand-over to {found.next[:16]}"
            yield Check("FAIL", name, text, f"{hint} --again`")
        return
    until = local_time(found.ends, "%Y-%m-%d")
    text = f"hands over to {found.next[:16]} until {until}: "
    if found.old or found.operators:
        old = [*found.old, *(f"operator {each}" for each in found.operators)]
        text += f"{first_of(old, MAX_NAMED)} have no certificate of it yet"
        hint = "robots get one when they connect, operators with `dorafleet operator add`"
        level: Level = "WARN" if found.ends - now > LAST_S else "FAIL"
        yield Check(level, name, text, hint)
    else:
        text += f"all of {robots} robots have a certificate of it"
        yield Check("WARN", name, text, "`dorafleet authority finish` ends it")


def check_robots(robots: Sequence[Robot]) -> Iterator[Check]:
    """Check whether each robot is connected, obeys, and has a right clock."""
    well = sum(robot.state == "connected" for robot in robots)
    level: Level = "PASS" if well == len(robots) else "FAIL"
    yield Check(level, "robots", f"{well} of {len(robots)} connected")
    for robot in robots:
        yield from _check_robot(robot)


def _check_robot(robot: Robot) -> Iterator[Check]:
    name = robot.id
    why = f": {robot.reason}" if robot.reason else ""
    match robot.state:
        case "never-seen":
            hint = "enrol it with `dorafleet enrol cluster.yml " + f"{name}`"
            yield Check("FAIL", name, f"has never connected{why}", hint)
        case "unreachable":
            seen = "" if robot.age is None else f", last seen {age(robot.age)} ago"
            hint = (
                f"is it on, and is its network up? `{_ssh(robot)} systemctl status dorad-agent`; "
            )
            hint += f"if it was installed again: `dorafleet provision cluster.yml {name}`"
            yield Check("FAIL", name, f"unreachable{seen}{why}", hint)
        case "refused" if robot.outranked:
            hint = (
                f"if no other coordinator leads its fleet: `dorafleet takeover {name}` lets it "
                "obey this one"
            )
            yield Check("FAIL", name, f"does not obey{why}", hint)
        case "refused":
            command = f"`dorafleet enrol cluster.yml {name} --again`"
            hint = f"an admin gives it a new certificate: {command}"
            yield Check("FAIL", name, f"was refused{why}", hint)
        case "conflict-paused":
            hint = f"choose: `dorafleet adopt {name}`, or `dorafleet resume {name}`"
            newer = ", ".join(sorted(robot.conflicts))
            yield Check("FAIL", name, f"has something newer than the store: {newer}", hint)
        case "connected" if robot.reason:
            hint = f"`{_ssh(robot)} systemctl status dorad dorad-agent` shows what runs there"
            yield Check("FAIL", name, f"nothing can be started there{why}", hint)
    if robot.clone:
        hint = "disk images must not contain /var/lib/dorad-agent: enrol each robot by itself"
        yield Check("FAIL", name, robot.clone, hint)
    if robot.age is not None and abs(robot.skew) > MAX_SKEW_S:
        ahead = "ahead of" if robot.skew > 0 else "behind"
        span = skew_text(robot.skew).lstrip("+-")
        hint = "set up time synchronisation there: `timedatectl set-ntp true`"
        yield Check("WARN", name, f"its clock is {span} {ahead} the coordinator's", hint)
    for warning in robot.warnings:
        if not warning.startswith(CLOCK_WARNING):
            hint = f"`{_ssh(robot)} journalctl -u dorad-agent` shows what its agent does"
            yield Check("WARN", name, warning, hint)
    if robot.audit:
        hint = (
            "was the store restored, copied or tampered with? If you know why: `dorafleet audit "
            f"acknowledge {name}`"
        )
        yield Check("FAIL", name, f"the audit differs from what it knows: {robot.audit}", hint)
    for owner in robot.revoked:
        kind, _, who = owner.partition(" ")
        again = f"`dorafleet revoke --{kind} {who}`"
        if kind == "robot":
            again += f", then `dorafleet enrol cluster.yml {who}` if it is still yours"
        hint = f"{again}; or let it be valid again: `dorafleet audit acknowledge {name}`"
        text = f"{owner} was revoked, as it knows, and the store does not"
        yield Check("FAIL", name, text, hint)


def _ssh(robot: Robot) -> str:
    """Return the command that logs in to a robot as the cluster file says."""
    port = "" if robot.port is None else f"-p {robot.port} "
    return f"ssh {port}{robot.host if robot.user is None else f'{robot.user}@{robot.host}'}"


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


def check_shares(robots: Iterable[Robot], now: float) -> Iterator[Check]:
    """Check the dataflows on each robot, and their links to other robots."""
    robots = list(robots)
    ended = {
        (robot.id, share.dataflow): share.status
        for robot in robots
        for share in robot.shares
        if share.status in ("stopped", "finished", "failed")
    }
    for robot in robots:
        if robot.state != "connected":
            continue
        for share in robot.shares:
            name = f"{robot.id}/{share.dataflow}"
            if share.status in ("failed", "pending"):
                level: Level = "FAIL" if share.status == "failed" else "WARN"
                why = f": {share.reason}" if share.reason else ""
                hint = f"see `dora logs {share.dataflow}`"
                yield Check(level, name, f"{share.status}{why}", hint)
            lasted = now + robot.skew - share.since
            if share.status == "running" or (share.status == "starting" and lasted > START_S):
                yield from _check_links(name, share, ended)
        for release in robot.releases:
            if trouble := release_trouble(release):
                name = f"{robot.id}/{release.dataflow}"
                hint = f"`dorafleet drift` names the way back; see `dora logs {release.dataflow}`"
                yield Check("FAIL", name, trouble, hint)


def _check_links(
    name: str, share: ShareState, ended: Mapping[tuple[str, str], str]
) -> Iterator[Check]:
    for machine, reason in links_down(share).items():
        hint = "see firewalls, and `zenoh_addr` or `zenoh_peer` in cluster.yml"
        if (machine, share.dataflow) in ended:
            status = ended[machine, share.dataflow]
            hint = f"its part on {machine} is {status}: see `dora logs {share.dataflow}`"
        if share.status == "starting":
            yield Check("WARN", name, f"starting, no link to {machine} yet: {reason}", hint)
        else:
            yield Check("FAIL", name, f"no link to {machine}: {reason}", hint)


def check_receivers(found: AlertReceivers, now: float) -> Iterator[Check]:
    """Check whether alerts reach the webhook and the mail server."""
    from dorafleet.console.view.alertrows import receiver_trouble

    if found.problem:
        text = f"the old configuration is in use: {found.problem}"
        yield Check("FAIL", "alerts", text, "mend it, then `systemctl reload dorafleet`")
    for each in found.receivers:
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
