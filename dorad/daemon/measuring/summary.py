"""This machine in one row, with what is wrong on it. Functions of what is measured."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from dorad.control.messages import Finding, FleetRow
from dorad.dataflow.model import LINK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dorad.control.messages import DataflowState, EdgeStats, NodeInfo

CRASH_WINDOW_S = 60.0
"""Seconds that a restarted node is reported."""
CRASHES = 3
"""Restarts within that time that are a failure; fewer are a warning."""
CLEAN_EXIT = "exited with code 0"
"""How a node ends that a user restarts: a failure only if it is repeated."""
MAX_FINDINGS = 50
"""Findings of one robot; the worst are kept."""
MAX_TEXT = 300

_RUNS = ("running", "degraded")


class CrashHistory:
    """When nodes were restarted lately."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}
        self._times: dict[tuple[str, str], deque[float]] = {}

    def add(self, now: float, nodes: Iterable[NodeInfo]) -> None:
        """Take the restart counters at the time `now`, in seconds since 1970."""
        found = {(info.dataflow, info.node): info.restarts for info in nodes}
        for key, restarts in found.items():
            times = self._times.setdefault(key, deque(maxlen=100))
            times.extend([now] * min(restarts - self._known.get(key, restarts), 100))
            while times and now - times[0] > CRASH_WINDOW_S:
                times.popleft()
        self._known = found
        self._times = {key: times for key, times in self._times.items() if key in found}

    def of(self, info: NodeInfo) -> Sequence[float]:
        """Return the times of a node's restarts within the last minute, oldest first."""
        return self._times.get((info.dataflow, info.node), ())


def findings(
    now: float,
    nodes: Iterable[NodeInfo],
    ended: Iterable[tuple[DataflowState, float]],
    crashes: CrashHistory,
    problem: str,
) -> list[Finding]:
    """Return what is wrong, the worst first.

    `ended` are dataflows that have ended last under their name, with the time of their end;
    `problem` is why nodes cannot be started.
    """
    found: list[Finding] = []
    if problem:
        found.append(_finding("daemon-problem", "dorad", problem, "fail", now))
    for state, at in ended:
        if state.status == "failed":
            title = state.name or state.uuid
            why = state.failures[0].headline if state.failures else "it failed"
            text = f"dataflow {title}: {why}"
            found.append(_finding("dataflow-failed", title, text, "fail", at, title, event=True))
    for info in nodes:
        found += _of_node(now, info, crashes.of(info))
    found.sort(key=lambda each: each.severity != "fail")
    return found[:MAX_FINDINGS]


def _of_node(now: float, info: NodeInfo, crashes: Sequence[float]) -> list[Finding]:
    title = info.dataflow_name or info.dataflow
    subject = f"{title}/{info.node}"
    exited = f" ({info.last_exit})" if info.last_exit else ""
    what = (title, info.node)
    if info.status == "failed":
        text = f"node {info.node} failed{exited}"
        return [_finding("node-failed", subject, text, "fail", now, *what, event=True)]
    found: list[Finding] = []
    clean = info.last_exit == CLEAN_EXIT
    waits = info.pid is None and info.status in ("restarting", "starting")
    if waits and info.last_exit is not None and not clean and not crashes:
        # It counts as restarted only when its next process starts, maybe minutes later.
        text = f"node {info.node} failed{exited} and waits for its restart"
        found.append(_finding("node-restarts", subject, text, "warn", now, *what, event=True))
    if crashes and not (clean and len(crashes) < CRASHES):
        often = "once" if len(crashes) == 1 else f"{len(crashes)} times"
        what_happened = f"{'ended' if clean else 'failed'} {often} in {CRASH_WINDOW_S:g} s{exited}"
        text = f"node {info.node} {what_happened}"
        severity = "fail" if len(crashes) >= CRASHES else "warn"
        found.append(
            _finding("node-restarts", subject, text, severity, crashes[0], *what, event=True)
        )
    for name in info.broken_inputs:
        text = f"input {info.node}/{name} is broken (silent source)"
        broken = _finding("input-broken", f"{subject}/{name}", text, "warn", now, *what)
        found.append(broken)
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
    """Return the row of this machine, rounded so that small changes do not make a new row."""
    own = [info for info in nodes if info.node != LINK and info.status != "stopped"]
    own = [info for info in own if not (info.dynamic and info.pid is None)]
    names = sorted({info.dataflow_name or info.dataflow[:8] for info in nodes})
    state = found[0].severity if found else "ok"
    return FleetRow(
        robot=robot,
        state=state,
        why=found[0].text if found else ("" if names else "no dataflow runs"),
        dataflow=", ".join(names)[:MAX_TEXT],
        nodes=len(own),
        running=sum(info.status in _RUNS for info in own),
        cpu=float(round(cpu)),
        memory=float(round(memory)),
        drops=round(sum(edge.drop_rate for edge in edges), 1),
        version=version,
        findings=found,
    )
