"""What the agent does next for a share. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from dorad.agent.model import Begun, Ended, EndStatus, Present, Run, ShareRecord, digest_of
from dorad.control.errors import ControlError
from dorad.control.messages.agent import ShareState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.control.messages.agent import ShareRef, ShareSet, ShareStatus

    Runs = Mapping[str, Run]
    """What dorad knows, by uuid."""

BARRIER_S = 30.0
"""Seconds that a robot waits at a start barrier of its own for the links to other machines. Then
the dataflow starts without them: a machine that is away must not keep the others from their work.
"""
HOLD_S = 300.0
"""Until the daemon fails such a start, if no agent runs."""

RETRIED = ("unavailable", "busy", "deadline", "cancelled", "too-slow", "internal")
"""Codes of errors after which the same request may succeed later."""


class Start(msgspec.Struct, frozen=True):
    """Start the share."""

    hold: float | None
    previous: float | None
    """See `Begun`."""


class Change(msgspec.Struct, frozen=True):
    """Change a running share to the content of its order."""


class Open(msgspec.Struct, frozen=True):
    """Open the start barrier."""


class Stop(msgspec.Struct, frozen=True):
    """Stop a run."""

    uuid: str


class Conclude(msgspec.Struct, frozen=True):
    """Record that the order is completed."""

    status: EndStatus


Action: TypeAlias = Start | Change | Open | Stop | Conclude


def decide(record: ShareRecord, runs: Runs, now: Present) -> Action | None:
    """Return the next action; None if the share is in its desired state or needs time.

    `runs` are all that dorad knows.
    """
    order, begun = record.order, record.begun
    if record.ended is not None:
        return None
    uuid = order.content.uuid
    if begun is not None and begun.uuid != uuid and (old := runs.get(begun.uuid)) and old.active:
        return None if old.info.status == "stopping" else Stop(begun.uuid)
    run = runs.get(uuid)
    if run is not None and run.active:
        return _steer(record, run, now)
    if not order.enabled:
        return Conclude("stopped")
    hold = order.hold if record.boot == now.boot or record.opens else None
    if run is None:
        return Start(hold, None)
    if begun is None or not record.started or run.info.started_at == begun.previous:
        return Start(hold, run.info.started_at)
    if begun.boot != now.boot and run.info.interrupted:
        # At shutdown dorad stops its dataflows after the agent has ended.
        return Start(hold, run.info.started_at)
    return Conclude("finished" if run.info.status == "finished" else "failed")


def _steer(record: ShareRecord, run: Run, now: Present) -> Action | None:
    """Return what to do for a run of the order's uuid that has not ended."""
    order = record.order
    if run.info.status == "stopping":
        # A stop that waits for the nodes may be followed by one that does not.
        return Stop(run.info.uuid) if order.force and not order.enabled else None
    if not order.enabled:
        return Stop(run.info.uuid)
    if not record.followed(now.identity):
        return Change()
    if record.opens:
        # Also after the boots and restarts that follow this order.
        return Open() if run.ready or run.waited >= BARRIER_S else None
    return Open() if run.ready and order.hold is None else None


def take_order(
    record: ShareRecord | None, order: ShareSet, boot: str, *, opens: bool = False
) -> ShareRecord:
    """Return the record after an order; `opens` says whether this robot opens its barrier itself.

    Raises:
        ControlError: with code `conflict`: the order is older than that of the record, or differs
            from it under the same number.
    """
    if record is None:
        return ShareRecord(order=order, boot=boot, opens=opens)
    check_version(record, order.epoch, order.generation)
    if not record.same_order(order):
        if record.version == (order.epoch, order.generation):
            raise ControlError(
                "conflict",
                f"the share of {order.dataflow} here has generation {order.generation} already, "
                "but that orders another run, or has the opposite `enabled`",
            )
        return ShareRecord(order=order, boot=boot, begun=record.begun, opens=opens)
    if record.order.hold is None:
        # A barrier that is open stays open.
        order = msgspec.structs.replace(order, hold=None)
    return _renumber(record, order)


def _renumber(record: ShareRecord, order: ShareSet) -> ShareRecord:
    """Return the record with the same order, possibly from a coordinator with a new term."""
    begun = record.begun
    if begun is not None and record.started:
        begun = msgspec.structs.replace(begun, version=(order.epoch, order.generation))
    return msgspec.structs.replace(record, order=order, begun=begun)


def forget_epoch(record: ShareRecord) -> ShareRecord:
    """Return the record for the coordinators of another fleet, whose epochs start again."""
    return _renumber(record, msgspec.structs.replace(record.order, epoch=0))


