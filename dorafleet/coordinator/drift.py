"""Differences between a robot and its desired state, with fixes. Pure functions."""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dorad import __version__
from dorad.control.messages import Finding
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import ReleaseState
from dorad.natural import natural
from dorafleet.coordinator.deployments import name_of
from dorafleet.coordinator.findings import (
    DEAD,
    MAX_TEXT,
    conflict_text,
    node_text,
    release_text,
    secret_text,
    share_text,
    strange_hint,
    strange_text,
)
from dorafleet.coordinator.records import RobotAssignment
from dorafleet.coordinator.secretmessages import RobotSecret
from dorafleet.rollout.messages import DriftRow
from dorafleet.rollout.model import MOVING


@dataclass(frozen=True, slots=True)
class Late:
    """A rollout that has settled without a robot, which follows later."""

    rollout: int
    release: str
    files: str = ""
    """What is done about files that it waits for."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One robot: its desired state, and what it has reported."""

    robot: str
    reachable: bool = True
    trouble: str = ""
    orders: Mapping[str, RobotAssignment] = field(default_factory=dict)
    """From releases, by dataflow."""
    releases: Mapping[str, ReleaseState] = field(default_factory=dict)
    late: Mapping[str, Late] = field(default_factory=dict)
    """By dataflow."""
    wanted: Mapping[str, RobotAssignment] = field(default_factory=dict)
    """From dataflows that were started, by their names."""
    shares: Mapping[str, ShareState] = field(default_factory=dict)
    conflicts: Mapping[str, str] = field(default_factory=dict)
    strange: Mapping[str, str] = field(default_factory=dict)
    """What it reports of orders that nobody gave, by dataflow."""
    stopped: Sequence[str] = ()
    """Nodes that a command has stopped, `dataflow/node`."""
    findings: Sequence[Finding] = ()
    """What its daemon finds wrong."""
    secrets: Sequence[tuple[str, RobotSecret]] = ()
    """Those that it does not have as it should, by name."""
    version: str = ""
    """Of its agent; empty if it was never connected."""
    open_rollouts: Collection[int] = ()
    """Those that still send files."""


def drift_of(compared: Compared, label: Callable[[str], str]) -> Iterator[DriftRow]:
    """Yield the differences of one robot; `label` names a release for people.

    Of one that cannot be reached it is not known that it has none.
    """
    for row in _rows(compared, label):
        if row.dataflow:
            row.instance = _instance(compared, row.dataflow)
        yield row


def _instance(compared: Compared, dataflow: str) -> str:
    """Return the instance of a dataflow that a robot is to run, or runs, as commands name it."""
    order = compared.orders.get(dataflow)
    if order is not None and order.group is not None:
        return name_of(order.group.instance, dataflow)
    if order is not None or dataflow in compared.releases:
        return f"{compared.robot}/{dataflow}"
    return dataflow


def _rows(compared: Compared, label: Callable[[str], str]) -> Iterator[DriftRow]:
    if not compared.reachable:
        yield DriftRow(
            robot=compared.robot,
            dataflow="",
            what="contact",
            desired="connected",
            found=compared.trouble[:MAX_TEXT],
            way_back="dorafleet doctor",
            known=True,
        )
    for dataflow in sorted({*compared.orders, *compared.releases, *compared.late}):
        row = _release(compared, dataflow, label)
        if row is not None:
            yield row
        else:
            yield from _ended(compared, dataflow, label)
        yield from _damaged(compared, dataflow, label)
    for dataflow in sorted({*compared.wanted, *compared.shares}):
        row = _share(compared, dataflow)
        wanted = compared.wanted.get(dataflow)
        if row is not None:
            yield row
        elif wanted is not None and wanted.enabled:
            yield from _dead(compared, dataflow)
    for dataflow, what in sorted(compared.strange.items()):
        yield DriftRow(
            robot=compared.robot,
            dataflow=dataflow,
            what="order",
            desired="that of the coordinator",
            found=strange_text(dataflow, what),
            way_back=strange_hint(compared.robot),
            known=compared.reachable,
        )
    yield from _stopped(compared)
    yield from _secrets(compared)
    if compared.version not in ("", __version__):
        yield DriftRow(
            robot=compared.robot,
            dataflow="",
            what="package",
            desired=f"dorad {__version__}",
            found=f"dorad {compared.version}",
            way_back=f"dorafleet install FILE PACKAGE --only {compared.robot}",
            known=compared.reachable,
        )


