"""Collect the observations of a dataflow: release on the disk, share, leases, health."""

import asyncio
import logging
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from dorad.agent.assignments import compose, health, queries
from dorad.agent.assignments.files import Library
from dorad.agent.assignments.health import Measurement
from dorad.agent.assignments.model import (
    Applied,
    Down,
    Files,
    Health,
    Observation,
    Plan,
    ReleaseRecord,
    Revision,
)
from dorad.agent.assignments.probes import Commands
from dorad.agent.assignments.queries import Contact
from dorad.agent.daemon import Daemon
from dorad.agent.folder import recordings_folder, settings_file
from dorad.control.agentsettings import read_accepts, refusal
from dorad.control.errors import ControlError
from dorad.control.messages import NodeInfo
from dorad.control.messages.agent import ShareContent, ShareState
from dorad.control.messages.leases import MAX_RESERVED_S
from dorad.control.messages.releases import PREPARING, Evidence, HealthRules, Lease

ASK_AGAIN_S = 2.0
"""Minimum time between two runs of a command that has failed."""

_log = logging.getLogger(__name__)


class Observations:
    """Makes the observations that `decide` needs, and caches answers that rarely change."""

    def __init__(
        self,
        daemon: Daemon,
        library: Library,
        robot: str,
        boot: str,
        folder: Path,
        contact: Contact,
        on_more: Callable[[str], None],
    ) -> None:
        """`folder` is that of the agent; `on_more` gets a dataflow that is to be observed again."""
        self._daemon = daemon
        self._library = library
        self._robot = robot
        self._boot = boot
        self._folder = folder
        self._contact = contact
        self._plans: dict[str, tuple[Applied | None, Revision, Plan]] = {}
        self._watches: dict[str, health.Watch] = {}
        self._sources: dict[str, tuple[object, dict[str, set[str]]]] = {}
        """By dataflow: what runs, and which nodes feed each of its nodes."""
        self._probes = Commands(daemon, on_more)
        self._questions = Commands(daemon, on_more)
        """`safe_to_update`."""
        self._reserved: dict[str, tuple[str, float]] = {}
        """By dataflow: the key of its reservation, and when that ends by the clock."""
        self._refusals: dict[str, str] = {}
        """Why a release cannot be used on this robot, by its id."""
        self._troubles: dict[str, str] = {}
        """Why a release could not be staged yet, by dataflow."""

    def restart_checks(self, name: str) -> None:
        """Restart the health check of a dataflow after a new phase or a new order to the daemon."""
        self._watches.pop(name, None)
        for commands in (self._probes, self._questions):
            commands.forget(name)

    def forget_refusals(self, but: set[str]) -> None:
        """Forget why releases cannot be used, but of these."""
        self._refusals = {each: text for each, text in self._refusals.items() if each in but}

    def forget(self, name: str) -> None:
        """Forget a dataflow."""
        for known in (self._plans, self._watches, self._sources, self._reserved, self._troubles):
            known.pop(name, None)
        for commands in (self._probes, self._questions):
            commands.forget(name)

    async def stage(self, record: ReleaseRecord) -> None:
        """Verify the files of the release that was ordered, and build its tree."""
        name, release = record.order.dataflow, record.order.release
        assert release is not None
        try:
            await asyncio.to_thread(self._library.stage, release)
            self._troubles.pop(name, None)
        except ControlError as error:
            text = "; ".join(error.lines)
            _log.warning("release %.12s of %s: %s", release, name, text)
            if error.code == "refused":
                self._refusals[release] = text
            else:
                self._troubles[name] = text
                await asyncio.sleep(ASK_AGAIN_S)

    async def observe(
        self, record: ReleaseRecord, share: ShareState | None, tasks: asyncio.TaskGroup
    ) -> Observation:
        """Return the observation of a dataflow that its phase needs; commands run in `tasks`.

        `share` is the state of its run.
        """
        name, release = record.order.dataflow, record.order.release
        files: Files = "missing"
        plan = None
        refusal = ""
        if release is not None and record.phase in PREPARING:
            files = await asyncio.to_thread(self._library.files, release)
            refusal = self._refusals.get(release, "")
            if files == "staged" and not refusal:
                try:
                    plan = await asyncio.to_thread(self._plan, record)
                except ControlError as error:
                    refusal = self._refusals[release] = "; ".join(error.lines)
            refusal = refusal or self._bound(record, plan)
        before = Observation(
            now=queries.clock(),
            wall=time.time(),
            boot=self._boot,
            files=files,
            refusal=refusal,
            trouble=self._troubles.get(name, ""),
            plan=plan,
            share=share,
            contact=self._contact.at,
        )
        try:
            if record.phase == "staged" and record.order.enabled:
                if record.order.switch:
                    return await self._observe_before_switch(record, before, tasks)
                if record.order.arm:
                    return await self._reserve(record, before, tasks)
            if record.phase == "switching":
                await self._end_reservation(name)
            if share is None or share.status != "running":
                return before
            if record.phase == "probation":
                return replace(before, health=await self._judge(record, share, tasks))
            if record.phase in ("confirmed", "reverted"):
                client = await self._daemon.client()
                seen = await queries.measure(client, name, record.run_uuid)
                learned = self._learn(record, seen)
                down = self._down(record, seen.nodes)
                some = down is not None and (down.failed or down.ended)
                if some and not await queries.is_running(client, record.run_uuid):
                    return before  # it is being stopped: that has ended its nodes
                failed = down is not None and down.failed and record.soaks_since is not None
                returns = record.phase == "confirmed" and (failed or record.order.withdraw)
                leases = await queries.leases(client) if returns else []
                return replace(before, learned=learned, down=down, leases=leases)
            if record.phase in PREPARING:
                return replace(before, down=await self._ask_down(record))
        except ControlError as error:
            _log.debug("release of %s: %s", name, error)
        return before

    def _bound(self, record: ReleaseRecord, plan: Plan | None) -> str:
        """Return why this robot does not take what was ordered, by its file; empty if it does.

        Which nodes run here alone is known once there is a plan.
        """
        order, nodes = record.order, [] if plan is None else [*plan.nodes]
        share = None if order.group is None else order.group.share
        if share is not None and plan is None:
            nodes = share.own_nodes
        accepts = read_accepts(settings_file(self._folder))
        return refusal(accepts, order.dataflow, nodes, order.params, share)

    async def _reserve(
        self, record: ReleaseRecord, seen: Observation, tasks: asyncio.TaskGroup
    ) -> Observation:
        """Reserve the switch, unless the robot is busy; see `ReleaseOrder.arm`."""
        name, order = record.order.dataflow, record.order
        client = await self._daemon.client()
        leases = await queries.leases(client)
        busy = self._why_busy(record, seen.share, leases, tasks)
        seen = replace(seen, leases=leases, busy=busy)
        if order.busy == "ignore":
            return replace(seen, busy="", armed=True)
        if busy != "":
            return seen
        if refusal := await self._verify_again(record):
            return replace(seen, refusal=refusal)
        key = f"{name}, order {order.generation}"
        asked = queries.clock()
        reservation = await queries.reserve(client, key, min(order.arm, MAX_RESERVED_S))
        self._reserved[name] = (key, asked + reservation.left)
        return replace(seen, armed=reservation.left > 0, leases=reservation.leases)

    async def _end_reservation(self, name: str) -> None:
        """Let leases begin again: the switch has begun."""
        if name in self._reserved:
            client = await self._daemon.client()
            await queries.reserve(client, self._reserved[name][0], 0)
            del self._reserved[name]

    def _why_busy(
        self,
        record: ReleaseRecord,
        share: ShareState | None,
        leases: list[Lease],
        tasks: asyncio.TaskGroup,
    ) -> str | None:
        """Return what makes the robot busy; see `Observation.busy`."""
        _, reserved_until = self._reserved.get(record.order.dataflow, ("", 0.0))
        if leases or queries.clock() < reserved_until:
            return _in_words(leases)
        return self._unsafe(record, share, tasks)

    async def _observe_before_switch(
        self, record: ReleaseRecord, seen: Observation, tasks: asyncio.TaskGroup
    ) -> Observation:
        client = await self._daemon.client()
        notices = await queries.notices(client, record.order.dataflow, record.run_uuid)
        leases = await queries.leases(client)
        busy = self._why_busy(record, seen.share, leases, tasks)
        seen = replace(seen, notices=notices, leases=leases, busy=busy)
        if seen.share is not None and seen.share.status == "running":
            seen = replace(seen, down=await self._ask_down(record))
        if busy != "" and record.order.busy == "wait":
            return seen
        return replace(seen, refusal=await self._verify_again(record))

    async def _verify_again(self, record: ReleaseRecord) -> str:
        """Return why a staged release is no longer usable: its key may be revoked now."""
        release = record.order.release
        assert release is not None
        try:
            await asyncio.to_thread(self._library.stage, release)
        except ControlError as error:
            if error.code != "refused":
                raise
            self._refusals[release] = "; ".join(error.lines)
        return self._refusals.get(release, "")

    def _unsafe(
        self, record: ReleaseRecord, share: ShareState | None, tasks: asyncio.TaskGroup
    ) -> str | None:
        """Return why the dataflow says that it must not be changed now; empty if it may be.

        None: it is being asked.
        """
        if record.applied is None or record.order.busy == "ignore":
            return ""
        name = record.order.dataflow
        try:
            bundle = self._library.bundle(record.applied.revision.release)
        except ControlError as error:
            return f"its safe_to_update cannot be read: {error.message} (`--busy ignore`: switch)"
        words = shlex.split(bundle.descriptor.get("safe_to_update") or "")
        if not words or share is None or share.status != "running":
            return ""
        said = self._questions.outcome(name)
        if said is not None and queries.clock() - said.at < ASK_AGAIN_S:
            return "" if said.ok else f"safe_to_update {said.evidence[0].text}"
        self._questions.start(tasks, name, record.run_uuid, {"safe_to_update": words}, bundle)
        # Until it has answered, the last refusal counts.
        return None if said is None or said.ok else f"safe_to_update {said.evidence[0].text}"

    async def _judge(
        self, record: ReleaseRecord, share: ShareState, tasks: asyncio.TaskGroup
    ) -> Health:
        name, group = record.order.dataflow, record.order.group
        rules = compose.rules_here(record.order.rules, group)
        client = await self._daemon.client()
        seen = await queries.measure(client, name, record.run_uuid)
        baseline = record.baseline
        if group is not None:
            drained = health.drained_elsewhere(seen.nodes, self._sources_of(record))
            baseline = replace(
                baseline, nodes=[node for node in baseline.nodes if node not in drained]
            )
        watch = health.watch(self._watches.get(name), seen, baseline)
        self._watches[name] = watch
        probes = None
        if rules.probes:
            due = health.is_due(watch, rules, baseline)
            probes = self._probe(record, tasks, due=due)
        links = {} if group is None else share.links
        verdict = health.judge(watch, rules, baseline, probes, links)
        for each in verdict.evidence:
            if not each.ok:
                _log.debug("health of %s: %s %s", name, each.check, each.text)
        return verdict

    def _probe(
        self, record: ReleaseRecord, tasks: asyncio.TaskGroup, *, due: bool
    ) -> list[Evidence] | None:
        """Return the last outcome of the probes, and let them run if it is time; None before."""
        name = record.order.dataflow
        last = self._probes.outcome(name)
        again = last is None or (not last.ok and queries.clock() - last.at >= ASK_AGAIN_S)
        if due and again:
            assert record.applied is not None
            bundle = self._library.bundle(record.applied.revision.release)
            commands = {
                f"probe {number}": words
                for number, words in enumerate(record.order.rules.probes, start=1)
            }
            self._probes.start(tasks, name, record.run_uuid, commands, bundle)
        # The last outcome stays in the evidence, even while another check fails.
        if last is not None:
            return last.evidence
        running = self._probes.is_running(name)
        return [Evidence(check="probes", ok=False, text="have not ended yet")] if running else None

    async def _ask_down(self, record: ReleaseRecord) -> Down | None:
        client = await self._daemon.client()
        return self._down(record, await queries.nodes(client, record.run_uuid))

    def _down(self, record: ReleaseRecord, nodes: list[NodeInfo]) -> Down | None:
        """Return the nodes that do not run although they ran when the revision was confirmed."""
        if record.applied is None or record.confirmed is None:
            return None
        return health.down_of(nodes, record.baseline, self._sources_of(record))

    def _sources_of(self, record: ReleaseRecord) -> dict[str, set[str]]:
        """Return the nodes that feed each node of what runs."""
        assert record.applied is not None
        name, key = record.order.dataflow, (record.applied, record.run_uuid)
        known = self._sources.get(name)
        if known is None or known[0] != key:
            try:
                feeding = compose.sources(self.content(record.uuid, name, record.applied))
            except ControlError as error:
                # Its files are damaged: a node whose inputs have closed counts as ended.
                _log.debug("sources of the nodes of %s: %s", name, error)
                feeding = {}
            known = self._sources[name] = (key, feeding)
        return known[1]

    def _learn(self, record: ReleaseRecord, seen: Measurement) -> dict[str, float]:
        """Return rates of the confirmed revision; none before it was steady for long enough."""
        name = record.order.dataflow
        watch, self._watches[name] = health.learn(self._watches.get(name), seen, record.order.rules)
        if watch.seconds < record.order.rules.min_healthy_time:
            return {}
        learned = {each: watch.rates[each] for each in watch.settled}
        _log.debug("rates of %s over %.1f s: %s", name, watch.seconds, learned)
        return learned

    def _plan(self, record: ReleaseRecord) -> Plan:
        """Return how to switch to the ordered release. Raises ControlError."""
        name, target, applied = record.order.dataflow, record.target, record.applied
        assert target is not None
        known = self._plans.get(name)
        if known is not None and known[:2] == (applied, target):
            return known[2]
        # Nothing of another run is kept.
        kept = applied if record.uuid_of(target) == record.run_uuid else None
        library = self._library
        bundle = library.bundle(target.release)
        if bundle.name != name:
            raise ControlError(
                "refused", f"it is a release of the dataflow {bundle.name}, not of {name}"
            )
        olds = set() if kept is None else set(kept.nodes.values())
        try:
            changed = {old: library.changed(old, target.release) for old in olds}
            before = None if kept is None else self.content(record.uuid, name, kept)
        except ControlError as error:
            # Its damage must not keep the robot from another release.
            _log.warning("all nodes of %s are replaced: what runs is not readable: %s", name, error)
            changed = {old: set(compose.node_ids(bundle.descriptor)) for old in olds}
            before = None
        after = compose.applied_after(kept, target, bundle, changed)
        content = self.content(record.uuid, name, after)
        compose.check(content)
        plan = Plan(after.nodes, compose.replaced(before, content), bundle.sequence)
        self._plans[name] = (applied, target, plan)
        return plan

    def content(
        self, uuid: str, name: str, applied: Applied, rules: HealthRules | None = None
    ) -> ShareContent:
        """Return the daemon's order for a revision with its rules. Raises ControlError."""
        path = self._folder / "dataflows" / name / "dataflow.yml"
        recordings = recordings_folder(self._folder) / name
        return compose.content_of(
            applied, uuid, self._robot, path, self._library.bundle, recordings, rules
        )


def _in_words(leases: list[Lease]) -> str:
    if not leases:
        return ""
    first = leases[0]
    others = f", and {len(leases) - 1} more" if len(leases) > 1 else ""
    return f"{first.owner}: {first.reason}{others}"
