"""What is wrong with a robot, and the next step. Pure functions.

Everything that shows it, counts it or waits for it takes it from here: `status`, `doctor`, `drift`,
rows, alerts and placement.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec.structs import replace

from dorad.control.messages import Finding, Severity
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import ReleaseState
from dorad.control.nextsteps import next_step
from dorafleet.coordinator.messages import RobotStatus
from dorafleet.coordinator.probe import Skew
from dorafleet.coordinator.secretmessages import RobotSecret

MAX_TEXT = 300
"""Characters of a text that a robot sends."""
MAX_FINDINGS = 50
"""Findings that a robot may send."""
MAX_ALL = 2 * MAX_FINDINGS
"""Findings of one robot, those of the coordinator included."""

SKEW_S = 10.0
"""A clock that is further off is reported."""
START_S = 10.0
"""Seconds after which a start without links is reported."""

DEAD = ("node-failed", "node-ended")
"""Causes of findings about nodes that do not run."""

OVER = ("stopped", "finished", "failed")
"""States of a share that does not run."""

_UNITS = ((86400, "days"), (3600, "h"), (60, "min"))


class RobotFacts(NamedTuple):
    """The coordinator's knowledge of a robot, besides what the robot's daemon finds."""

    robot: str
    login: str = "ssh"
    """The command that logs in to it."""
    state: RobotStatus = "connected"
    reason: str = ""
    """Why it is not connected."""
    daemon: str = ""
    """Why its dorad cannot be used."""
    away_since: float | None = None
    """In seconds since 1970."""
    outranked: bool = False
    """Whether it obeys another term."""
    conflicts: Mapping[str, str] = MappingProxyType({})
    clone: str = ""
    """Which other machine has its id and certificate."""
    audit: str = ""
    """How the audit contradicts the one that it knows."""
    lost: Sequence[str] = ()
    """Who was revoked, as it knows and the store does not."""
    hand_over: str = ""
    """What it lacks in a hand-over of the fleet's authority."""
    skew: Skew | None = None
    read_late: bool = False
    """Whether it sends more than the coordinator reads of one robot."""
    unasked: int = 0
    """Connections for files that were refused, because no transfer had asked for them."""
    undelivered: Mapping[str, str] = MappingProxyType({})
    strange: Mapping[str, str] = MappingProxyType({})
    """What it reports of orders that nobody gave, by dataflow."""
    reported: Sequence[str] = ()
    """Warnings of its agent."""
    shares: Sequence[ShareState] = ()
    releases: Sequence[ReleaseState] = ()
    secrets: Sequence[tuple[str, RobotSecret]] = ()
    """Those that it does not have as it should, by name."""
    parts: Mapping[tuple[str, str], str] = MappingProxyType({})
    """Why parts of its dataflows do not run elsewhere, by machine and dataflow."""

    @property
    def is_connected(self) -> bool:
        """Whether it can be asked and told."""
        return self.state in ("connected", "conflict-paused")

    @property
    def ahead(self) -> float:
        """Seconds by which its clock is ahead."""
        return 0.0 if self.skew is None else self.skew.seconds


def findings_of(own: Iterable[Finding], facts: RobotFacts, now: float) -> list[Finding]:
    """Return what is wrong with a robot at the time `now`, failures first.

    `own` are the findings of its daemon. Without contact nothing is known of what runs there.
    """
    findings = [*blocking(facts, now), *_of_identity(facts, now), *_of_secrets(facts, now)]
    if facts.is_connected:
        running = {
            # Never a next step that a robot sends: people paste its commands.
            (each.cause, each.subject): replace(
                each, hint=next_step(each, robot=facts.robot, login=facts.login)
            )
            for each in own
        }
        for each in (*_of_shares(facts, running, now), *_of_releases(facts)):
            known = running.get((each.cause, each.subject))
            # The daemon knows how it ended, the agent that it should run.
            running[each.cause, each.subject] = (
                each if known is None else replace(known, severity=each.severity, hint=each.hint)
            )
        findings += running.values()
        findings += _of_agent(facts, [each.text for each in running.values()], now)
    findings.sort(key=lambda each: each.severity != "fail")
    if len(findings) > MAX_ALL:
        text = f"{len(findings) - MAX_ALL + 1} more problems are not shown"
        findings[MAX_ALL - 1 :] = [_finding("more", "robot", text, "warn", now, "mend the others")]
    return findings


