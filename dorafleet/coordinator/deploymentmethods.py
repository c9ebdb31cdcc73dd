"""The methods `deployment.…`: what should run under each name, what robots say of it, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dorad.control.errors import ControlError
from dorad.control.messages import Nothing, Start
from dorad.control.session import Call, handles
from dorad.dataflow.nearest import did_you_mean
from dorad.natural import natural
from dorafleet.coordinator.dataflows import DataflowMethods
from dorafleet.coordinator.dataflowstates import status_of
from dorafleet.coordinator.deploymentmessages import (
    DEPLOYMENT_HISTORY,
    DEPLOYMENT_LIST,
    DEPLOYMENT_PLAN,
    DeploymentHistory,
    DeploymentInfo,
    DeploymentInstance,
    DeploymentList,
    DeploymentPlan,
    DeploymentRef,
    DeploymentRevision,
)
from dorafleet.coordinator.deployments import Deployment
from dorafleet.coordinator.fleet import Fleet, checked
from dorafleet.coordinator.messages import DATAFLOW_EXPLAIN, Explain, Explained, ExplainedRobot
from dorafleet.coordinator.placement import Requirements, place
from dorafleet.coordinator.planner import Planner
from dorafleet.coordinator.records import DataflowRecord
from dorafleet.coordinator.releases import Releases
from dorafleet.coordinator.requirements import problems_of
from dorafleet.coordinator.robot import Robot
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.rollouts import Rollouts


class DeploymentMethods:
    """Answers the methods about deployments."""

    def __init__(
        self,
        fleet: Fleet,
        robots: Robots,
        releases: Releases,
        rollouts: Rollouts,
        dataflows: DataflowMethods,
        planner: Planner,
    ) -> None:
        self._fleet = fleet
        self._robots = robots
        self._releases = releases
        self._rollouts = rollouts
        self._dataflows = dataflows
        self._planner = planner

    @handles(DEPLOYMENT_LIST)
    async def list_all(self, _call: Call, _params: Nothing) -> DeploymentList:
        """List the deployments, each once, and what robots run of their own."""
        rows = []
        ordered = {name for robot in self._robots.all for name in self._fleet.orders(robot.id)}
        for name in sorted({*self._fleet.deployments, *ordered}, key=natural):
            # An operator may order a release without a rollout, which leaves no deployment.
            each = self._fleet.deployments.get(name) or Deployment(name, "release")
            if each.source == "inline" and each.run is not None:
                rows.append(_inline(each, each.run))
            else:
                rows.append(self._released(each))
        rows += [_local(robot, name) for robot in self._robots.all for name in robot.local]
        return DeploymentList(deployments=rows)

    @handles(DEPLOYMENT_HISTORY)
    async def history(self, _call: Call, params: DeploymentRef) -> DeploymentHistory:
        """Return the last revisions of a deployment, or of one of its instances."""
        name, instance = self._named(params.name)
        deployment = self._fleet.deployments.get(name)
        return DeploymentHistory(
            revisions=[
                DeploymentRevision(
                    number=each.number,
                    at=each.at,
                    what=each.what,
                    by=each.by,
                    run=each.run,
                    release=each.release,
                    label=self._releases.label(each.release) if each.release else "",
                    rollout=each.rollout,
                    instances=each.instances,
                )
                for each in ([] if deployment is None else deployment.history)
                if not (instance and each.instances) or instance in each.instances
            ]
        )

    @handles(DEPLOYMENT_PLAN)
    async def plan(self, _call: Call, params: Start) -> DeploymentPlan:
        """Return what the start of a dataflow would do, or why it would be refused."""
        before, plan = self._dataflows.plan(params)
        return DeploymentPlan(
            name=params.name or "",
            placement=plan.placement,
            pending=plan.pending,
            machines=list(plan.ports),
            replaces="" if before is None else before.uuid,
        )

    @handles(DATAFLOW_EXPLAIN)
    async def explain(self, _call: Call, params: Explain) -> Explained:
        """Return where the nodes of a dataflow run, or would run now, and why."""
        if (params.dataflow is None) == (params.descriptor is None):
            raise ControlError("bad-request", "give either a dataflow or a descriptor")
        if params.descriptor is not None:
            dataflow = checked(params.descriptor, params.path)
            decisions = self._planner.decide(dataflow, params.name, {})
        else:
            assert params.dataflow is not None
            name, instance = self._named(params.dataflow)
            if (released := self._explained(name, instance)) is not None:
                return released
            record = self._fleet.find(name if instance else params.dataflow)
            dataflow = self._fleet.dataflow(record)
            decisions = self._planner.decide(dataflow, record.key, record.placement)
        problems = problems_of(dataflow, self._planner.candidates())
        return Explained(nodes=[*decisions.values()], problems=[*map(str, problems)])

    def _named(self, wanted: str) -> tuple[str, str]:
        """Return the deployment, and the instance if one is named, of `NAME` or `INSTANCE/NAME`.

        Raises:
            ControlError: there is none.
        """
        if (run := self._fleet.run(wanted)) is not None:
            return run.key, ""
        known = self._fleet.instance(wanted)
        if known is not None and known.uuid == wanted:
            wanted = str(known.name)
        instance, _, name = wanted.rpartition("/")
        units = self._units(name)
        local = [robot.id for robot in self._robots.all if name in robot.local]
        if not instance and (name in self._fleet.deployments or units or local):
            return name, ""
        run = self._fleet.get(name)
        if instance in {*units, *local, *(() if run is None else run.robots)}:
            return name, instance
        instances = [f"{each}/{name}" for each in (*units, *local)]
        hint = did_you_mean(wanted, [*self._fleet.deployments, *instances])
        hint = hint or "`dorafleet history` lists them"
        raise ControlError("not-found", f"there is no deployment `{wanted[:100]}`", hint)

    def _explained(self, name: str, instance: str) -> Explained | None:
        """Return why robots belong to instances, or why nodes of one are where they are.

        None if no robot is to run it from a release.
        """
        units = self._units(name)
        if not units:
            return None
        each = self._fleet.deployments.get(name) or Deployment(name, "release")
        head = self._rollouts.heads.get(each.rollout)
        scope = "each" if head is None else head.scope
        if instance or scope == "one":
            return self._explained_instance(name, units.get(instance) or next(iter(units.values())))
        where = {robot.id: cell for cell, unit in units.items() for robot in unit}
        rows = []
        for robot in self._robots.all:
            cell = where.get(robot.id, "")
            labels = self._planner.labels(robot)
            rows.append(
                ExplainedRobot(
                    robot=robot.id,
                    instance=cell,
                    nodes=[*self._placement(name, robot)] if cell else [],
                    reason=why_in(each, scope, cell, labels)
                    if cell
                    else why_out(each, scope, robot.id, labels),
                )
            )
        return Explained(nodes=[], robots=rows)

    def _explained_instance(self, name: str, unit: Sequence[Robot]) -> Explained:
        placed = {node: robot.id for robot in unit for node in self._placement(name, robot)}
        ids = [robot.id for robot in unit]
        nodes = [Requirements(node) for node in sorted(placed, key=natural)]
        machines = [each for each in self._planner.candidates(name, placed) if each.id in ids]
        decisions = place(nodes, machines, [(node, placed[node.id]) for node in nodes])
        return Explained(nodes=[*decisions.values()])

    def _placement(self, name: str, robot: Robot) -> list[str]:
        """Return the nodes of a release that a robot is to run."""
        order = self._fleet.orders(robot.id).get(name)
        if order is None:
            return []
        if order.group is not None:
            return order.group.share.own_nodes
        return self._releases.nodes(order.release)

    def _units(self, name: str) -> dict[str, list[Robot]]:
        """Return the robots of each instance of a release: ordered ones, and those of a rollout."""
        deployment = self._fleet.deployments.get(name)
        robots, cells = {}, {}
        for robot in self._robots.all:
            order = self._fleet.owner(robot.id, name)
            if order is not None and order.is_order:
                robots[robot.id] = robot
                cells[robot.id] = robot.id if order.group is None else order.group.instance
        rollout = 0 if deployment is None else deployment.rollout
        for id_, member in self._rollouts.known_members(rollout).items():
            if (known := self._robots.find(id_)) is not None:
                robots.setdefault(id_, known)
                cells[id_] = member.unit
        units: dict[str, list[Robot]] = {}
        for id_ in sorted(robots, key=natural):
            units.setdefault(cells[id_], []).append(robots[id_])
        return units

    def _released(self, each: Deployment) -> DeploymentInfo:
        head = self._rollouts.heads.get(each.rollout)
        instances = [
            self._instance(each.name, cell, unit) for cell, unit in self._units(each.name).items()
        ]
        counts = Counter(instance.state for instance in instances)
        state = ", ".join(f"{count} {what}" for what, count in counts.most_common())
        if head is not None and not head.over:
            state = f"rollout {head.number} {head.phase}: {state}"
        release = "" if head is None else head.release
        return DeploymentInfo(
            name=each.name,
            source="release",
            state=state or "no robot has it",
            release=release,
            label=self._releases.label(release) if release else "",
            rollout=each.rollout or None,
            scope="each" if head is None else head.scope,
            robots=each.robots,
            labels=each.labels,
            params=each.params,
            instances=instances,
            revision=each.revision.number,
            since=each.revision.at or None,
            by=each.revision.by,
        )

    def _instance(self, name: str, cell: str, robots: list[Robot]) -> DeploymentInstance:
        releases: list[str] = []
        states: list[str] = []
        for robot in robots:
            state = robot.releases.get(name)
            if state is not None and state.running:
                releases.append(self._releases.label(state.running))
            reported = "waiting" if state is None else state.phase
            states.append("unreachable" if robot.trouble else reported)
        return DeploymentInstance(
            instance=cell,
            robots=[robot.id for robot in robots],
            release=", ".join(dict.fromkeys(releases)),
            state=", ".join(dict.fromkeys(states)),
        )


def _inline(each: Deployment, run: DataflowRecord) -> DeploymentInfo:
    state: str = status_of(run)
    if run.pending:
        state += f", {len(run.pending)} nodes without a machine"
    instance = DeploymentInstance(each.name, list(run.robots), state=state)
    return DeploymentInfo(
        name=each.name,
        source="inline",
        state=state,
        instances=[instance] if run.running else [],
        revision=each.revision.number,
        since=each.revision.at or None,
        by=each.revision.by,
    )


def _local(robot: Robot, name: str) -> DeploymentInfo:
    instance = DeploymentInstance(robot.id, [robot.id], state="running")
    return DeploymentInfo(
        name=f"{robot.id}/{name}", source="local", state="running", instances=[instance]
    )


def why_in(each: Deployment, scope: str, instance: str, labels: Mapping[str, str]) -> str:
    """Return why a robot belongs to an instance of a deployment."""
    by = "a release was ordered for it"
    if each.rollout:
        chosen = "names it" if each.robots else "selects it" if each.labels else "is for all robots"
        by = f"rollout {each.rollout} {chosen}"
    label = scope.partition(":")[2]
    if not label:
        return by
    if labels.get(label) == instance:
        return f"{by}; its label `{label}` is `{instance}`"
    now = f"is `{labels[label]}`" if label in labels else "is gone"
    return f"{by}; its label `{label}` was `{instance}` and {now}: the next rollout places anew"


def why_out(each: Deployment, scope: str, robot: str, labels: Mapping[str, str]) -> str:
    """Return why a robot belongs to no instance of a deployment."""
    if each.robots and robot not in each.robots:
        return f"rollout {each.rollout} does not name it"
    for name, value in each.labels.items():
        if name not in labels:
            return f"it has no label `{name}`"
        if labels[name] != value:
            return f"its label `{name}` is `{labels[name]}`, not `{value}`"
    label = scope.partition(":")[2]
    if label and not labels.get(label):
        return f"it has no label `{label}`"
    if scope != "each":
        return "no node is placed on it"
    return f"rollout {each.rollout} left it out, or it came later: see `dorafleet plan {each.name}`"
