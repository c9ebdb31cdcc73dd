"""Plan rollouts from the current state of the fleet; refuse impossible ones."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from dorad.control.agentsettings import refusal
from dorad.control.errors import ControlError
from dorad.control.messages.releases import Group
from dorad.phrases import first_of
from dorad.release.changes import Changes, changed_nodes
from dorad.release.errors import ReleaseError
from dorad.release.machine import NEWEST, Machine, check_machine
from dorad.release.manifest import Manifest, NodeContent
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.groups import Groups
from dorafleet.coordinator.planner import Planner, refused_by
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.requirements import requirements_at
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rolloutorders import before_of
from dorafleet.coordinator.rollouts import Rollouts
from dorafleet.coordinator.secrets import Secrets
from dorafleet.rollout import messages as r
from dorafleet.rollout.model import Rollout, units_of
from dorafleet.rollout.operate import is_moving_on
from dorafleet.rollout.plan import (
    EACH,
    MAX_NAMED,
    Candidate,
    Selection,
    chosen_of,
    select,
    with_params,
)
from dorafleet.rollout.strategy import parallel, tolerated

MAX_ROBOTS = 10_000

MAX_PARAMS, MAX_STRATEGY = 32 << 10, 64 << 10
"""Bytes, as JSON: every robot of a rollout has the parameters, every step stores the strategy."""


class RolloutPlans:
    """Plans rollouts."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        releases: Releases,
        rollouts: Rollouts,
        planner: Planner,
        secrets: Secrets,
    ) -> None:
        self._fleet = fleet
        self._robots = robots
        self._releases = releases
        self._rollouts = rollouts
        self._planner = planner
        self._groups = Groups(fleet, robots, planner)
        self._secrets = secrets

    async def plan(self, params: r.RolloutNew) -> r.RolloutPlan:
        """Return what a rollout would change, robot by robot.

        Raises:
            ControlError: it cannot be.
            StoreError: the store cannot be read.
        """
        info = self._releases.find(params.release)
        manifest = await self.manifest(info)
        selection = self.select(params, info, manifest)
        self.check_machines(selection, manifest)
        ended = self.superseded(params, info.name, selection)
        robots, changes = await self._rows(selection, manifest)
        size = len(units_of(selection.members))
        ids = {info.id, *(each.before for each in robots if each.before)}
        return r.RolloutPlan(
            version=self._fleet.version(info.name),
            release=info,
            robots=robots,
            changes=changes,
            supersedes=[head.number for head in ended],
            parallel=parallel(params.strategy, size),
            tolerated=tolerated(params.strategy, size),
            names={id_: self._releases.label(id_) for id_ in ids},
        )

    def select(self, params: r.RolloutNew, info: r.ReleaseInfo, manifest: Manifest) -> Selection:
        """Return who takes part in a rollout. Raises ControlError if it cannot be."""
        _check_size(params)
        self._check_name(info.name)
        fleet = [self._candidate(robot, info) for robot in self._robots.all]
        if max(len(params.robots), len(params.lost)) > MAX_ROBOTS:
            raise ControlError("bad-request", f"at most {MAX_ROBOTS} robots can be named")
        chosen = chosen_of(params, fleet)
        scope = params.scope or self._scope_now(chosen, info.name)
        params = msgspec.structs.replace(params, scope=scope)
        groups = self._groups.make(scope, manifest, chosen, fleet, params.lost)
        self._check_agents(groups)
        selection = select(params, fleet, info.sequence, info.nodes, groups)
        # Placement has looked at those that run it together.
        alone = {member.robot for member in selection.members if member.group is None}
        self._planner.check_devices(info.name, requirements_at(manifest.places), alone)
        return selection

    def _check_name(self, name: str) -> None:
        """Raise ControlError if a dataflow of this name was started: one name, one deployment."""
        run = self._fleet.get(name)
        if run is not None and run.running:
            raise ControlError(
                "refused",
                f"`{name}` was started by hand on {first_of(run.robots, MAX_NAMED)}; a release of "
                "the same name would take its place",
                f"`dora stop {name}` first",
            )

    def _scope_now(self, chosen: Iterable[Candidate], dataflow: str) -> str:
        """Return the scope with which robots run a dataflow now. Raises ControlError."""
        owners = [self._fleet.owner(each.id, dataflow) for each in chosen]
        scopes = sorted({each.scope for each in owners if each is not None and each.group})
        if len(scopes) > 1:
            raise ControlError(
                "refused",
                f"robots run `{dataflow}` with different scopes: {', '.join(scopes)}",
                "say which with --scope, or choose robots of one of them",
            )
        return scopes[0] if scopes else EACH

    def _check_agents(self, robots: Iterable[str]) -> None:
        """Refuse machines whose software cannot switch together with others."""
        old = [
            id_
            for id_ in robots
            if (attached := self._robots.get(id_).attached) is not None and not attached.groups
        ]
        if old:
            raise ControlError(
                "refused",
                f"the software of `{old[0]}` cannot switch together with other machines",
                f"`dorafleet upgrade {old[0]}`",
            )

    def _candidate(self, robot: Robot, info: r.ReleaseInfo) -> Candidate:
        owner = self._fleet.owner(robot.id, info.name)
        state = robot.releases.get(info.name)
        order = owner if owner is not None and owner.is_order else None
        before, group = self._before(robot, info.name)
        on_it = (
            order is not None
            and order.release == info.id
            and order.switch
            and state is not None
            and state.phase == "confirmed"
            and state.running == info.id
            and not state.failed
            and not state.ended
        )
        return Candidate(
            id=robot.id,
            labels=self._planner.labels(robot),
            reachable=not robot.trouble,
            trouble=robot.trouble,
            arch="" if robot.attached is None else robot.attached.arch,
            before=before,
            before_group=group,
            before_scope=EACH if order is None else order.scope,
            params={} if order is None else order.params,
            sequence=0 if state is None else state.sequence,
            is_on_it=on_it,
            failed=self._rollouts.failed_before(info.name, robot.id, info.id),
        )

    def _before(self, robot: Robot, dataflow: str) -> tuple[str, Group | None]:
        """Return the release to which a robot reverts: the confirmed one, if that is known.

        And the group in which it runs that.

        Its desired release may be one that it was only ordered to stage.
        """
        state = robot.releases.get(dataflow)
        if state is not None:
            release, group = before_of(state, self._rollouts.rejected(dataflow))
            return release, group if group is None or self._is_own(robot, dataflow, group) else None
        owner = self._fleet.owner(robot.id, dataflow)
        if owner is None or not owner.is_order:
            return "", None
        for head in reversed(self._rollouts.open):
            member = self._rollouts.known_members(head.number).get(robot.id)
            if head.dataflow == dataflow and member is not None and member.order:
                if member.verdict == "confirmed":
                    return head.release, member.group
                return member.before, member.before_group
        return owner.release, owner.group

    def _is_own(self, robot: Robot, dataflow: str, group: Group) -> bool:
        """Return True unless a robot reports a group that is not its own."""
        owner = self._fleet.owner(robot.id, dataflow)
        ordered = None if owner is None else owner.group
        return group.share.machine == robot.id and (ordered is None or ordered.uuid == group.uuid)

    async def manifest(self, info: r.ReleaseInfo) -> Manifest:
        """Return the manifest of a release. Raises ControlError or StoreError."""
        manifest = await self._releases.manifest(info.id)
        if manifest is None:
            raise ControlError("not-found", f"release {info.id[:12]} is no longer registered")
        return manifest

    def check_machines(self, selection: Selection, manifest: Manifest) -> None:
        """Refuse a release that cannot run on one of the robots, as far as they are known."""
        refused: dict[str, str] = {}
        errors: dict[str, ReleaseError] = {}
        for member in selection.members:
            if member.leaves:
                continue
            machine = self._machine(member.robot, manifest)
            share = None if member.group is None else member.group.share
            here = [*manifest.nodes] if share is None else share.own_nodes
            accepts = self._robots.get(member.robot).accepts
            if why := refusal(accepts, manifest.name, here, member.params, share):
                refused[member.robot] = why
            try:
                if machine is not None:
                    check_machine(manifest, machine)
            except ReleaseError as error:
                errors[member.robot] = error
        if errors:
            robot, first = next(iter(errors.items()))
            more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
            cells = {member.robot: member.instance for member in selection.members}
            of = f" of `{cells[robot]}`" if cells[robot] else ""
            message = f"robot `{robot}`{of}{more}: {first.message}"
            raise ControlError("refused", message, first.hint)
        if refused:
            robot, why = next(iter(refused.items()))
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise refused_by(robot, why, more)

    def _machine(self, robot: str, manifest: Manifest) -> Machine | None:
        """Return what is known of a robot as a machine; None if it has never connected."""
        attached = self._robots.get(robot).attached
        if attached is None:
            return None
        if attached.python:
            return Machine(attached.arch, attached.python, attached.glibc, attached.version)
        # An older agent says only its architecture, and judges the rest itself.
        first = next((each for each in manifest.targets if each.arch == attached.arch), None)
        python = "" if first is None else first.python
        return Machine(attached.arch, python, NEWEST, attached.version)

    def superseded(
        self, params: r.RolloutNew, dataflow: str, selection: Selection
    ) -> list[Rollout]:
        """Return the rollouts that end when this one starts. Raises ControlError."""
        robots = {member.robot for member in selection.members}
        ended = []
        for head in self._rollouts.open:
            members = self._rollouts.known_members(head.number)
            if head.dataflow != dataflow or head.is_final or not robots & members.keys():
                continue
            if is_moving_on(head, members.values()) and not params.supersede:
                moving = sum(member.in_flight for member in members.values())
                raise ControlError(
                    "conflict",
                    f"rollout {head.number} ({head.name} by {head.by}) is {head.phase}: {moving} "
                    f"of its {head.size} robots switch now",
                    f"wait, `dorafleet rollout abort {head.number}`, or give --supersede",
                )
            ended.append(head)
        return ended

    async def _rows(
        self, selection: Selection, manifest: Manifest
    ) -> tuple[list[r.PlannedRobot], list[Changes]]:
        """Return the robots of a plan, and the different changes that they see."""
        changes: list[Changes] = []
        known: dict[object, int] = {}
        rows = []
        for member in selection.members:
            robot = self._robots.get(member.robot)
            machine = self._machine(member.robot, manifest)
            old = await self._releases.manifest(member.before) if member.before else None
            params = msgspec.json.encode([member.before_params, member.params])
            key = (member.before, machine, params)
            if key not in known:
                known[key] = len(changes)
                changed = changed_nodes(old, manifest, machine or Machine("", "", ""))
                changes.append(with_params(changed, member.before_params, member.params))
            notes = [robot.trouble] if robot.trouble else []
            if member.leaves:
                given_up = ", without being asked" if member.lost else ""
                notes.append(f"no node is left on it: it leaves `{member.instance}`{given_up}")
            if robot.room is not None and robot.room < changes[known[key]].size:
                notes.append("its disk is too full for the new content")
            if machine is None:
                notes.append("what it can run is not known here: it judges the release itself")
            if member.before and old is None:
                notes.append("its release is no longer registered: all nodes count as changed")
            notes += self._lacking(robot, manifest)
            state = robot.releases.get(manifest.name)
            if state is not None and state.confirmed and not state.running:
                notes.append("its dataflow does not run: all nodes are started")
            elif state is not None and (dead := [*state.failed, *state.ended]):
                notes.append(f"started again: {first_of(dead, MAX_NAMED)}")
            rows.append(
                r.PlannedRobot(
                    robot=member.robot,
                    batch=member.batch,
                    before=member.before,
                    changes=known[key],
                    reachable=not robot.trouble,
                    note="; ".join(notes),
                    room=robot.room,
                    instance=member.instance,
                    nodes=[] if member.group is None else member.group.share.own_nodes,
                )
            )
        rows += [
            r.PlannedRobot(robot=robot, batch=None, note=note)
            for robot, note in selection.left_out.items()
        ]
        return rows, changes

    def _lacking(self, robot: Robot, manifest: Manifest) -> Iterator[str]:
        """Yield a note for each secret that a robot lacks: its node would not start."""
        nodes: dict[str, list[str]] = {}
        labels = self._planner.labels(robot)
        for id_, node in manifest.nodes.items():
            for name in node.secrets if _may_run(node, robot.id, labels) else ():
                nodes.setdefault(name, []).append(id_)
        for name in self._secrets.lacking(robot, nodes):
            word = "node" if len(nodes[name]) == 1 else "nodes"
            yield (
                f"it lacks the secret {name} of {word} {first_of(nodes[name], MAX_NAMED)}: "
                f"dorafleet secret set {name} --for {robot.id}"
            )

    def check_version(self, dataflow: str, version: int) -> None:
        """Raise ControlError if something was decided since a plan."""
        if version == self._fleet.version(dataflow):
            return
        deployment = self._fleet.deployments.get(dataflow)
        what = "there is nothing of that name yet"
        if deployment is not None and deployment.history:
            last = deployment.revision
            subject = f" {last.rollout}" if last.rollout else ""
            what = f"`{last.what}{subject}` came meanwhile, by {last.by or 'the coordinator'}"
        raise ControlError(
            "conflict",
            f"the plan for `{dataflow}` is out of date: {what}",
            "make a new plan with `dorafleet plan`, and look at it",
        )

    def check_newest(self, head: Rollout) -> None:
        """Raise ControlError if a rollout is not the newest of its dataflow."""
        newest = self._rollouts.newest(head.dataflow)
        if newest is not None and newest.number != head.number:
            raise ControlError(
                "refused",
                f"rollout {head.number} is not the newest of `{head.dataflow}`, which is "
                f"{newest.number}",
                f"`dorafleet rollout undo {newest.number}`, or roll out the older release",
            )


def _may_run(node: NodeContent, robot: str, labels: Mapping[str, str]) -> bool:
    """Return True if a node of a release may be placed on a robot."""
    place = node.place
    return place is None or (
        place.machine in ("", robot) and place.labels.items() <= labels.items()
    )


def _check_size(params: r.RolloutNew) -> None:
    """Raise ControlError for parameters, or a strategy, that would take too much memory."""
    limits = {"params": (params.params, MAX_PARAMS), "strategy": (params.strategy, MAX_STRATEGY)}
    for name, (value, limit) in limits.items():
        if len(msgspec.json.encode(value)) > limit:
            raise ControlError("too-large", f"`{name}` has more than {limit} bytes as JSON")
