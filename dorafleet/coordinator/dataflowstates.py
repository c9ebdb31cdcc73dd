"""Combine the states that machines report of one dataflow into its state. Pure functions."""

from collections.abc import Iterable, Mapping

from dorad.control.messages import (
    DataflowInfo,
    DataflowState,
    Failure,
    NodeInfo,
    NodeMetrics,
    NodeResult,
    Status,
)
from dorad.control.messages.agent import ShareState
from dorafleet.coordinator.findings import MAX_TEXT
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.verdicts import AT_BARRIER, FINAL, current

MAX_SUM = 1 << 53


def status_of(record: DataflowRecord) -> Status:
    """Return the state of a dataflow over all its machines."""
    if record.end is not None:
        return record.end.status
    if not record.enabled:
        return "stopping"
    return "running" if record.opened else "starting"


def outcome_of(
    record: DataflowRecord, shares: Mapping[str, ShareState | None]
) -> tuple[Status, list[NodeResult], list[Failure]]:
    """Return how a dataflow has ended: failed if it did on any machine."""
    results: list[NodeResult] = []
    failures = [Failure(headline=record.failure)] if record.failure else []
    failed = bool(failures)
    for robot in record.robots:
        share = current(record, shares.get(robot))
        if share is None:
            continue
        failed = failed or share.status == "failed"
        if share.outcome is not None:
            failed = failed or share.outcome.status == "failed"
            results += share.outcome.results
            failures += [
                Failure(headline=f"{robot}: {each.headline}", lines=each.lines)
                for each in share.outcome.failures
            ]
        elif share.status == "failed" and share.reason:
            failures.append(Failure(headline=f"{robot}: {share.reason}"))
    return ("failed" if failed else "finished"), results, failures


def state_of(record: DataflowRecord, shares: Mapping[str, ShareState | None]) -> DataflowState:
    """Return a dataflow with the results that there are."""
    if record.end is not None:
        end = record.end
        status, results, failures = end.status, end.results, end.failures
    else:
        _, results, failures = outcome_of(record, shares)
        status = status_of(record)
    return DataflowState(
        uuid=record.uuid,
        name=record.name,
        status=status,
        results=list(results),
        failures=list(failures),
        ready=is_at_barrier(record, (shares.get(robot) for robot in record.robots)),
    )


def is_at_barrier(record: DataflowRecord, shares: Iterable[ShareState | None]) -> bool:
    """Return True if all nodes have started on all machines, or have ended there without failing.

    False once the dataflow has ended.
    """
    states = [current(record, share) for share in shares]
    started = (AT_BARRIER | FINAL) - {"failed"}
    return (
        record.running
        and bool(states)
        and all(share is not None and share.status in started for share in states)
    )


def info_of(record: DataflowRecord, parts: Iterable[DataflowInfo]) -> DataflowInfo:
    """Return a row of the list of dataflows; `parts` are the rows of its machines, among others."""
    own = [part for part in parts if part.uuid == record.uuid]
    return DataflowInfo(
        uuid=record.uuid,
        name=record.name,
        status=status_of(record),
        nodes=sum(part.nodes for part in own),
        # Robots may say anything: an infinite sum could not be sent to any client.
        cpu=min(sum(part.cpu for part in own), MAX_SUM),
        memory=min(sum(part.memory for part in own), MAX_SUM),
        started_at=record.started_at,
        ended_at=None if record.end is None else record.end.at,
        enabled=record.running and record.enabled,
        machines=list(record.robots),
        why=_why(record, own),
    )


def _why(record: DataflowRecord, parts: Iterable[DataflowInfo]) -> str:
    """Return why a dataflow has failed, or which nodes have; `parts` are of its machines."""
    told = [part.why for part in parts if part.why]
    if record.end is not None:
        told += [each.headline for each in record.end.failures]
    return told[0][:MAX_TEXT] if told else ""


def pending_nodes(record: DataflowRecord) -> list[NodeInfo]:
    """Return the nodes that no machine takes yet, as rows of the list of nodes."""
    return [
        NodeInfo(
            dataflow=record.uuid,
            dataflow_name=record.name,
            node=node,
            status="pending",
            pid=None,
            restarts=0,
            metrics=NodeMetrics(),
            reason=reason,
        )
        for node, reason in record.pending.items()
    ]
