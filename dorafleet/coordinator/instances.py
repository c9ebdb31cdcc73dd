"""Releases that run over several machines, as dataflows of the fleet: `INSTANCE/NAME`.

The coordinator has ordered their placement; what their nodes are, a machine that runs them says. As
a record of a dataflow, every command about one takes them like one that was started.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.releases import Group, ReleaseState
from dorafleet.coordinator.deployments import name_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.records import DataflowRecord, StartOptions
from dorafleet.coordinator.robotcalls import ask
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.shares import port_of

MAX_KNOWN = 1000
"""Descriptors that are kept; the oldest are asked for again."""

_log = logging.getLogger(__name__)


class Instance(DataflowRecord, frozen=True):
    """A release that several machines run together."""


class _Described(NamedTuple):
    generation: int
    descriptor: dict[str, Any]
    path: str


class Instances:
    """The instances that robots run now."""

    def __init__(self, fleet: Fleet, robots: Robots) -> None:
        self._fleet = fleet
        self._robots = robots
        self._described: dict[str, _Described] = {}
        """By UUID."""

    def find(self, wanted: str) -> Instance | None:
        """Return the instance with this name or UUID.

        `NAME` alone means the only instance of a release, if no robot runs it alone.
        """
        instances = self._all()
        if (
            exact := next((each for each in instances if wanted in (each.name, each.uuid)), None)
        ) or ("/" in wanted):
            return exact
        named = [each for each in instances if str(each.name).endswith(f"/{wanted}")]
        machines = {robot for each in named for robot in each.robots}
        running = {robot.id for robot in self._robots.all if _runs(robot.releases.get(wanted))}
        return named[0] if len(named) == 1 and running <= machines else None

    async def describe(self, instance: DataflowRecord) -> None:
        """Ask a machine for the nodes of an instance, unless they are known.

        Raises:
            ControlError: no machine of it answers.
        """
        known = self._described.get(instance.uuid)
        if known is not None and known.generation == instance.generation:
            return
        ref = m.Ref(dataflow=instance.uuid)
        answers, missing = await ask(self._robots, instance.robots, m.DATAFLOW_INFO, ref)
        if not answers:
            reasons = "; ".join(f"`{robot}`: {why}" for robot, why in missing.items())
            raise ControlError("unavailable", f"no machine of `{instance.name}` answers: {reasons}")
        detail = next(iter(answers.values()))
        _log.debug("instance `%s` is described by %s", instance.name, next(iter(answers)))
        self._described.pop(instance.uuid, None)
        while len(self._described) >= MAX_KNOWN:
            del self._described[next(iter(self._described))]
        self._described[instance.uuid] = _Described(
            instance.generation, detail.descriptor, detail.path
        )

    def _all(self) -> list[Instance]:
        return [self._instance(uuid, parts) for uuid, parts in sorted(self._parts().items())]

    def _parts(self) -> dict[str, dict[str, tuple[Group, ReleaseState]]]:
        """Return the machines that run each instance, by its UUID.

        A robot belongs to an instance if the coordinator has ordered that, whatever it reports.
        """
        parts: dict[str, dict[str, tuple[Group, ReleaseState]]] = {}
        for robot, state in self._states():
            wanted = self._fleet.owner(robot, state.dataflow)
            ordered = None if wanted is None else wanted.group
            if wanted is None or ordered is None:
                continue
            group = ordered if wanted.release == state.running else state.group
            if group is None or group.uuid != ordered.uuid or group.share.machine != robot:
                continue
            parts.setdefault(group.uuid, {})[robot] = (group, state)
        return parts

    def _states(self) -> Iterator[tuple[str, ReleaseState]]:
        for robot in self._robots.all:
            for state in robot.releases.values():
                if _runs(state):
                    yield robot.id, state

    def _instance(self, uuid: str, parts: Mapping[str, tuple[Group, ReleaseState]]) -> Instance:
        group, state = next(iter(parts.values()))
        known = self._described.get(uuid, _Described(0, {"nodes": []}, "/"))
        # In the middle of a switch machines may differ: each tells which nodes it runs itself.
        placement = {
            node: robot
            for robot, (own, _) in parts.items()
            for node, machine in own.share.placement.items()
            if machine == robot
        }
        return Instance(
            uuid=uuid,
            name=name_of(group.instance, state.dataflow),
            path=known.path,
            original=known.descriptor,
            descriptor=known.descriptor,
            options=StartOptions(),
            placement=placement,
            ports={robot: port_of(own.share) or 0 for robot, (own, _) in parts.items()},
            generation=max(each.generation for _, each in parts.values()),
            started_at=state.since,
            hold=0.0,
            opened=True,
        )


def _runs(state: ReleaseState | None) -> bool:
    return state is not None and bool(state.running)


def refusal(instance: DataflowRecord) -> ControlError:
    """Return why a command that changes or stops a started dataflow does not take an instance."""
    return ControlError(
        "refused",
        f"`{instance.name}` comes from a release",
        "`dorafleet rollout` changes what releases run, and follows it",
    )
