"""This machine in one row, with what is wrong on it. Functions of what is measured."""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.messages import Finding, FleetRow
from dorad.daemon.measuring.silence import silences
from dorad.daemon.measuring.troubles import sentences
from dorad.daemon.rules.exits import CLEAN_EXIT, ORDERED
from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence

    from dorad.control.messages import DataflowState, EdgeStats, NodeInfo
    from dorad.daemon.measuring.troubles import Troubles
    from dorad.diskspace import LowDisk

CRASH_WINDOW_S = 60.0
"""Seconds that a restarted node is reported."""
CRASHES = 3
"""Restarts within that time that are a failure; fewer are a warning."""
MAX_FINDINGS = 50
"""Findings of one robot; the worst are kept."""
MAX_TEXT = 300

DISK_FULL = "disk-full"
"""The cause of a finding about a disk that gets full."""
NODE_ENDED = "node-ended"
"""The cause of a finding about a node that should run, but has ended well."""
VALUE_BEFORE = "old-secret"
"""The cause of a finding about a node with a value of a secret that has changed since its start."""

_RUNS = ("running", "degraded")


class Crash(NamedTuple):
    """A process of a node that ended by itself, and was restarted."""

    at: float
    """In seconds since 1970."""
    exit: str
    """How it ended, in words that follow the node's name."""


class CrashHistory:
    """When nodes were restarted lately without a command."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}
        self._crashes: dict[tuple[str, str], deque[Crash]] = {}

    def add(self, now: float, nodes: Iterable[NodeInfo]) -> None:
        """Take the restart counters at the time `now`, in seconds since 1970."""
        known: dict[tuple[str, str], int] = {}
        for info in nodes:
            key = (info.dataflow, info.node)
            known[key] = info.restarts
            crashes = self._crashes.setdefault(key, deque(maxlen=100))
            if info.last_exit not in ORDERED:
                new = min(info.restarts - self._known.get(key, info.restarts), 100)
                crashes.extend([Crash(now, info.last_exit or "")] * new)
            while crashes and now - crashes[0].at > CRASH_WINDOW_S:
                crashes.popleft()
        self._known = known
        self._crashes = {key: found for key, found in self._crashes.items() if key in known}

    def of(self, info: NodeInfo) -> Sequence[Crash]:
        """Return a node's crashes within the last minute, oldest first."""
        return self._crashes.get((info.dataflow, info.node), ())


def findings(
    now: float,
    nodes: Sequence[NodeInfo],
    edges: Sequence[EdgeStats],
    ended: Iterable[tuple[DataflowState, float]],
    crashes: CrashHistory,
    problem: str,
    troubles: Mapping[str, Troubles] = MappingProxyType({}),
    disks: Iterable[LowDisk] = (),
) -> list[Finding]:
    """Return what is wrong, the worst first.

    `ended` are dataflows that have ended last under their name, with the time of their end;
    `problem` is why nodes cannot be started; `troubles` are by the UUID of their dataflow.
    """
    found: list[Finding] = []
    if problem:
        found.append(_finding("daemon-problem", "dorad", problem, "fail", now))
    found += [_finding(DISK_FULL, each.folder, each.text, each.severity, now) for each in disks]
    for state, at in ended:
        if state.status == "failed":
            title = state.name or state.uuid
            why = state.failures[0].headline if state.failures else "it failed"
            text = f"dataflow {title}: {why}"
            found.append(_finding("dataflow-failed", title, text, "fail", at, title, event=True))
    for info in nodes:
        found += _of_node(now, info, crashes.of(info))
        if info.old_secrets:
            found.append(_of_secrets(now, info))
    found += _left_behind(now, nodes, edges)
    found += _of_inputs(now, nodes, edges, blamed={each.subject for each in found})
    blamed = {(each.dataflow, each.node) for each in found}
    found += _of_troubles(now, nodes, edges, troubles, blamed)
    found.sort(key=lambda each: each.severity != "fail")
    return found[:MAX_FINDINGS]