def blocking(facts: RobotFacts, now: float) -> Iterator[Finding]:
    """Yield why nothing can be started on a robot; nothing if it can be used."""
    since = now if facts.away_since is None else facts.away_since
    name, why = facts.robot, f": {facts.reason}" if facts.reason else ""
    match facts.state:
        case "never-seen":
            hint = f"enrol it with `dorafleet enrol cluster.yml {name}`"
            yield _finding(
                "never-connected", "robot", "it has never connected", "fail", since, hint
            )
        case "unreachable":
            hint = (
                f"is it on, and is its network up? `{facts.login} systemctl status dorad-agent`; "
                f"if it was installed again: `dorafleet provision cluster.yml {name}`"
            )
            yield _finding("unreachable", "robot", f"it is unreachable{why}", "fail", since, hint)
        case "refused":
            hint = (
                f"an admin gives it a new certificate: `dorafleet enrol cluster.yml {name} --again`"
            )
            if facts.outranked:
                hint = (
                    f"if no other coordinator leads its fleet: `dorafleet takeover {name}` lets it "
                    "obey this one"
                )
            yield _finding("unreachable", "robot", f"it is refused{why}", "fail", since, hint)
    if not facts.is_connected:
        return
    for dataflow, reason in facts.conflicts.items():
        hint = f"choose: `dorafleet adopt {name}`, or `dorafleet resume {name}`"
        text = conflict_text(dataflow, reason)
        yield _finding("conflict", dataflow, text, "fail", now, hint)
    if facts.daemon:
        hint = f"`{facts.login} systemctl status dorad dorad-agent` shows what runs there"
        text = f"its dorad cannot be used: {facts.daemon}"
        yield _finding("daemon-away", "dorad", text, "fail", now, hint)


def _of_identity(facts: RobotFacts, now: float) -> Iterator[Finding]:
    """Yield contradictions between a robot and its coordinator: who it is, what it remembers."""
    again = f"`dorafleet audit acknowledge {facts.robot}`"
    if facts.clone:
        hint = "disk images must not contain /var/lib/dorad-agent: enrol each robot by itself"
        yield _finding("clone", "robot", facts.clone, "fail", now, hint)
    if facts.audit:
        hint = f"was the store restored, copied or tampered with? If you know why: {again}"
        text = f"the audit differs from what it knows: {facts.audit}"
        yield _finding("audit", "audit", text, "fail", now, hint)
    for owner in facts.lost:
        kind, _, who = owner.partition(" ")
        hint = f"`dorafleet revoke --{kind} {shlex.quote(who)}`"
        if kind == "robot":
            hint += f", then `dorafleet enrol cluster.yml {shlex.quote(who)}` if it is still yours"
        text = f"{owner} was revoked, as it knows, and the store does not"
        hint += f"; or let it be valid again: {again}"
        yield _finding("revocation", owner, text, "fail", now, hint)
    if facts.hand_over:
        hint = "`dorafleet authority status` shows how far the hand-over is"
        yield _finding("authority", "authority", facts.hand_over, "warn", now, hint)


def _of_secrets(facts: RobotFacts, now: float) -> Iterator[Finding]:
    for name, secret in facts.secrets:
        if secret.state in ("held", "waiting"):
            continue
        hint = f"`dorafleet secret set {name} --for {facts.robot}`"
        if secret.state == "unknown":
            hint += f", or `dorafleet secret remove {name}`"
        severity: Severity = "warn" if secret.state == "unknown" else "fail"
        yield _finding("secret", name, secret_text(name, secret), severity, now, hint)


def _of_shares(
    facts: RobotFacts, known: Iterable[tuple[str, str]], now: float
) -> Iterator[Finding]:
    """Yield what is wrong with the parts that a robot has of dataflows, and with their links."""
    subjects = {subject for _, subject in known}
    for share in facts.shares:
        name, since = share.dataflow, share.since - facts.ahead
        hint = f"see `dora logs {shlex.quote(name)}`"
        if share.status in ("failed", "pending") and name not in subjects:
            yield _finding(
                f"dataflow-{share.status}",
                name,
                share_text(share),
                "fail" if share.status == "failed" else "warn",
                since,
                hint,
                name,
                event=share.status == "failed",
            )
        if share.status == "running" or (share.status == "starting" and now - since > START_S):
            yield from _of_links(facts, share, now)


def _of_links(facts: RobotFacts, share: ShareState, now: float) -> Iterator[Finding]:
    name, yet = share.dataflow, " yet" if share.status == "starting" else ""
    for machine, reason in links_down(share).items():
        hint = "see firewalls, and `zenoh_addr` or `zenoh_peer` in cluster.yml"
        part = facts.parts.get((machine, name), "")
        if part:
            hint = f"its part on {machine} is {part}: see `dora logs {shlex.quote(name)}`"
        text = f"dataflow {name} has no link to {machine}{yet}: {reason}"
        # What has ended at the other end is a failure there.
        severity: Severity = "warn" if yet or part else "fail"
        yield _finding("link-down", f"{name}/{machine}", text, severity, now, hint, name)


