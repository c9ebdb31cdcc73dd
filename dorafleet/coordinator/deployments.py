"""Deployments: what should run under a name, and how that came about. The value of a key.

The source is *inline* after `dora start`, which has sent the dataflow itself, else the *release* of
the newest rollout. What each robot runs of it is in `desired/<robot>/<name>`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from dorad.int64 import Int64
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.rollout.model import Rollout

DEPLOYMENTS = "deployment/"

MAX_REVISIONS = 50
"""Revisions of a deployment that are kept."""

LARGE = 1 << 19
"""Bytes of a run that leaves no room for more than the last revision: it must stay stoppable."""


class Revision(msgspec.Struct, frozen=True):
    """A change of what should run: another source, other nodes, another placement, or a stop."""

    number: Int64
    """From 1."""
    at: float
    """Seconds since 1970."""
    what: str
    """The action, as the audit has it: `dataflow.start`, `rollout.undo`."""
    by: str = ""
    run: str = ""
    """The UUID of the run, if the source is inline."""
    release: str = ""
    """The id of the release, if it is one."""
    rollout: Int64 = 0
    instances: list[str] = []
    """Those that were undone; none for all."""


class Deployment(msgspec.Struct, frozen=True):
    """The value of `deployment/<name>`."""

    name: str
    """The UUID of the run, if that has no name."""
    source: Literal["inline", "release"]
    run: DataflowRecord | None = None
    """The last run that was started with an inline source, until it is cleaned."""
    rollout: Int64 = 0
    """The newest rollout, which has release, scope and strategy; 0 for none."""
    robots: list[str] = []
    """For which the newest rollout is; none selects all."""
    labels: dict[str, str] = {}
    """Labels that they must have, too."""
    params: dict[str, Any] | None = None
    """That it has set, by `node/name`; None has kept those of each robot."""
    history: list[Revision] = []
    """The last revisions, the oldest first."""

    @property
    def key(self) -> str:
        """Its key in the store."""
        return f"{DEPLOYMENTS}{self.name}"

    @property
    def revision(self) -> Revision:
        """The last revision; its number is 0 if there is none."""
        return self.history[-1] if self.history else Revision(0, 0.0, "")


def with_run(
    before: Deployment | None, run: DataflowRecord, what: str, by: str, at: float
) -> Deployment:
    """Return a deployment after its run has changed by the action `what`.

    The end of the run, its opened barrier and its parameters are not revisions.
    """
    old = None if before is None else before.run
    now = before or Deployment(run.key, "inline")
    now = msgspec.structs.replace(now, run=run)
    if old is not None and (old.uuid, old.generation) == (run.uuid, run.generation):
        return now
    now = msgspec.structs.replace(now, source="inline")
    return _revised(now, Revision(0, at, what, by, run=run.uuid))


def with_rollout(
    before: Deployment | None,
    rollout: Rollout,
    robots: list[str],
    labels: dict[str, str],
    params: dict[str, Any] | None,
) -> Deployment:
    """Return a deployment after a rollout has begun."""
    now = msgspec.structs.replace(
        before or Deployment(rollout.dataflow, "release"),
        source="release",
        rollout=rollout.number,
        robots=robots,
        labels=labels,
        params=params,
    )
    return _revised(now, _begun(rollout))


def with_act(
    before: Deployment, rollout: Rollout, what: str, by: str, at: float, instances: list[str]
) -> Deployment:
    """Return a deployment after an operator has changed where its newest rollout leads.

    It leads there for all `instances`, or for some.
    """
    release, number = rollout.release, rollout.number
    change = Revision(0, at, what, by, release=release, rollout=number, instances=instances)
    return _revised(before, change)


def without_run(before: Deployment) -> Deployment | None:
    """Return a deployment whose run has ended and is forgotten; None if nothing is left."""
    if not before.rollout:
        return None
    return msgspec.structs.replace(before, run=None, source="release")


def converted(
    name: str,
    known: Deployment | None,
    run: DataflowRecord | None,
    newest: int,
    rollouts: Iterable[Rollout],
) -> Deployment:
    """Return a deployment of what a store of an earlier version has under a name.

    `known` is what was converted before, `rollouts` are those of the dataflow that are kept.
    """
    heads = sorted(rollouts, key=lambda each: each.number)
    changes = [] if run is None else [Revision(0, run.started_at, "dataflow.start", run=run.uuid)]
    changes += [_begun(head) for head in heads]
    number = max([newest, *(head.number for head in heads)], default=0)
    is_inline = run is not None and (run.running or not number)
    now = known or Deployment(name, "release")
    now = msgspec.structs.replace(
        now,
        source="inline" if is_inline else "release",
        run=run or now.run,
        rollout=max(number, now.rollout),
    )
    for change in () if now.history else sorted(changes, key=lambda each: each.at):
        now = _revised(now, change)
    return now


def name_of(instance: str, dataflow: str) -> str:
    """Return how commands name an instance: one over all machines has its dataflow's name."""
    return dataflow if instance == dataflow else f"{instance}/{dataflow}"


def by_of(actor: Mapping[str, Any]) -> str:
    """Return who makes a change, for people."""
    return str(actor.get("peer") or actor.get("client") or "")


def _begun(rollout: Rollout) -> Revision:
    return Revision(
        0,
        rollout.created,
        "rollout.start",
        rollout.by,
        release=rollout.release,
        rollout=rollout.number,
    )


def _revised(now: Deployment, change: Revision) -> Deployment:
    number = now.revision.number + 1
    large = now.run is not None and len(msgspec.json.encode(now.run)) > LARGE
    kept = 0 if large else MAX_REVISIONS - 1
    history = now.history[-kept:] if kept else []
    change = msgspec.structs.replace(change, number=number)
    return msgspec.structs.replace(now, history=[*history, change])