def _of_node(now: float, info: NodeInfo, crashes: Sequence[Crash]) -> list[Finding]:
    title = info.dataflow_name or info.dataflow
    subject = f"{title}/{info.node}"
    exited = f" ({info.last_exit})" if info.last_exit else ""
    what = (title, info.node)
    if info.status == "failed":
        text = f"node {info.node} failed{exited}"
        return [_finding("node-failed", subject, text, "fail", now, *what, event=True)]
    waits = info.pid is None and info.status in ("restarting", "starting")
    unwell = info.last_exit not in (None, CLEAN_EXIT, *ORDERED)
    if waits and unwell and not crashes:
        # It counts as restarted only when its next process starts, maybe minutes later.
        text = f"node {info.node} failed{exited} and waits for its restart"
        return [_finding("node-restarts", subject, text, "warn", now, *what, event=True)]
    # A process that ends well is started again at once by some policies: it is only too often
    # that this is wrong.
    clean = bool(crashes) and crashes[-1].exit == CLEAN_EXIT
    if not crashes or (clean and len(crashes) < CRASHES):
        return []
    often = "once" if len(crashes) == 1 else f"{len(crashes)} times"
    last = f" ({crashes[-1].exit})" if crashes[-1].exit else ""
    text = (
        f"node {info.node} {'ended' if clean else 'failed'} {often} in {CRASH_WINDOW_S:g} s{last}"
    )
    severity = "fail" if len(crashes) >= CRASHES else "warn"
    return [_finding("node-restarts", subject, text, severity, crashes[0].at, *what, event=True)]


def _of_secrets(now: float, info: NodeInfo) -> Finding:
    """Return that a node runs with values of secrets that have changed since its start."""
    title = info.dataflow_name or info.dataflow
    word = "secret" if len(info.old_secrets) == 1 else "secrets"
    text = f"node {info.node} runs with the value before of {word} {', '.join(info.old_secrets)}"
    return _finding(VALUE_BEFORE, f"{title}/{info.node}", text, "warn", now, title, info.node)


def _left_behind(
    now: float, nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats]
) -> list[Finding]:
    """Return the nodes that have ended well although their sources run, or run again."""
    known = {(info.dataflow, info.node): info for info in nodes}
    sources: dict[tuple[str, str], list[NodeInfo | None]] = {}
    for edge in edges:
        key = (edge.dataflow, edge.target.partition("/")[0])
        feeds = known.get((edge.dataflow, edge.source.partition("/")[0]))
        if key in known and known[key].status == "stopped":
            sources.setdefault(key, []).append(feeds)
    found: list[Finding] = []
    for key, feeding in sources.items():
        info = known[key]
        again = next((each.node for each in feeding if each and _runs_again(each)), None)
        if info.ended_by == "inputs" and again is not None:
            text = f"node {info.node} ended with its source {again}, which runs again"
        elif info.ended_by is None and not info.dynamic and all(map(_runs_here, feeding)):
            text = f"node {info.node} has ended, its sources run on"
        else:
            continue
        title = info.dataflow_name or info.dataflow
        what = (title, info.node)
        found.append(_finding(NODE_ENDED, f"{title}/{info.node}", text, "warn", now, *what))
    return found


def _runs_here(source: NodeInfo | None) -> bool:
    """Return True if a node runs. The link process runs longer than nodes of other machines."""
    return source is not None and source.node != LINK and source.status in _RUNS


def _runs_again(source: NodeInfo) -> bool:
    """Return True if a node has ended, and sends again.

    One that sends no more may run on, to store what it has found. The link process runs longer than
    the nodes of other machines.
    """
    if source.node == LINK:
        return False
    if source.dynamic:
        return source.pid is not None
    return source.restarts > 0 and source.status in _RUNS


