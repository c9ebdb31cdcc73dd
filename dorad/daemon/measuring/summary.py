"""This machine in one row, with what is wrong on it. Functions of what is measured."""

from __future__ import annotations

from collections import deque
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from dorad.control.messages import DataflowState, EdgeStats, Finding, FleetRow, NodeInfo
from dorad.daemon.measuring.troubles import Troubles, sentences
from dorad.daemon.rules.exits import CLEAN_EXIT, ORDERED
from dorad.dataflow.model import LINK
from dorad.logs.excerpt import with_error
from dorad.phrases import shorten, size_text

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence

    from dorad.diskspace import FillingDisk, LowDisk


class Silence(NamedTuple):
    """Broken inputs that have one cause."""

    dataflow: str
    """Its UUID."""
    output: str
    """The silent output, `node/output`; an input if its source is not known."""
    node: str
    """The node to look at: the one with the output."""
    inputs: list[str]
    """The broken inputs, `node/input`."""
    elsewhere: bool = False
    """Whether the output is on another machine."""

    @property
    def text(self) -> str:
        """The sentence for people."""
        if self.inputs == [self.output]:
            return f"input {self.output} is broken (silent source)"
        silent = f"{self.output} of another machine" if self.elsewhere else self.output
        if len(self.inputs) == 1:
            return f"{silent} is silent: input {self.inputs[0]} is broken"
        return f"{silent} is silent: inputs {', '.join(self.inputs)} are broken"


def silences(nodes: Iterable[NodeInfo], edges: Iterable[EdgeStats]) -> list[Silence]:
    """Group the broken inputs by the output that is silent.

    A node that itself waits for a silent output is not the cause: the first output upstream is.
    """
    sources = {(edge.dataflow, edge.target): edge.source for edge in edges}
    broken = {(info.dataflow, info.node): sorted(info.broken_inputs) for info in nodes}

    def cause(dataflow: str, node: str, name: str) -> str:
        """Return the silent output; the input itself if its source is not known."""
        output, passed = f"{node}/{name}", set[str]()
        while (source := sources.get((dataflow, f"{node}/{name}"))) is not None:
            output, node = source, source.partition("/")[0]
            waits = broken.get((dataflow, node))
            if not waits or node in passed:
                break
            passed.add(node)
            name = waits[0]
        return output

    by_source: dict[tuple[str, str], list[str]] = {}
    for (dataflow, node), names in broken.items():
        for name in names:
            key = (dataflow, cause(dataflow, node, name))
            by_source.setdefault(key, []).append(f"{node}/{name}")
    silent: list[Silence] = []
    for (dataflow, source), inputs in by_source.items():
        output = source.removeprefix(f"{LINK}/")
        node = output.partition("/")[0]
        silent.append(Silence(dataflow, output, node, inputs, elsewhere=output != source))
    return silent


CRASH_WINDOW_S = 60.0
"""Seconds that a restarted node is reported."""
CRASHES = 3
"""Restarts within that time that are a failure; fewer are a warning."""
MAX_FINDINGS = 50
"""Findings of one robot; the worst are kept."""
MAX_TEXT = 300

DISK_FULL = "disk-full"
"""The cause of a finding about a disk that gets full."""
DISK_FILLS = "disk-fills"
"""The cause of a finding about a disk that is full soon."""
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
        self._crashes = {key: crash for key, crash in self._crashes.items() if key in known}

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
    filling: Iterable[FillingDisk] = (),
) -> list[Finding]:
    """Return what is wrong, the worst first.

    `ended` are dataflows that have ended last under their name, with the time of their end;
    `problem` is why nodes cannot be started; `troubles` are by the UUID of their dataflow.
    """
    wrong: list[Finding] = []
    if problem:
        wrong.append(_finding("daemon-problem", "dorad", problem, "fail", now))
    wrong += [_finding(DISK_FULL, each.folder, each.text, each.severity, now) for each in disks]
    wrong += [_of_filling(now, each, nodes) for each in filling]
    for state, at in ended:
        if state.status == "failed":
            title = state.name or state.uuid
            why = [with_error(each.headline, each.lines) for each in state.failures[:1]]
            text = f"dataflow {title}: {why[0] if why else 'it failed'}"
            wrong.append(_finding("dataflow-failed", title, text, "fail", at, title, event=True))
    for info in nodes:
        wrong += _of_node(now, info, crashes.of(info))
        if info.old_secrets:
            wrong.append(_of_secrets(now, info))
    wrong += _left_behind(now, nodes, edges)
    wrong += _of_inputs(now, nodes, edges, blamed={each.subject for each in wrong})
    blamed = {(each.dataflow, each.node) for each in wrong}
    wrong += _of_troubles(now, nodes, edges, troubles, blamed)
    wrong.sort(key=lambda each: each.severity != "fail")
    return wrong[:MAX_FINDINGS]


def failed_text(node: str, what: str, exited: str | None, error: str) -> str:
    """Return what a node did and how it exited; a known `error` is in front, where it is read.

    `node grip failed (exited with code 1)`, or `grip failed: KeyError: 'x' (exited with code 1)`.
    """
    how = f" ({exited})" if exited else ""
    if not error:
        return f"node {node} {what}{how}"
    return f"{node} {what}: {shorten(error, max(MAX_TEXT - len(node + what + how) - 3, 1))}{how}"


