"""The state machine of a release on a robot: pure functions of its record and observations.

`pending → staging → staged → switching → probation → confirmed`, or `reverting → reverted | stuck`.
Each step is stored before the agent acts on it, so that the agent continues it after a power cut.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from dorad.agent.assignments.model import (
    Applied,
    Down,
    Observation,
    ReleaseRecord,
    Waiting,
    revision_of,
)
from dorad.agent.assignments.orders import take_new
from dorad.agent.assignments.steps import (
    ENDED,
    IN_SWITCH,
    apply,
    end_of,
    enter,
    failures_of,
    has_ended,
    is_stopping,
)
from dorad.agent.assignments.switch import go_back, probation, reverting, soaking, switching
from dorad.control.messages.releases import ReleaseState
from dorad.phrases import first_of

MAX_DOWN_TEXTS = 3
"""Nodes in one reason."""

MAX_DAMAGED = 20
"""Releases with damages in one report."""

CONTACT_S = 60.0
"""Maximum age of the last contact to the coordinator before a switch, seconds, for the agent to
require contact after the switch, too."""


def decide(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record after an observation: the same one if nothing changes."""
    after = _decide(record, seen)
    return after if after.phase == record.phase else replace(after, since=seen.wall)


def _decide(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    if record.next is not None and record.phase in ("switching", "probation"):
        if record.confirmed is not None and revision_of(record.next) == record.confirmed.revision:
            # The rollout was aborted, or undone.
            following = replace(record, order=record.next, next=None)
            return go_back(following, seen, "another order has arrived")
        if record.target is not None and record.is_rejected(record.target):
            return go_back(record, seen, "it was undone")
        if record.order.group is not None and not record.order.committed:
            # The other machines have this order, too: nobody will commit the one before.
            return go_back(record, seen, "another order has arrived")
    elif record.next is not None and record.phase not in IN_SWITCH:
        return take_new(record, record.next)
    if record.order.release is None or not record.order.enabled:
        if not _resumes(record, seen):
            return _stop(record, seen)
        if record.halting and not is_stopping(record, seen):
            record = replace(record, step=record.step + 1, halting=False)
    match record.phase:
        case "switching":
            return switching(record, seen)
        case "probation":
            return probation(record, seen)
        case "reverting" | "stuck":
            return reverting(record, seen)
        case "confirmed" | "reverted":
            return _resting(record, seen)
        case _:
            return _preparing(record, seen)


def forgettable(record: ReleaseRecord, seen: Observation) -> bool:
    """Return True if a dataflow whose release was removed has stopped."""
    return record.order.release is None and (
        seen.share is None or (seen.share.generation == record.step and seen.share.status in ENDED)
    )


def _stop(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record of a dataflow that is ordered not to run."""
    if record.applied is not None and not record.halting:
        record = replace(
            record, step=record.step + 1, halting=True, switched=seen.now, boot=seen.boot
        )
    if record.order.release is None:
        return record
    if record.confirmed is not None and record.target == record.confirmed.revision:
        return enter(record, "confirmed", "the dataflow is disabled")
    if seen.files == "staged":
        return enter(record, "staged", "the dataflow is disabled", waiting="switch")
    return _preparing(record, seen)


def _resumes(record: ReleaseRecord, seen: Observation) -> bool:
    """Return True if a machine whose part was stopped has heard nothing for too long."""
    after = record.order.resume_after
    heard = max(
        0.0 if seen.contact is None else seen.contact,
        record.switched if record.boot == seen.boot and record.halting else 0.0,
    )
    return record.phase == "confirmed" and after > 0 and seen.now - heard >= after


def _resting(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record while the confirmed revision runs."""
    record = _learn(record, seen.learned)
    if record.phase == "reverted":
        return record
    share = seen.share
    if share is not None and has_ended(record, seen):
        reason = end_of(share)
        failed = reason if failures_of(share) else ""
    elif seen.down is None:
        return record
    else:
        reason = down_text(seen.down)
        failed = down_text(Down(failed=seen.down.failed))
    record = record if record.reason == reason else replace(record, reason=reason)
    return soaking(record, seen, failed)


def _learn(record: ReleaseRecord, rates: dict[str, float]) -> ReleaseRecord:
    """Return the record with the rates of outputs whose rate was not certain yet."""
    before = record.baseline
    new = {name: rate for name, rate in rates.items() if name not in before.settled}
    if not new:
        return record
    settled = sorted({*before.settled, *new})
    return replace(record, baseline=replace(before, rates=before.rates | new, settled=settled))


def _preparing(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record of a release that is being received, staged, or waits for its switch."""
    if record.halting and record.order.enabled and record.applied is not None:
        if is_stopping(record, seen):
            return record
        record = replace(record, step=record.step + 1, halting=False)
    target = record.target
    assert target is not None
    confirmed = None if record.confirmed is None else record.confirmed.revision
    # One that has ended, perhaps by `dora stop`, is started again like another release.
    if target == confirmed == _running(record) and not _is_to_start(record, seen):
        return enter(record, "confirmed", "")
    if known := record.failure_of(target):
        why = f"it has failed on this robot before: {known.reason}"
        return enter(record, record.phase, f"{why}; order it with `--retry`", refused=True)
    if record.order.withdraw:
        why = "nodes of it have failed on this robot; order it with `--retry`"
        return enter(record, record.phase, why, refused=True)
    if seen.refusal:
        return enter(record, "pending", seen.refusal, refused=True)
    if seen.files == "missing":
        return enter(record, "pending", seen.trouble, waiting="files")
    if seen.files == "received" or seen.plan is None:
        return enter(record, "staging", seen.trouble)
    if seen.plan.sequence < record.sequence and not record.order.allow_lower:
        return enter(
            record,
            "pending",
            f"its sequence {seen.plan.sequence} is below {record.sequence}, the highest that was "
            "confirmed here; the order must allow that",
            refused=True,
        )
    if not record.order.switch:
        waiting: Waiting = "busy" if seen.busy and record.order.arm else "switch"
        return enter(record, "staged", seen.busy or "", waiting=waiting)
    return _begin(record, seen)


def _begin(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Begin the switch, unless the robot is busy."""
    order = record.order
    if seen.notices is None or (seen.share is not None and seen.share.status == "stopping"):
        reason = "the daemon cannot be asked, or stops the dataflow"
        return enter(record, "staged", reason, waiting="switch")
    if record.gave_up:
        return record
    if seen.busy is None and order.busy == "wait":
        return record  # the next observation has the answer
    if seen.busy and order.busy == "wait":
        since = record.busy_since
        if since is None or record.boot != seen.boot:
            since = seen.now
        over = seen.now - since >= order.busy_max
        record = replace(record, boot=seen.boot, busy_since=since, gave_up=over)
        late = f"still busy after {order.busy_max:g} s: " if over else ""
        return enter(record, "staged", f"{late}{seen.busy}", waiting="busy")
    assert seen.plan is not None
    contact = seen.contact is not None and seen.now - seen.contact <= CONTACT_S
    down = seen.down or Down()
    dead = [node for node in {**down.failed, **down.ended} if node in seen.plan.nodes]
    record = replace(
        record,
        boot=seen.boot,
        switched=seen.now,
        tries=0,
        contact=contact,
        healthy_at=None,
        voted=None,
        busy_since=None,
        restarted=sorted({*seen.plan.replaced, *dead}),
        evidence=[],
        baseline=replace(
            record.baseline,
            notices=seen.notices,
            nodes=[node for node in record.baseline.nodes if node not in down.finished],
        ),
        switched_sequence=seen.plan.sequence,
    )
    assert record.target is not None
    applied = Applied(record.target, seen.plan.nodes)
    return enter(apply(record, applied, seen), "switching", "")


def _is_to_start(record: ReleaseRecord, seen: Observation) -> bool:
    """Return True if an order for the confirmed revision has something to start.

    It has ended, perhaps by `dora stop`, or some of its nodes have.
    """
    if has_ended(record, seen):
        return True
    down = seen.down
    return down is not None and bool(down.failed or down.ended) and not record.order.stay


def down_text(down: Down) -> str:
    """Return which nodes do not run, and why; empty if all do."""
    texts = [f"node {node} {text}" for node, text in {**down.failed, **down.ended}.items()]
    return first_of(texts, MAX_DOWN_TEXTS)


def _running(record: ReleaseRecord) -> object:
    return None if record.applied is None else record.applied.revision


def _is_healthy(record: ReleaseRecord, seen: Observation | None) -> bool:
    """Return True for a machine of a group on probation that is healthy now."""
    if record.phase != "probation" or record.voted is None or record.order.group is None:
        return False
    now = None if seen is None or seen.boot != record.boot else seen.health
    return now is not None and now.healthy


def state_of(
    record: ReleaseRecord, seen: Observation | None, lost: Mapping[str, str]
) -> ReleaseState:
    """Return the state of a release for the coordinator; `lost` are the damages by release."""
    share = None if seen is None else seen.share
    runs = record.applied is not None and not record.halting
    runs = runs and (share is None or share.status not in ENDED)
    down = Down() if seen is None or seen.down is None else seen.down
    failed = down.failed
    if seen is not None and share is not None and has_ended(record, seen):
        failed = failures_of(share)
    return ReleaseState(
        dataflow=record.order.dataflow,
        epoch=record.order.epoch,
        generation=record.order.generation,
        phase=record.phase,
        since=record.since,
        release=record.order.release or "",
        running=record.applied.revision.release if runs and record.applied is not None else "",
        confirmed="" if record.confirmed is None else record.confirmed.revision.release,
        previous="" if record.previous is None else record.previous.release,
        sequence=record.sequence,
        rollout=record.order.rollout,
        reason=record.reason,
        waiting=record.waiting,
        refused=record.refused,
        evidence=record.evidence,
        leases=[] if seen is None else seen.leases,
        restarted=record.restarted,
        failed=failed,
        ended=down.ended,
        healthy=_is_healthy(record, seen),
        armed=record.phase == "staged" and seen is not None and seen.armed,
        group=None if record.confirmed is None else record.confirmed.revision.group,
        previous_group=None if record.previous is None else record.previous.group,
        damaged={each: lost[each] for each in sorted(record.in_use & lost.keys())[:MAX_DAMAGED]},
    )
