"""A switch to a release: the change, its probation, and the return. Pure."""

from msgspec.structs import replace

from dorad.agent.assignments.health import is_about_links
from dorad.agent.assignments.model import (
    MAX_FAILED,
    Baseline,
    Failed,
    Health,
    Observation,
    ReleaseRecord,
)
from dorad.agent.assignments.runs import BARRIER_S
from dorad.agent.assignments.steps import ENDED, apply, end_of, enter, is_stopping

MAX_SWITCH_BOOTS = 3
"""How often a switch is repeated after restarts of the machine; then the robot reverts."""
MAX_PROBATION_BOOTS = 1
MAX_CHANGES = 3
"""Attempts to change a running dataflow back; then it is stopped and started."""
REVERT_RETRY_S = 2.0
STUCK_RETRY_S = 30.0
NOTHING_LEFT = (
    "it stays: every release that was confirmed here has failed or was undone; roll out another one"
)


def switching(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record while the daemon changes the dataflow."""
    if record.boot != seen.boot:
        if record.tries >= MAX_SWITCH_BOOTS:
            why = f"the machine was restarted {record.tries + 1} times during the switch"
            return _fail(record, seen, why, blame=record.order.group is None)
        record = replace(record, boot=seen.boot, switched=seen.now, tries=record.tries + 1)
    if record.halting:
        if is_stopping(record, seen):
            return _in_time(record, seen, "the old dataflow does not stop")
        record = replace(record, halting=False, step=record.step + 1)
    share = seen.share
    if share is None or share.generation != record.step:
        return _in_time(record, seen, "the daemon has not begun")
    if share.status in ENDED:
        return _fail(record, seen, end_of(share))
    if share.status == "running" and share.reason:
        return _fail(record, seen, share.reason)
    if share.status == "running":
        return enter(replace(record, tries=0), "probation", "")
    return _in_time(record, seen, share.reason or f"the dataflow is {share.status}")


def probation(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record while the health of the new revision is checked."""
    rules, group = record.order.rules, record.order.group
    committed = group is not None and record.order.committed
    if committed and record.voted is not None:
        # What fails from now on fails after the confirmation, as on the other machines.
        return _confirm(record, seen, record.voted)
    if record.boot != seen.boot:
        if record.tries >= MAX_PROBATION_BOOTS:
            why = "the machine was restarted twice before it was confirmed"
            return _fail(record, seen, why, blame=group is None)
        return replace(
            record, boot=seen.boot, switched=seen.now, tries=record.tries + 1, healthy_at=None
        )
    elapsed = seen.now - record.switched
    share, health = seen.share, seen.health
    healthy = health is not None and health.healthy
    if health is not None:
        since = seen.now if record.healthy_at is None else record.healthy_at
        record = replace(record, evidence=health.evidence, healthy_at=since if healthy else None)
    contact = group is not None or not record.contact or _is_heard(record, seen)
    if share is not None and share.generation == record.step and share.status in ENDED:
        return _fail(record, seen, end_of(share))
    if health is not None and health.fatal:
        return _fail(record, seen, health.fatal)
    if healthy and contact:
        assert health is not None
        baseline = _baseline_of(health)
        if group is None or committed:
            return _confirm(record, seen, baseline)
        record = replace(record, voted=record.voted or baseline)
    if group is not None and not committed and elapsed >= rules.confirm_deadline:
        why = f"no word about the other machines of {group.instance}"
        return _fail(record, seen, f"{why} for {rules.confirm_deadline:g} s", blame=False)
    silent = seen.now - max(record.switched, seen.contact or 0.0)
    if not contact and silent >= rules.confirm_deadline:
        why = f"no contact to the coordinator for {rules.confirm_deadline:g} s"
        return _fail(record, seen, why, blame=False)
    if not healthy and elapsed >= rules.healthy_deadline:
        bad = [each for each in record.evidence if not each.ok]
        if committed and all(is_about_links(each, record.applied) for each in bad):
            # The other machines have confirmed it, and may be away now: to leave it heals nothing.
            names = ", ".join(each.check for each in bad[:3]) or "an answer of the daemon"
            return _because(record, f"every machine was healthy with it; it waits for: {names}")
        texts = "; ".join(f"{each.check}: {each.text}" for each in bad[:3])
        why = texts or "it did not stay healthy for long enough"
        why = f"not healthy after {rules.healthy_deadline:g} s: {why}"
        # Other machines may be the cause; once all were healthy, it is this one.
        return _fail(record, seen, why, blame=group is None or committed)
    if not healthy:
        return _because(record, "")
    if group is not None:
        return _because(record, f"it waits for the other machines of {group.instance}")
    return _because(record, "it waits for contact to the coordinator")


def soaking(record: ReleaseRecord, seen: Observation, failed: str) -> ReleaseRecord:
    """Return the record of a confirmed revision: it goes back if a node fails in its soak time.

    `failed` says which nodes have failed; empty for none. Or the coordinator withdraws it, because
    they have failed while the rollout was watched.
    """
    withdrawn = record.order.withdraw and record.applied == record.confirmed
    if record.soaks_since is None and not withdrawn:
        return record
    if record.soaks_since is not None and record.boot != seen.boot:
        record = replace(record, boot=seen.boot, soaks_since=seen.now)
    if failed or withdrawn:
        if seen.leases and record.order.busy == "wait":
            why = f"{failed or 'withdrawn'}; it goes back when it is no longer busy: "
            return replace(record, reason=why + seen.leases[0].owner)
        why = failed or "nodes of it have failed, and run again"
        return _fail(record, seen, f"failed after its confirmation: {why}")
    assert record.soaks_since is not None
    if seen.now - record.soaks_since < record.order.soak_time:
        return record
    return replace(record, soaks_since=None)


def reverting(record: ReleaseRecord, seen: Observation) -> ReleaseRecord:
    """Return the record during a return, or after its failure."""
    if record.phase == "stuck" and record.applied is not None:
        stays = record.applied != record.confirmed  # `auto_revert` is off
        if stays or record.is_rejected(record.applied.revision):
            return record
    if record.boot != seen.boot:
        record = replace(record, boot=seen.boot, switched=seen.now, tries=0, retry_at=0.0)
    if record.halting and record.applied is not None:
        if is_stopping(record, seen):
            return _stuck_in_time(record, seen, "the dataflow does not stop")
        record = replace(record, halting=False, step=record.step + 1)
    share = seen.share
    if share is None or share.generation != record.step:
        return _stuck_in_time(record, seen, "the daemon has not begun")
    if record.applied is None and share.status in ENDED:
        return _reverted(record)
    if record.applied is not None and share.status == "running" and not share.reason:
        return _reverted(record)
    failed = share.status in ENDED or (share.status == "running" and share.reason)
    if failed and record.applied is not None and seen.now >= record.retry_at:
        tries = record.tries + 1
        pause = STUCK_RETRY_S if record.phase == "stuck" else REVERT_RETRY_S
        record = replace(
            record,
            tries=tries,
            retry_at=seen.now + pause,
            step=record.step + 1,
            halting=tries % MAX_CHANGES == 0 and share.status == "running",
        )
    return _stuck_in_time(record, seen, share.reason or f"the dataflow is {share.status}")


def go_back(record: ReleaseRecord, seen: Observation, reason: str) -> ReleaseRecord:
    """Return the record that begins to revert to the last confirmed revision.

    Not to one that has failed here or was undone: then to the one before it. If there is none, the
    robot stays with what it has, and asks.
    """
    record = replace(
        record, boot=seen.boot, switched=seen.now, tries=0, retry_at=0.0, soaks_since=None,
        voted=None,
    )  # fmt: skip
    confirmed, former = record.confirmed, record.former
    if confirmed is None or not record.is_rejected(confirmed.revision):
        return enter(apply(record, confirmed, seen), "reverting", reason)
    if record.first and record.phase == "confirmed":
        record = replace(record, confirmed=None, first=False, baseline=Baseline())
        return enter(apply(record, None, seen), "reverting", reason)
    if former is None or record.is_rejected(former.revision):
        return enter(record, "stuck", f"{reason}; {NOTHING_LEFT}")
    finished = () if seen.down is None else seen.down.finished
    ran = [node for node in record.baseline.nodes if node not in finished]
    nodes = [node for node in former.nodes if node in ran or node not in confirmed.nodes]
    # Rates are those of the release that is left: they are measured again.
    record = replace(
        record,
        confirmed=former,
        former=None,
        first=False,
        previous=None,
        baseline=Baseline(nodes=nodes, notices=record.baseline.notices),
    )
    return enter(apply(record, former, seen), "reverting", reason)


def _is_heard(record: ReleaseRecord, seen: Observation) -> bool:
    """Return True if the coordinator gave a sign of life at the end of the healthy time.

    While it is not healthy, one since the switch is enough: then nothing is confirmed.
    """
    if seen.contact is None:
        return False
    if record.healthy_at is None:
        return seen.contact > record.switched
    return seen.contact >= record.healthy_at


def _baseline_of(health: Health) -> Baseline:
    return Baseline(
        rates=health.rates, nodes=health.nodes, misses=health.misses, settled=health.settled
    )


def _confirm(record: ReleaseRecord, seen: Observation, baseline: Baseline) -> ReleaseRecord:
    assert record.applied is not None
    before = record.confirmed
    previous, former = record.previous, record.former
    if before is not None and before.revision != record.applied.revision:
        previous, former = before.revision, before
    record = replace(
        record,
        confirmed=record.applied,
        previous=previous,
        former=former,
        first=before is None,
        soaks_since=seen.now if record.order.soak_time > 0 else None,
        healthy_at=None,
        voted=None,
        baseline=baseline,
        sequence=max(record.sequence, record.switched_sequence),
    )
    return enter(record, "confirmed", "")


def _fail(
    record: ReleaseRecord, seen: Observation, reason: str, *, blame: bool = True
) -> ReleaseRecord:
    """Return the record of a revision that is not confirmed; `blame` records the failure."""
    target = record.target
    if blame and target is not None:
        known = [each for each in record.failed if each.digest != target.digest]
        failed = [*known, Failed(target.digest, reason[:1000])][-MAX_FAILED:]
        record = replace(record, failed=failed)
    if not record.order.auto_revert and record.phase == "probation":
        return enter(replace(record, switched=seen.now), "stuck", f"{reason}; it stays, as ordered")
    return go_back(record, seen, reason)


def _in_time(record: ReleaseRecord, seen: Observation, reason: str) -> ReleaseRecord:
    """Wait for a switch, or revert if it takes too long."""
    deadline = _start_deadline(record)
    if seen.now - record.switched < deadline:
        return _because(record, reason)
    why = f"not running after {deadline:g} s: {reason}"
    return _fail(record, seen, why, blame=record.order.group is None)


def _start_deadline(record: ReleaseRecord) -> float:
    """Return the seconds from the switch until the dataflow must run."""
    group = None if record.applied is None else record.applied.revision.group
    # It may wait that long for the links to other machines.
    return record.order.rules.healthy_deadline + (0.0 if group is None else BARRIER_S)


def _because(record: ReleaseRecord, reason: str) -> ReleaseRecord:
    """Return the record in the same phase, with the reason for it."""
    return replace(record, reason=reason)


def _reverted(record: ReleaseRecord) -> ReleaseRecord:
    """Return the record once the confirmed revision runs again."""
    if record.confirmed is not None and record.target == record.confirmed.revision:
        return enter(record, "confirmed", "")
    reason = record.reason.removeprefix("cannot go back: ")
    return enter(record, "reverted", reason)


def _stuck_in_time(record: ReleaseRecord, seen: Observation, reason: str) -> ReleaseRecord:
    if record.phase == "stuck" or seen.now - record.switched < _start_deadline(record):
        return record
    return enter(record, "stuck", f"cannot go back: {reason}; before that: {record.reason}")