def _of_node(now: float, info: NodeInfo, crashes: Sequence[Crash]) -> list[Finding]:
    def finding(
        cause: str, what: str, severity: str, since: float, exited: str | None
    ) -> list[Finding]:
        title = info.dataflow_name or info.dataflow
        error = "" if exited == CLEAN_EXIT else info.last_error
        text = failed_text(info.node, what, exited, error)
        subject = f"{title}/{info.node}"
        new = _finding(cause, subject, text, severity, since, title, info.node, event=True)
        if error:
            new.error, new.brief = error, failed_text(info.node, what, exited, "")[:MAX_TEXT]
        return [new]

    if info.status == "failed":
        return finding("node-failed", "failed", "fail", now, info.last_exit)
    waits = info.pid is None and info.status in ("restarting", "starting")
    unwell = info.last_exit not in (None, CLEAN_EXIT, *ORDERED)
    if waits and unwell and not crashes:
        # It counts as restarted only when its next process starts, maybe minutes later.
        what = "failed and waits for its restart"
        return finding("node-restarts", what, "warn", now, info.last_exit)
    # A process that ends well is started again at once by some policies: it is only too often
    # that this is wrong.
    clean = bool(crashes) and crashes[-1].exit == CLEAN_EXIT
    if not crashes or (clean and len(crashes) < CRASHES):
        return []
    often = "once" if len(crashes) == 1 else f"{len(crashes)} times"
    what = f"{'ended' if clean else 'failed'} {often} in {CRASH_WINDOW_S:g} s"
    severity = "fail" if len(crashes) >= CRASHES else "warn"
    return finding("node-restarts", what, severity, crashes[0].at, crashes[-1].exit)


def _of_filling(now: float, disk: FillingDisk, nodes: Iterable[NodeInfo]) -> Finding:
    """Return that a disk will be full soon, with the node that writes most of what fills it."""
    most = max(nodes, key=lambda info: info.metrics.disk_write, default=None)
    who = ""
    if most is not None and most.metrics.disk_write >= disk.rate / 2:
        who = f": node {most.node} writes most"
    minutes = max(1, round(disk.seconds / 60))
    text = (
        f"the disk of {disk.folder} loses {size_text(disk.rate)}/s and is full in about "
        f"{minutes} min{who}"
    )
    finding = _finding(DISK_FILLS, disk.folder, text, "warn", now)
    finding.brief = f"the disk of {disk.folder} will soon be full"[:MAX_TEXT]
    return finding


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
    findings: list[Finding] = []
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
        findings.append(_finding(NODE_ENDED, f"{title}/{info.node}", text, "warn", now, *what))
    return findings


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
    findings: list[Finding] = []
    for each in silences(nodes, edges):
        title = titles[each.dataflow]
        if f"{title}/{each.node}" not in blamed:
            subject = f"{title}/{each.output}"
            findings.append(
                _finding("input-broken", subject, each.text, "warn", now, title, each.node)
            )
    return findings


def _of_troubles(
    now: float,
    nodes: Iterable[NodeInfo],
    edges: Iterable[EdgeStats],
    troubles: Mapping[str, Troubles],
    blamed: Collection[tuple[str | None, str | None]],
) -> list[Finding]:
    """Return what is wrong with nodes that are no findings yet."""
    titles = {info.dataflow: info.dataflow_name or info.dataflow for info in nodes}
    findings: list[Finding] = []
    for uuid, each in troubles.items():
        if not any(each):
            continue
        title = titles.get(uuid, uuid)
        own = [edge for edge in edges if edge.dataflow == uuid]
        known = [node for dataflow, node in blamed if dataflow == title and node]
        for what in sentences(each, own, known):
            subject = f"{title}/{what.output or what.node}"
            new = _finding(what.cause, subject, what.text, "warn", now, title, what.node or None)
            new.brief = what.brief[:MAX_TEXT]
            findings.append(new)
    return findings


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


def keep_since(findings: list[Finding], before: Mapping[tuple[str, str], float]) -> None:
    """Keep the start time of findings that were there before."""
    for each in findings:
        each.since = min(each.since, before.get((each.cause, each.subject), each.since))


def row(
    robot: str,
    nodes: Sequence[NodeInfo],
    edges: Iterable[EdgeStats],
    findings: list[Finding],
    *,
    cpu: float,
    memory: float,
    version: str,
) -> FleetRow:
    """Return the row of this machine, rounded so that small changes do not make a new row.

    A node that has ended by itself is not counted; one that a command has stopped is.
    """
    left = {(each.dataflow, each.node) for each in findings if each.cause == NODE_ENDED}
    own = [info for info in nodes if info.node != LINK and _belongs(info, left)]
    names = sorted({info.dataflow_name or info.dataflow[:8] for info in nodes})
    stopped = [
        f"{info.dataflow_name or info.dataflow}/{info.node}"[:MAX_TEXT]
        for info in nodes
        if info.ended_by == "command"
    ][:MAX_FINDINGS]
    why = f"stopped by a command: {', '.join(stopped)}"[:MAX_TEXT] if stopped else ""
    state = findings[0].severity if findings else "ok"
    return FleetRow(
        robot=robot,
        state=state,
        why=findings[0].text if findings else (why if names else "no dataflow runs"),
        dataflow=", ".join(names)[:MAX_TEXT],
        nodes=len(own),
        running=sum(info.status in _RUNS for info in own),
        stopped=stopped,
        cpu=float(round(cpu)),
        memory=float(round(memory)),
        drops=round(sum(edge.drop_rate for edge in edges), 1),
        version=version,
        findings=findings,
    )


def _belongs(info: NodeInfo, left: Container[tuple[str | None, str | None]]) -> bool:
    if info.dynamic and info.pid is None:
        return False
    ended = info.status == "stopped" and info.ended_by != "command"
    return not ended or (info.dataflow_name or info.dataflow, info.node) in left