def _release(compared: Compared, dataflow: str, label: Callable[[str], str]) -> DriftRow | None:
    order, state = compared.orders.get(dataflow), compared.releases.get(dataflow)
    late = compared.late.get(dataflow)
    wanted = late.release if late is not None else "" if order is None else order.release
    running = "" if state is None else state.running
    if late is None and order is not None and not order.switch and order.release:
        return None  # a rollout that has not ordered the switch yet
    moving = state is not None and state.phase in MOVING
    if wanted == running and not moving and (state is None or state.phase != "stuck"):
        return None
    there = label(running) if running else "nothing"
    if state is not None and (text := release_text(state)):
        there += f": {text[:MAX_TEXT]}"
    elif state is not None:
        there += "" if state.phase == "confirmed" else f", {state.phase}"
        there += f": {state.reason[:MAX_TEXT]}" if state.reason else ""
    return DriftRow(
        robot=compared.robot,
        dataflow=dataflow,
        what="release",
        desired=label(wanted) if wanted else "nothing",
        found=there,
        way_back=_back_to_release(compared, order, state, label)
        if late is None
        else _follows(compared, late, state),
        known=compared.reachable,
    )


def _ended(compared: Compared, dataflow: str, label: Callable[[str], str]) -> Iterator[DriftRow]:
    """Yield the nodes that have ended of a release that is confirmed."""
    order, state = compared.orders.get(dataflow), compared.releases.get(dataflow)
    if order is None or state is None or not order.enabled:
        return
    again = _start_again(compared, order, label)
    if state.failed:
        again += " --retry"
    back = f"{again} starts them again; or dorafleet rollout undo {order.rollout}"
    if not order.rollout:
        back = f"{again} starts them again"
    known = {each.subject: each.text for each in compared.findings if each.cause in DEAD}
    for node, how in {**state.failed, **state.ended}.items():
        if f"{dataflow}/{node}" in compared.stopped:
            continue
        yield DriftRow(
            robot=compared.robot,
            dataflow=dataflow,
            what="node",
            desired=f"{node} runs",
            found=known.get(f"{dataflow}/{node}", node_text(node, how))[:MAX_TEXT],
            way_back=back if compared.reachable else f"once it can be reached: {back}",
            known=compared.reachable,
        )


def _dead(compared: Compared, dataflow: str) -> Iterator[DriftRow]:
    """Yield the nodes that have failed, or ended before their sources, of a started dataflow."""
    for finding in compared.findings:
        if finding.dataflow != dataflow or not finding.node or finding.cause not in DEAD:
            continue
        back = f"dora node restart {shlex.quote(finding.node)} -d {shlex.quote(dataflow)}"
        yield DriftRow(
            robot=compared.robot,
            dataflow=dataflow,
            what="node",
            desired=f"{finding.node} runs",
            found=finding.text[:MAX_TEXT],
            way_back=back if compared.reachable else f"once it can be reached: {back}",
            known=compared.reachable,
        )


def _damaged(compared: Compared, dataflow: str, label: Callable[[str], str]) -> Iterator[DriftRow]:
    state = compared.releases.get(dataflow)
    for release, text in ({} if state is None else state.damaged).items():
        yield DriftRow(
            robot=compared.robot,
            dataflow=dataflow,
            what="files",
            desired=label(release),
            found=text[:MAX_TEXT],
            way_back=f"dorafleet release push {shlex.quote(label(release))} FILE "
            f"--only {compared.robot}"
            if compared.reachable
            else f"it is shown once it can be reached; {compared.trouble}",
            known=compared.reachable,
        )


def _follows(compared: Compared, late: Late, state: ReleaseState | None) -> str:
    """Return how a robot gets the release of a rollout that has settled without it."""
    if not compared.reachable:
        return f"it follows once it can be reached; {compared.trouble}"
    if state is not None and state.waiting == "files":
        return late.files or f"dorafleet rollout follow {late.rollout}"
    return f"wait: it follows, see `dorafleet rollout status {late.rollout}`"