def _of_inputs(
    now: float, nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats], blamed: Container[str]
) -> list[Finding]:
    """Return the outputs that are silent; not of nodes that are findings themselves."""
    titles = {info.dataflow: info.dataflow_name or info.dataflow for info in nodes}
    found: list[Finding] = []
    for each in silences(nodes, edges):
        title = titles[each.dataflow]
        if f"{title}/{each.node}" not in blamed:
            subject = f"{title}/{each.output}"
            found.append(
                _finding("input-broken", subject, each.text, "warn", now, title, each.node)
            )
    return found


def _of_troubles(
    now: float,
    nodes: Iterable[NodeInfo],
    edges: Iterable[EdgeStats],
    troubles: Mapping[str, Troubles],
    blamed: Collection[tuple[str | None, str | None]],
) -> list[Finding]:
    """Return what is wrong with nodes that are no findings yet."""
    titles = {info.dataflow: info.dataflow_name or info.dataflow for info in nodes}
    found: list[Finding] = []
    for uuid, each in troubles.items():
        if not any(each):
            continue
        title = titles.get(uuid, uuid)
        own = [edge for edge in edges if edge.dataflow == uuid]
        known = [node for dataflow, node in blamed if dataflow == title and node]
        for cause, node, text, brief in sentences(each, own, known):
            new = _finding(cause, f"{title}/{node}", text, "warn", now, title, node)
            new.brief = brief[:MAX_TEXT]
            found.append(new)
    return found


def _finding(
    cause: str,
    subject: str,
    text: str,
    severity: str,
    since: float,
    dataflow: str | None = None,
    node: str | None = None,
    *,
    event: bool = False,
) -> Finding:
    return Finding(
        cause=cause,
        subject=subject,
        text=text[:MAX_TEXT],
        severity="fail" if severity == "fail" else "warn",
        since=since,
        dataflow=dataflow,
        node=node,
        event=event,
    )


def unmeasured(now: float, why: str) -> Finding:
    """Return what is wrong while this machine cannot be measured."""
    text = f"what runs here is not known: it cannot be measured ({why})"
    return _finding("daemon-problem", "measuring", text, "fail", now)


def keep_since(found: list[Finding], before: Mapping[tuple[str, str], float]) -> None:
    """Keep the start time of findings that were there before."""
    for each in found:
        each.since = min(each.since, before.get((each.cause, each.subject), each.since))


def row(
    robot: str,
    nodes: Sequence[NodeInfo],
    edges: Iterable[EdgeStats],
    found: list[Finding],
    *,
    cpu: float,
    memory: float,
    version: str,
) -> FleetRow:
    """Return the row of this machine, rounded so that small changes do not make a new row.

    A node that has ended by itself is not counted; one that a command has stopped is.
    """
    left = {(each.dataflow, each.node) for each in found if each.cause == NODE_ENDED}
    own = [info for info in nodes if info.node != LINK and _belongs(info, left)]
    names = sorted({info.dataflow_name or info.dataflow[:8] for info in nodes})
    stopped = [
        f"{info.dataflow_name or info.dataflow}/{info.node}"[:MAX_TEXT]
        for info in nodes
        if info.ended_by == "command"
    ][:MAX_FINDINGS]
    why = f"stopped by a command: {', '.join(stopped)}"[:MAX_TEXT] if stopped else ""
    state = found[0].severity if found else "ok"
    return FleetRow(
        robot=robot,
        state=state,
        why=found[0].text if found else (why if names else "no dataflow runs"),
        dataflow=", ".join(names)[:MAX_TEXT],
        nodes=len(own),
        running=sum(info.status in _RUNS for info in own),
        stopped=stopped,
        cpu=float(round(cpu)),
        memory=float(round(memory)),
        drops=round(sum(edge.drop_rate for edge in edges), 1),
        version=version,
        findings=found,
    )


def _belongs(info: NodeInfo, left: Container[tuple[str | None, str | None]]) -> bool:
    if info.dynamic and info.pid is None:
        return False
    ended = info.status == "stopped" and info.ended_by != "command"
    return not ended or (info.dataflow_name or info.dataflow, info.node) in left
