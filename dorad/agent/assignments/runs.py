"""The run that dorad is asked for: its record, and what the agent does next. Pure functions."""

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from dorad.control.messages import DataflowInfo, DataflowState
from dorad.control.messages.agent import ShareSet, ShareState, ShareStatus

EndStatus = Literal["stopped", "finished", "failed"]

BARRIER_S = 30.0
"""Seconds that a robot waits at a start barrier of its own for the links to other machines. Then
the dataflow starts without them: a machine that is away must not keep the others from their work.
"""
HOLD_S = 300.0
"""Until the daemon fails such a start, if no agent runs."""

RETRIED = ("unavailable", "busy", "deadline", "cancelled", "too-slow", "internal")
"""Codes of errors after which the same request may succeed later."""


class Begun(msgspec.Struct, frozen=True):
    """The run that dorad was last ordered to start, and the order that it follows."""

    uuid: str
    version: tuple[int, int]
    """Epoch and generation of the order."""
    digest: str
    """Of the order's content, and of the identity that its links use."""
    boot: str
    """The boot id of the machine when it was started."""
    previous: float | None = None
    """When an earlier run with this uuid, which had ended, was started."""
    ran: bool = False
    """Whether dorad has accepted the order."""
    trouble: str = ""
    """Why dorad refused to change the run to the order; the run continues unchanged."""


class Ended(msgspec.Struct, frozen=True):
    """The outcome of an order."""

    status: EndStatus
    since: float
    reason: str = ""
    outcome: DataflowState | None = None


class RunRecord(msgspec.Struct, frozen=True):
    """The run that an assignment asks of dorad: its order, how far it has come, and its end."""

    order: ShareSet
    boot: str
    """The boot id of the machine when the order arrived."""
    begun: Begun | None = None
    ended: Ended | None = None
    """None while there is something to do for the order."""
    opens: bool = False
    """Whether this robot opens the start barrier itself, at each start: see `BARRIER_S`."""

    @property
    def version(self) -> tuple[int, int]:
        """Epoch and generation of the order."""
        return self.order.epoch, self.order.generation

    def same_order(self, order: ShareSet) -> bool:
        """Return True if an order is that of the record, possibly in another coordinator's term."""
        own = self.order
        return (own.generation, own.content.uuid, own.enabled) == (
            order.generation,
            order.content.uuid,
            order.enabled,
        )

    @property
    def started(self) -> bool:
        """Whether dorad was ordered to start or change a run for the order."""
        begun = self.begun
        return begun is not None and begun.version == self.version

    def followed(self, identity: str) -> bool:
        """Return True if the run that was begun has the order's content, and this identity."""
        begun = self.begun
        return (
            begun is not None and self.started and begun.digest == digest_of(self.order, identity)
        )


class Present(NamedTuple):
    """What may have changed since a run was begun."""

    boot: str
    """The boot id of the machine."""
    identity: str
    """Changes with the key and the certificate."""


class Run(msgspec.Struct, frozen=True):
    """What dorad knows of one uuid."""

    info: DataflowInfo
    state: DataflowState | None = None
    """None as long as not every node has a process."""
    waited: float = 0.0
    """Seconds that it starts already, as far as this agent knows; 0 once its barrier is open."""

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.info.active

    @property
    def ready(self) -> bool:
        """Whether only `dataflow.open` is missing."""
        return self.state is not None and self.state.ready


Runs: TypeAlias = Mapping[str, Run]
"""What dorad knows, by uuid."""


class Start(msgspec.Struct, frozen=True):
    """Start the run."""

    hold: float | None
    previous: float | None
    """See `Begun`."""


class Change(msgspec.Struct, frozen=True):
    """Change a run to the content of its order."""


class Open(msgspec.Struct, frozen=True):
    """Open the start barrier."""


class Stop(msgspec.Struct, frozen=True):
    """Stop a run."""

    uuid: str


class Conclude(msgspec.Struct, frozen=True):
    """Record that the order is completed."""

    status: EndStatus


Action: TypeAlias = Start | Change | Open | Stop | Conclude


def decide(record: RunRecord, runs: Runs, now: Present) -> Action | None:
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


def _steer(record: RunRecord, run: Run, now: Present) -> Action | None:
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


def begin(record: RunRecord, now: Present, previous: float | None) -> RunRecord:
    """Return the record of an order that is carried out from now on."""
    order = record.order
    digest = digest_of(order, now.identity)
    begun = Begun(
        order.content.uuid, record.version, digest, now.boot, previous, ran=has_run(record)
    )
    return msgspec.structs.replace(record, begun=begun)


def has_run(record: RunRecord) -> bool:
    """Return True if dorad has accepted the order before, possibly before a reboot."""
    return record.started and record.begun is not None and record.begun.ran


def mark_run(record: RunRecord, uuid: str) -> RunRecord:
    """Return the record of a run that dorad has accepted."""
    if record.begun is None or record.begun.uuid != uuid:
        return record
    return msgspec.structs.replace(record, begun=msgspec.structs.replace(record.begun, ran=True))


def mark_seen(record: RunRecord, runs: Runs) -> RunRecord:
    """Return the record once dorad runs what was begun: a kill may have come before `mark_run`."""
    begun = record.begun
    if begun is None or begun.ran:
        return record
    run = runs.get(begun.uuid)
    return mark_run(record, begun.uuid) if run is not None and run.active else record


def follow(record: RunRecord, order: ShareSet, now: Present, trouble: str = "") -> RunRecord:
    """Return the record of a run that was changed to an order, or could not be: `trouble`.

    A newer order may have arrived meanwhile.
    """
    asked = record if record.same_order(order) else RunRecord(order=order, boot=now.boot)
    digest = digest_of(order, now.identity)
    begun = Begun(order.content.uuid, asked.version, digest, now.boot, trouble=trouble, ran=True)
    if record.begun is not None:
        begun = msgspec.structs.replace(
            begun, boot=record.begun.boot, previous=record.begun.previous
        )
    return msgspec.structs.replace(record, begun=begun)


def conclude(
    record: RunRecord, status: EndStatus, now: float, reason: str, run: Run | None
) -> RunRecord:
    """Return the record of a completed order."""
    outcome = None if run is None else run.state
    ended = Ended(status, now, reason, outcome)
    return msgspec.structs.replace(record, ended=ended)


def state_of(
    record: RunRecord,
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
    record: RunRecord, runs: Runs, trouble: str, before: ShareState | None, now: float
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


def _status(record: RunRecord, run: Run) -> ShareStatus:
    if run.info.status == "stopping" or not record.order.enabled:
        return "stopping"
    if run.ready and record.order.hold is not None:
        return "ready"
    return "running" if run.info.status == "running" else "starting"


def digest_of(order: ShareSet, identity: str) -> str:
    """Return the SHA-256 of an order's content, with the robot's identity if it has links."""
    digest = hashlib.sha256(msgspec.json.encode(order.content))
    share = order.content.share
    if share.listen or share.connect:
        digest.update(identity.encode())
    return digest.hexdigest()
