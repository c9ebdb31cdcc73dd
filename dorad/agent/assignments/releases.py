"""What the robot does for dataflows that come from releases: observe, decide, and store.

The loop of `Assignments` begins each observation; what a release decides is stored in one step with
the run that it asks for.
"""

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import Protocol

from msgspec.structs import replace

from dorad.agent.assignments import decide as rules
from dorad.agent.assignments.act import links_missing
from dorad.agent.assignments.files import DamageCheck, Library
from dorad.agent.assignments.model import Assignment, Observation, ReleaseRecord
from dorad.agent.assignments.observations import Observations
from dorad.agent.assignments.orders import take_run
from dorad.agent.assignments.queries import Contact
from dorad.agent.assignments.runs import HOLD_S, RunRecord
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages.agent import ShareSet, ShareState
from dorad.control.messages.releases import ReleaseState

CALM_EVERY_S = 30.0
"""Time between two observations of a dataflow from releases when nothing runs."""
CONFIRMED_EVERY_S = 5.0
"""The same while a confirmed release runs: its nodes may fail."""
SWITCH_EVERY_S = 1.0
"""The same during a switch, or while something must not be interrupted."""
WAITING_EVERY_S = 3.0
"""The same while a release is received."""

_log = logging.getLogger(__name__)


class Loop(Protocol):
    """The loop that carries out the runs."""

    states: dict[str, ShareState]
    """The state of each run, by the name of the dataflow."""

    def observe(self, name: str = "") -> None:
        """Observe a dataflow soon; all of them without a name."""

    def turn(self) -> None:
        """Take another turn, without a look at dorad: the time of the next one has changed."""

    def taken(self, before: RunRecord | None, order: ShareSet) -> None:
        """Carry out the order for a run, which was stored."""

    def forget(self, name: str) -> None:
        """Forget a dataflow that does not run. Raises ControlError."""

    def update_states(self) -> None:
        """Report what has changed."""