def _of_releases(facts: RobotFacts) -> Iterator[Finding]:
    """Yield how dataflows from releases do not run as they were confirmed."""
    for state in facts.releases:
        name, since = state.dataflow, state.since - facts.ahead
        hint = f"`dorafleet drift` names the way back; see `dora logs {facts.robot}/{name}`"
        if text := release_text(state):
            cause = "release-" + ("ended" if state.phase == "confirmed" else state.phase)
            yield _finding(cause, name, text, "fail", since, hint, name)
        elif state.phase == "confirmed":
            for cause, nodes in zip(DEAD, (state.failed, state.ended), strict=True):
                for node, how in nodes.items():
                    text = node_text(node, how)
                    subject = f"{name}/{node}"
                    yield _finding(cause, subject, text, "fail", since, hint, name, node)


def _of_agent(facts: RobotFacts, known: Sequence[str], now: float) -> Iterator[Finding]:
    """Yield warnings about the robot itself, but not those that its daemon has `known` already."""
    hint = f"`{facts.login} journalctl -u dorad-agent` shows what its agent does"
    if facts.read_late:
        text = "it sends more than the coordinator takes of one robot, and is read late"
        yield _finding("read-late", "robot", text, "warn", now, hint)
    if facts.unasked:
        text = f"it opened {facts.unasked} connections for files that no transfer had asked for"
        yield _finding("unasked-files", "robot", text, "warn", now, hint)
    for name, reason in sorted(facts.undelivered.items()):
        text = f"the order for `{name}` is not stored there, trying again: {reason}"
        yield _finding("order-not-stored", name, text, "warn", now, hint, name)
    for name, what in sorted(facts.strange.items()):
        text = strange_text(name, what)
        yield _finding("order-unknown", name, text, "fail", now, strange_hint(facts.robot), name)
    if facts.skew is not None and facts.skew.beyond(SKEW_S):
        text = f"its clock is {_span(abs(facts.ahead))} {'ahead' if facts.ahead > 0 else 'behind'}"
        time_hint = f"set up time synchronisation: `{facts.login} timedatectl set-ntp true`"
        clock = _finding("clock", "clock", text, "warn", now, time_hint)
        yield replace(clock, brief="its clock is wrong")
    for text in facts.reported:
        if _without_figures(text) not in map(_without_figures, known):
            yield _finding("agent-warning", _without_figures(text), text, "warn", now, hint)


def strange_text(dataflow: str, what: str) -> str:
    """Return that a robot reports an order that nobody gave."""
    return f"it reports an order for `{dataflow}` that nobody gave, and follows no other: {what}"


def strange_hint(robot: str) -> str:
    """Return the way back to orders that were given."""
    return (
        "restart the coordinator and roll the release out again: orders of its new term are "
        f"obeyed; if it comes back: `dorafleet robot remove {robot} --lost`, then enrol it again"
    )


def conflict_text(dataflow: str, reason: str) -> str:
    """Return that a robot has something newer than the store."""
    return f"it is paused because of `{dataflow}`: {reason}"


def secret_text(name: str, secret: RobotSecret) -> str:
    """Return how a robot has a secret."""
    return f"secret {name} is {secret.state}" + (f": {secret.reason}" if secret.reason else "")


def share_text(share: ShareState) -> str:
    """Return why a robot's part of a dataflow does not run."""
    if share.status == "failed":
        return f"dataflow {share.dataflow}: {share.reason or 'it failed'}"
    why = f": {share.reason}" if share.reason else ""
    return f"dataflow {share.dataflow} is {share.status}{why}"


def release_text(state: ReleaseState) -> str:
    """Return why a dataflow does not run as it was confirmed; empty if at most nodes do not."""
    if state.phase == "stuck":
        return f"dataflow {state.dataflow} is stuck: {state.reason}"
    if state.phase == "reverted":
        return f"dataflow {state.dataflow} went back to what it ran before: {state.reason}"
    # In other phases it may have been stopped for a switch; without a reason it is not to run.
    if state.phase == "confirmed" and not state.running and state.reason:
        return f"dataflow {state.dataflow} does not run: {state.reason}"
    return ""


def node_text(node: str, how: str) -> str:
    """Return how a node of a release has ended."""
    return f"node {node} {how}"


def links_down(share: ShareState) -> dict[str, str]:
    """Return the machines to which a share has no link, each with the reason."""
    return {
        name: peer.reason or peer.state
        for name, peer in sorted(share.links.items())
        if peer.state != "up"
    }


def _without_figures(text: str) -> str:
    return re.sub(r"[0-9.]+", "", text)[:MAX_TEXT]


def _span(seconds: float) -> str:
    """Return a time span in one unit, of which it has at least two."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _finding(
    cause: str,
    subject: str,
    text: str,
    severity: Severity,
    since: float,
    hint: str,
    dataflow: str | None = None,
    node: str | None = None,
    *,
    event: bool = False,
) -> Finding:
    return Finding(
        cause=cause,
        subject=subject[:MAX_TEXT],
        text=text[:MAX_TEXT],
        severity=severity,
        since=since,
        dataflow=dataflow,
        node=node,
        event=event,
        hint=hint,
    )
