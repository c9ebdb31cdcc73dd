"""Enter phases in the record of a dataflow, and check the daemon's progress. Pure."""

from msgspec.structs import replace

from dorad.agent.assignments.model import Applied, Observation, ReleaseRecord, Waiting
from dorad.control.messages import NodeResult
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import ReleasePhase

IN_SWITCH = ("switching", "probation", "reverting")
"""Phases of a switch. A newer order waits until they are over."""
ENDED = ("stopped", "finished", "failed")
"""Statuses of a share that has ended."""
MAX_DOWN = 20
"""Nodes that do not run, in a report."""
MAX_CAUSE = 500
"""Characters of a failure in a reason."""


def enter(
    record: ReleaseRecord,
    phase: ReleasePhase,
    reason: str,
    *,
    waiting: Waiting = "",
    refused: bool = False,
) -> ReleaseRecord:
    """Return the record in a phase; the same one if nothing changes."""
    new = (phase, reason, waiting, refused)
    if new == (record.phase, record.reason, record.waiting, record.refused):
        return record
    return replace(record, phase=phase, reason=reason, waiting=waiting, refused=refused)


def apply(record: ReleaseRecord, applied: Applied | None, seen: Observation) -> ReleaseRecord:
    """Return the record with a new order for the daemon.

    A dataflow that has not started completely cannot be changed: it is stopped first.
    """
    share = seen.share
    unstarted = share is not None and share.status in ("starting", "ready")
    halting = applied is None or unstarted
    return replace(record, applied=applied, step=record.step + 1, halting=halting)


def is_stopping(record: ReleaseRecord, seen: Observation) -> bool:
    """Return True while a dataflow that was ordered to stop still runs."""
    return seen.share is not None and not has_ended(record, seen)


def end_of(share: ShareState) -> str:
    """Return how the run of an order has ended, and why."""
    why = share.reason
    if not why and share.outcome is not None and share.outcome.failures:
        # The last line of a traceback names the error.
        cause = share.outcome.failures[0]
        why = ": ".join((cause.headline, *cause.lines[-1:]))[:MAX_CAUSE]
    return f"the dataflow has {share.status}" + (why and f": {why}")


def failures_of(share: ShareState) -> dict[str, str]:
    """Return the nodes that have failed in a run that has failed, with the reasons."""
    if share.status != "failed":
        return {}
    results = [] if share.outcome is None else share.outcome.results
    bad = [each for each in results if each.outcome == "failed"][:MAX_DOWN]
    causes = [] if share.outcome is None else share.outcome.failures
    last = {cause.headline: cause.lines[-1] for cause in causes if cause.lines}

    def why(result: NodeResult) -> str:
        line = last.get(f"node {result.node} {result.reason}")
        return ": ".join(filter(None, (result.reason, line)))[:MAX_CAUSE]

    reasons = {each.node: why(each) for each in bad}
    return reasons or {share.dataflow: end_of(share)}


def has_ended(record: ReleaseRecord, seen: Observation) -> bool:
    """Return True if the run of the daemon's last order has ended."""
    share = seen.share
    return share is not None and share.generation == record.step and share.status in ENDED