class Releases:
    """All dataflows of this robot that come from releases. Belongs to one event loop."""

    def __init__(
        self,
        store: AssignmentStore,
        observations: Observations,
        library: Library,
        boot: str,
        contact: Contact,
        loop: Loop,
    ) -> None:
        self._store = store
        self._observations = observations
        self._library = library
        self._boot = boot
        self._contact = contact
        self._loop = loop
        self._damage = DamageCheck(library, self._in_use, loop.update_states)
        self._observing: set[str] = set()
        self._due: dict[str, float] = {}
        """When each dataflow is observed next, by the loop's clock."""
        self._staging: set[str] = set()
        self._seen: dict[str, Observation] = {}
        self._unmade: dict[str, str] = {}
        """By dataflow: why the run that its release asks for is not stored."""

    def observe(self, name: str) -> None:
        """Observe a dataflow in the next turn of the loop; all of them if the name is empty."""
        self._due |= dict.fromkeys([name] if name else self._store.releases, 0.0)

    def try_again(self, *, but: str | None) -> None:
        """Forget why releases could not be used, except one.

        What was wrong may be repaired: a key that is trusted now, room on the disk.
        """
        self._observations.forget_refusals(self._kept() - {but or ""})

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to check the files of releases."""
        tasks.create_task(self._damage.run(), name="files of releases")

    def begin(self, tasks: asyncio.TaskGroup) -> float:
        """Begin the observations that are due; return when the next one is, by the loop's clock."""
        now = asyncio.get_running_loop().time()
        for name in self._store.releases.keys() - self._observing:
            if self._due.get(name, 0.0) <= now:
                self._observing.add(name)
                self._due[name] = math.inf
                tasks.create_task(self._follow(name, tasks), name=f"observe {name}")
        own = self._store.releases.keys() - self._observing
        return min((self._due.get(name, 0.0) for name in own), default=math.inf)

    def states(self, runs: Mapping[str, ShareState]) -> dict[str, ReleaseState]:
        """Return what to report of each dataflow; `runs` are the states of the runs."""
        return {
            name: self._state(name, record, runs.get(name))
            for name, record in self._store.releases.items()
        }

    async def _follow(self, name: str, tasks: asyncio.TaskGroup) -> None:
        """Observe a dataflow that comes from releases, and take the next step with it."""
        try:
            await self._advance(name, tasks)
        except ControlError as error:
            _log.warning("release of %s: %s; it is tried again", name, error)
        finally:
            self._observing.discard(name)
        assignment = self._store.assignments.get(name)
        if assignment is None or assignment.release is None:
            return
        now = asyncio.get_running_loop().time()
        # It may have been woken meanwhile.
        self._due[name] = min(self._due.get(name, math.inf), now + _pause(assignment.release))
        self._loop.update_states()
        self._loop.turn()

    async def _advance(self, name: str, tasks: asyncio.TaskGroup) -> None:
        if _is_active(self._store.releases[name]):
            await self._contact.renew()
        record = self._store.releases[name]
        seen = await self._observations.observe(record, self._loop.states.get(name), tasks)
        present = self._store.assignments.get(name)
        if present is None or present.release is not record:
            self._loop.observe(name)  # an order has arrived meanwhile
            return
        self._seen[name] = seen
        release = rules.decide(record, seen)
        after = self._with_run(replace(present, release=release))
        if after != present:
            if not self._keep(after, record):
                return
            if after.run is not None and after.run is not present.run:
                self._loop.taken(present.run, after.run.order)
            if release.phase != record.phase or release.step != record.step:
                self._loop.observe(name)
        if release.phase == "staging" and seen.files == "received" and name not in self._staging:
            self._staging.add(name)
            tasks.create_task(self._stage(release), name=f"stage {name}")
        if release.phase == "confirmed" and record.phase == "probation":
            await asyncio.to_thread(self._collect)
        if rules.forgettable(release, seen):
            self._observations.forget(name)
            for known in (self._seen, self._due, self._unmade):
                known.pop(name, None)
            self._loop.forget(name)

    def _with_run(self, assignment: Assignment) -> Assignment:
        """Return an assignment with the run that its release asks for, if that can be made."""
        release, run = assignment.release, assignment.run
        assert release is not None
        name, applied = release.order.dataflow, release.applied
        self._unmade.pop(name, None)
        if not assignment.is_behind:
            return assignment
        enabled = applied is not None and not release.halting
        try:
            if applied is not None and enabled:
                # After a return, the rules are still those of the release that has failed.
                judged = release.order.rules if applied.revision == release.target else None
                content = self._observations.content(release.uuid, name, applied, judged)
            elif run is not None:
                content = run.order.content
            else:
                return assignment
        except ControlError as error:
            self._unmade[name] = f"its run cannot be made: {error.message}"
            _log.error("the run of %s cannot be made: %s", name, error)
            return assignment
        in_group = applied is not None and applied.revision.group is not None
        order = ShareSet(
            epoch=0,
            generation=release.step,
            dataflow=name,
            enabled=enabled,
            content=content,
            alive=release.alive,
            hold=HOLD_S if in_group else None,
        )
        return replace(assignment, run=take_run(run, order, self._boot, opens=in_group))

    def _keep(self, after: Assignment, before: ReleaseRecord) -> bool:
        """Store an assignment; return False if it must not be acted upon, because it is not stored.

        A full disk must keep no robot from going back, but it keeps it from a new switch.
        """
        record = after.release
        assert record is not None
        name = record.order.dataflow
        if record.phase == "switching":
            try:
                self._store.put(after)
            except ControlError as error:
                _log.warning("release of %s: %s", name, error)
                self._unmade[name] = error.message
                return False
        else:
            self._store.keep(after)
        if record.phase != before.phase:
            _log.info(
                "release %.12s of %s is %s%s",
                *(record.order.release or "none", name, record.phase),
                record.reason and f": {record.reason}",
            )
        if record.phase != before.phase or record.step != before.step:
            self._observations.restart_checks(name)
        return True

    async def _stage(self, record: ReleaseRecord) -> None:
        name = record.order.dataflow
        try:
            await self._observations.stage(record)
        finally:
            self._staging.discard(name)
        self._loop.observe(name)

    def _in_use(self) -> set[str]:
        return set().union(*(each.in_use for each in self._store.releases.values()))

    def _kept(self) -> set[str]:
        return set().union(*(each.kept for each in self._store.releases.values()))

    def _collect(self) -> None:
        try:
            self._library.collect(self._kept())
        except (ControlError, OSError) as error:
            _log.warning("old releases cannot be removed: %s", error)

    def _state(self, name: str, record: ReleaseRecord, run: ShareState | None) -> ReleaseState:
        """Return what to report of a dataflow, with what else an operator should know of it."""
        state = rules.state_of(record, self._seen.get(name), self._damage.lost)
        in_group = record.applied is not None and record.applied.revision.group is not None
        runs = in_group and run is not None and run.status == "running"
        missing = links_missing(run.links) if runs and run is not None else ""
        notes = [missing and f"it runs without {missing}", self._unmade.get(name, "")]
        texts = filter(None, [state.reason, *notes, self._store.note(name)])
        return replace(state, reason="; ".join(texts))


def _is_active(record: ReleaseRecord) -> bool:
    """Return True while something follows, or does when the coordinator is silent."""
    waits = not record.order.enabled and record.order.resume_after > 0
    return (waits or record.phase not in ("confirmed", "reverted")) and not record.refused


def _pause(record: ReleaseRecord) -> float:
    """Return the seconds until the next observation of a dataflow that comes from releases."""
    if _is_active(record):
        waits = record.phase == "pending" or (record.waiting == "switch" and not record.order.arm)
        return WAITING_EVERY_S if waits else SWITCH_EVERY_S
    return CALM_EVERY_S if record.refused or record.applied is None else CONFIRMED_EVERY_S