def _back_to_release(
    compared: Compared,
    order: RobotAssignment | None,
    state: ReleaseState | None,
    label: Callable[[str], str],
) -> str:
    if not compared.reachable:
        return f"it follows once it can be reached; {compared.trouble}"
    if order is None:
        return "it is not known here: roll out a release to it, or `dora stop` it there"
    is_open = order.rollout in compared.open_rollouts
    if not is_open and _is_blank(state):
        # The robot was installed again. A rollout that is over sends nothing.
        return f"dorafleet provision FILE {compared.robot}"
    again = _start_again(compared, order, label)
    if state is None:
        return again
    if state.generation > order.generation:
        return f"it has a newer order, of another coordinator: {again}"
    if state.refused:
        return f"mend the reason, then {again} --retry"
    if state.phase == "confirmed" and not state.running:
        return again
    if state.phase in ("reverted", "stuck"):
        return f"{again} --retry, or dorafleet rollout undo {order.rollout}"
    if state.waiting == "files":
        if not is_open:
            name = shlex.quote(label(order.release))
            return f"dorafleet release push {name} FILE --only {compared.robot}"
        return f"dorafleet rollout follow {order.rollout}"
    if state.waiting == "busy":
        return "wait until it is no longer busy"
    return "wait: it is on its way"


def _start_again(compared: Compared, order: RobotAssignment, label: Callable[[str], str]) -> str:
    """Return the command that rolls a release out again, to all machines of the instance."""
    robots, scope = compared.robot, ""
    if order.group is not None:
        robots = ",".join(sorted({*order.group.share.placement.values()}, key=natural))
        scope = f" --scope {shlex.quote(order.scope)}"
    lower = " --allow-lower" if order.allow_lower else ""
    name = shlex.quote(label(order.release))
    return f"dorafleet rollout start {name} --robots {robots}{scope}{lower}"


def _is_blank(state: ReleaseState | None) -> bool:
    """Return True if a robot has never run a release of a dataflow, and cannot get one now."""
    if state is None:
        return True
    has_run = state.running or state.confirmed or state.previous
    return not has_run and (state.waiting == "files" or bool(state.refused))


def _stopped(compared: Compared) -> Iterator[DriftRow]:
    """Yield the nodes that were stopped of dataflows that shall run."""
    for name in sorted(compared.stopped, key=natural):
        dataflow, _, node = name.rpartition("/")
        wanted = compared.wanted.get(dataflow) or compared.orders.get(dataflow)
        if wanted is None or not wanted.enabled:
            continue
        released = dataflow in compared.orders
        place = f"{compared.robot}/{dataflow}" if released else dataflow
        # The robot has named it, and people paste this into a shell.
        back = f"dora node restart {shlex.quote(node)} -d {place}"
        if not compared.reachable:
            back = f"once it can be reached: {back}"
        yield DriftRow(
            robot=compared.robot,
            dataflow=dataflow,
            what="node",
            desired=f"{node} runs",
            found=f"{node} was stopped by a command",
            way_back=back,
            known=compared.reachable,
        )


def _secrets(compared: Compared) -> Iterator[DriftRow]:
    for name, each in compared.secrets:
        back = f"dorafleet secret set {name} --for {compared.robot}"
        if each.state == "waiting":
            back = "wait: it is on its way"
            if not compared.reachable:
                back = f"it follows once it can be reached; {compared.trouble}"
        elif each.state == "unknown":
            back = f"{back}, or dorafleet secret remove {name}"
        yield DriftRow(
            robot=compared.robot,
            dataflow="",
            what="secret",
            desired=name,
            found=secret_text(name, each)[:MAX_TEXT],
            way_back=back,
            known=compared.reachable,
        )


def _share(compared: Compared, dataflow: str) -> DriftRow | None:
    wanted, share = compared.wanted.get(dataflow), compared.shares.get(dataflow)
    if dataflow in compared.orders and wanted is None:
        return None  # how the agent carries out a release
    status = "" if share is None else share.status
    shall = wanted is not None and wanted.enabled
    runs = status in ("starting", "ready", "running", "stopping", "pending")
    there: str = status or "nothing"
    back = "wait: it follows by itself"
    if dataflow in compared.conflicts:
        name = compared.robot
        back = f"dorafleet adopt {name}, or dorafleet resume {name}"
        there = conflict_text(dataflow, compared.conflicts[dataflow])[:MAX_TEXT]
    elif status in ("running", "finished") if shall else not runs:
        return None
    elif share is not None and share.status in ("failed", "pending"):
        there = share_text(share)[:MAX_TEXT]
        back = f"dora logs {dataflow} shows why; dora restart {dataflow}"
    if not compared.reachable:
        back = f"it follows once it can be reached; {compared.trouble}"
    return DriftRow(
        robot=compared.robot,
        dataflow=dataflow,
        what="dataflow",
        desired="running" if shall else "nothing",
        found=there,
        way_back=back,
        known=compared.reachable,
    )