def check_version(record: ShareRecord, epoch: int, generation: int) -> None:
    """Raise ControlError with code `conflict` if (epoch, generation) is older than the record's."""
    if (epoch, generation) < record.version:
        raise ControlError(
            "conflict",
            f"the share of {record.order.dataflow} here is of epoch {record.order.epoch}, "
            f"generation {record.order.generation}; epoch {epoch}, generation {generation} is "
            "older",
        )


def open_barrier(record: ShareRecord, ref: ShareRef) -> ShareRecord:
    """Return the record once `share.open` has arrived. Raises as `take_order`.

    Raises:
        ControlError: with code `conflict`: it is not for the order of the record.
    """
    check_version(record, ref.epoch, ref.generation)
    if ref.generation != record.order.generation:
        raise ControlError(
            "conflict",
            f"the share of {ref.dataflow} here is of generation {record.order.generation}, "
            f"not {ref.generation}",
        )
    return _renumber(record, msgspec.structs.replace(record.order, epoch=ref.epoch, hold=None))


def begin(record: ShareRecord, now: Present, previous: float | None) -> ShareRecord:
    """Return the record of an order that is carried out from now on."""
    order = record.order
    digest = digest_of(order, now.identity)
    begun = Begun(
        order.content.uuid, record.version, digest, now.boot, previous, ran=has_run(record)
    )
    return msgspec.structs.replace(record, begun=begun)


def has_run(record: ShareRecord) -> bool:
    """Return True if dorad has accepted the order before, possibly before a reboot."""
    return record.started and record.begun is not None and record.begun.ran


def mark_run(record: ShareRecord, uuid: str) -> ShareRecord:
    """Return the record of a run that dorad has accepted."""
    if record.begun is None or record.begun.uuid != uuid:
        return record
    return msgspec.structs.replace(record, begun=msgspec.structs.replace(record.begun, ran=True))


def mark_seen(record: ShareRecord, runs: Runs) -> ShareRecord:
    """Return the record once dorad runs what was begun: a kill may have come before `mark_run`."""
    begun = record.begun
    if begun is None or begun.ran:
        return record
    run = runs.get(begun.uuid)
    return mark_run(record, begun.uuid) if run is not None and run.active else record


def follow(record: ShareRecord, order: ShareSet, now: Present, trouble: str = "") -> ShareRecord:
    """Return the record of a run that was changed to an order, or could not be: `trouble`.

    A newer order may have arrived meanwhile.
    """
    asked = record if record.same_order(order) else ShareRecord(order=order, boot=now.boot)
    digest = digest_of(order, now.identity)
    begun = Begun(order.content.uuid, asked.version, digest, now.boot, trouble=trouble, ran=True)
    if record.begun is not None:
        begun = msgspec.structs.replace(
            begun, boot=record.begun.boot, previous=record.begun.previous
        )
    return msgspec.structs.replace(record, begun=begun)


def conclude(
    record: ShareRecord, status: EndStatus, now: float, reason: str, run: Run | None
) -> ShareRecord:
    """Return the record of a completed order."""
    outcome = None if run is None else run.state
    ended = Ended(status, now, reason, outcome)
    return msgspec.structs.replace(record, ended=ended)


def state_of(
    record: ShareRecord,
    runs: Runs,
    trouble: str,
    before: ShareState | None,
    now: float,
    note: str = "",
) -> ShareState:
    """Return what to report of a share.

    `trouble` is why it could not be carried out yet; `before` is what was reported last. `note` is
    added to the reason.
    """
    state = _state_of(record, runs, trouble, before, now)
    if note:
        state.reason = f"{state.reason}; {note}" if state.reason else note
    return state


def _state_of(
    record: ShareRecord, runs: Runs, trouble: str, before: ShareState | None, now: float
) -> ShareState:
    order, begun, ended = record.order, record.begun, record.ended
    state = ShareState(
        dataflow=order.dataflow,
        uuid=order.content.uuid,
        epoch=order.epoch,
        generation=order.generation,
        status="pending",
        since=now,
        reason=trouble,
    )
    if ended is not None:
        state.status, state.since, state.reason = ended.status, ended.since, ended.reason
        state.outcome = ended.outcome
        return state
    run = runs.get(order.content.uuid)
    if begun is not None and begun.uuid != order.content.uuid and begun.uuid in runs:
        run = runs[begun.uuid]
    if run is not None and run.active:
        state.status = _status(record, run)
        state.uuid = run.info.uuid
        if begun is not None and not record.started and order.enabled:
            state.epoch, state.generation = begun.version
        state.links = {} if run.state is None else run.state.links
        if begun is not None and begun.trouble and not trouble:
            state.reason = begun.trouble
    if before is not None and before.status == state.status:
        state.since = before.since
    return state


def _status(record: ShareRecord, run: Run) -> ShareStatus:
    if run.info.status == "stopping" or not record.order.enabled:
        return "stopping"
    if run.ready and record.order.hold is not None:
        return "ready"
    return "running" if run.info.status == "running" else "starting"
