"""Dataflows of one robot, named `ROBOT/NAME`: its daemon answers, and not the coordinator.

The coordinator knows the nodes of dataflows that it has placed. What a release has brought to a
robot, or what was started there, only the robot's own daemon knows.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.server import Call, Handler, StreamHandler
from dorad.phrases import first_of
from dorafleet.coordinator.deployments import name_of
from dorafleet.coordinator.fleet import Fleet
from dorafleet.coordinator.instances import Instances, refusal
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.nodeaudit import values_of, write_record
from dorafleet.coordinator.robotcalls import ask_one
from dorafleet.coordinator.robots import Robots
from dorafleet.coordinator.robotstreams import RobotStreams

MAX_NAMED = 5
"""Robots that an error names."""

MAX_NAME = 100
"""Characters of a name in an error."""

_log = logging.getLogger(__name__)


class Name(NamedTuple):
    """The parts of `ROBOT/NAME`."""

    robot: str | None
    dataflow: str | None


def named_without_robot(wanted: str | None, fleet: Fleet) -> Name:
    """Return the name of a dataflow, and the robot before it if there is one.

    The name of an instance over several machines, `INSTANCE/NAME`, stays whole.
    """
    if wanted is None or "/" not in wanted or fleet.instance(wanted) is not None:
        return Name(None, wanted)
    robot, _, name = wanted.partition("/")
    return Name(robot, name)


def robots_with(
    wanted: str | None, fleet: Fleet, robots: Robots
) -> tuple[str | None, Iterable[str]]:
    """Return a dataflow that runs or has ended as robots know it, and the robots to ask.

    Raises:
        ControlError: nobody knows it.
    """
    if wanted is None:
        return None, [robot.id for robot in robots.all]
    own = owners(wanted, fleet, robots)
    if own is not None:
        return own
    ended = [each.id for each in robots.all if wanted in each.releases]
    if ended:
        return wanted, ended
    name = named_without_robot(wanted, fleet)
    record = fleet.find(name.dataflow, ended_too=True)
    return record.uuid, [each for each in record.robots if name.robot in (None, each)]


def owners(wanted: str | None, fleet: Fleet, robots: Robots) -> tuple[str, list[str]] | None:
    """Return the name of a dataflow that the coordinator has not placed, and who runs it.

    That is one named `ROBOT/NAME`, the name of a release, or one that was started on robots alone.
    Return None for any other name.

    Raises:
        ControlError: there is no such robot.
    """
    robot, name = named_without_robot(wanted, fleet)
    if name is None:
        return None
    if robot is None and fleet.instance(name) is not None:
        return None
    if robot is None:
        if any(name in (record.name, record.uuid) for record in fleet.running):
            return None
        there = [r.id for r in robots.all if (s := r.releases.get(name)) and s.running]
        if not there and all(name not in (record.name, record.uuid) for record in fleet.records):
            there = [r.id for r in robots.all if name in r.dataflows]
        return (name, there) if there else None
    if robots.find(robot) is None:
        known = [each for each in alone(fleet, robots) if each.endswith(f"/{name}")]
        where = f"; there are: {first_of(known, MAX_NAMED)}" if known else ""
        address = f"{robot[:MAX_NAME]}/{name[:MAX_NAME]}"
        raise ControlError(
            "not-found",
            f"there is no robot `{robot[:MAX_NAME]}`, and no instance `{address}`{where}",
            "`dorafleet history` lists deployments",
        )
    placed = any(
        robot in record.robots and name in (record.name, record.uuid) for record in fleet.running
    )
    return None if placed else (name, [robot])


def alone(fleet: Fleet, robots: Robots) -> list[str]:
    """Return the dataflows that only robots know, as `ROBOT/NAME` of the first one that runs it.

    Or as `INSTANCE/NAME`, for a release that several machines run together.
    """
    names: dict[str, str] = {}
    for robot in robots.all:
        # Also those that have just ended: its last row may be older.
        placed = {record.name for record in fleet.records if robot.id in record.robots}
        released = {name for name, state in robot.releases.items() if state.running}
        for name in sorted({*robot.dataflows, *released} - placed):
            state = robot.releases.get(name)
            instance = None if state is None or state.group is None else state.group.instance
            key = f"{instance}/{name}" if instance else name
            names.setdefault(key, name_of(instance, name) if instance else f"{robot.id}/{name}")
    return list(names.values())


def on_one_robot(wanted: str | None, fleet: Fleet, robots: Robots) -> tuple[str, str] | None:
    """Return the robot and the name of a dataflow that the coordinator has not placed, or None.

    Raises:
        ControlError: there is no such robot; or several run the release of this name.
    """
    owned = owners(wanted, fleet, robots)
    if owned is None:
        return None
    name, there = owned
    if len(there) > 1:
        groups = (
            None if (order := fleet.owner(each, name)) is None else order.group for each in there
        )
        instances = list(
            dict.fromkeys(
                f"{robot if group is None else group.instance}/{name}"
                for robot, group in zip(there, groups, strict=True)
            )
        )
        raise ControlError(
            "ambiguous",
            f"{len(instances)} instances of `{name}` run: {first_of(instances, MAX_NAMED)}",
            f"name one: `{instances[0]}`",
        )
    return there[0], name


def with_robots(
    table: Mapping[str, Handler | StreamHandler],
    fleet: Fleet,
    robots: Robots,
    instances: Instances,
    streams: RobotStreams,
) -> dict[str, Handler | StreamHandler]:
    """Return handlers that let a robot answer about a dataflow named `ROBOT/NAME`."""
    handlers = dict(table)
    for name, inner in table.items():
        method = METHODS[name]
        if method.scope == "placed":
            handlers[name] = _unless_on_one(inner, fleet, robots)
        elif method.scope == "server":
            continue
        elif isinstance(method, m.FrameMethod):
            handlers[name] = _frames(inner, fleet, robots, instances, streams)
        elif isinstance(method, m.StreamMethod):
            handlers[name] = _stream(method, inner, fleet, robots, instances, streams)
        elif isinstance(method, m.CallMethod):
            handlers[name] = _call(method, inner, fleet, robots, instances)
    return handlers


def _call(
    method: m.CallMethod[Any, Any],
    inner: Any,
    fleet: Fleet,
    robots: Robots,
    instances: Instances,
) -> Handler:
    async def handler(call: Call, params: Any) -> m.Struct:
        single = on_one_robot(params.dataflow, fleet, robots)
        if single is None:
            result: m.Struct = await inner(call, await plain(params, fleet, instances))
            return result
        robot, dataflow = single

        async def get(ref: m.ParamRef) -> m.Param:
            ref.dataflow = dataflow
            return await ask_one(robots, robot, m.PARAM_GET, ref)

        if method.record == "values":
            names = {"dataflow": f"{robot}/{dataflow}", "node": params.node, "key": params.key}
            values = await values_of(params, get)
            await write_record(fleet.writer, call, **names, **values)
        _log.debug("`%s` about `%s` goes to robot `%s`", method.name, dataflow, robot)
        own = msgspec.structs.replace(params, dataflow=dataflow)
        return _of(robot, await ask_one(robots, robot, method, own))

    return handler


def _unless_on_one(inner: Any, fleet: Fleet, robots: Robots) -> Handler:
    async def handler(call: Call, params: Any) -> m.Struct:
        owned = owners(params.dataflow, fleet, robots)
        if owned is not None:
            name, there = owned
            released = any(name in robots.get(each).releases for each in there)
            raise ControlError(
                "refused",
                f"`{name}` on {', '.join(f'`{each}`' for each in there[:MAX_NAMED])} "
                "was not started by the coordinator",
                "`dorafleet rollout` changes what releases run; "
                f"`dora node restart NODE -d {there[0]}/{name}` restarts one node"
                if released
                else f"somebody has started it there; on `{there[0]}`: "
                f"`{_command(call.method, name)}`",
            )
        instance = None if params.dataflow is None else fleet.instance(params.dataflow)
        if instance is not None:
            raise refusal(instance)
        own = msgspec.structs.replace(
            params, dataflow=named_without_robot(params.dataflow, fleet).dataflow
        )
        result: m.Struct = await inner(call, own)
        return result

    return handler


def _command(method: str, name: str) -> str:
    """Return the command that calls a method about a dataflow on the robot itself."""
    subject, _, verb = method.partition(".")
    return f"dora {verb} {name}" if subject == "dataflow" else f"dora {subject} {verb} … -d {name}"


def _stream(
    method: m.StreamMethod[Any, Any],
    inner: Any,
    fleet: Fleet,
    robots: Robots,
    instances: Instances,
    streams: RobotStreams,
) -> StreamHandler:
    async def handler(call: Call, params: Any) -> AsyncIterator[m.Struct]:
        single = on_one_robot(params.dataflow, fleet, robots)
        if single is None:
            async for event in inner(call, await plain(params, fleet, instances)):
                yield event
            return
        robot, dataflow = single
        own = msgspec.structs.replace(params, dataflow=dataflow)
        if isinstance(own, m.TopWatch):
            own.machine = None
        stream = streams.stream(call.peer, robot, method, own)
        async with stream as events:
            async for event in events:
                yield _of(robot, event)

    return handler


def _frames(
    inner: Any, fleet: Fleet, robots: Robots, instances: Instances, streams: RobotStreams
) -> StreamHandler:
    async def handler(call: Call, params: Any) -> AsyncIterator[tuple[m.TopicHeader, memoryview]]:
        single = on_one_robot(params.dataflow, fleet, robots)
        if single is None:
            async for event in inner(call, await plain(params, fleet, instances)):
                yield event
            return
        robot, dataflow = single
        own = msgspec.structs.replace(params, dataflow=dataflow)
        frames = streams.frames(call.peer, robot, own)
        async with frames as events:
            async for header, data in events:
                yield msgspec.structs.replace(header, stream=call.id), data

    return handler


async def plain(params: Any, fleet: Fleet, instances: Instances) -> Any:
    """Return parameters whose dataflow is named without a robot, as the coordinator knows it.

    Raises:
        ControlError: it is an instance of which no machine answers.
    """
    name = named_without_robot(params.dataflow, fleet).dataflow
    if name is not None and (instance := fleet.instance(name)) is not None:
        await instances.describe(instance)
        name = instance.name
    return msgspec.structs.replace(params, dataflow=name)


def _of(robot: str, answer: m.Struct) -> m.Struct:
    """Return an answer of a robot with its name on all that it describes."""
    replace = msgspec.structs.replace
    match answer:
        case m.TopPart():
            answer.top = _top_of(robot, answer.top)
        case m.NodeList():
            answer.nodes = [replace(node, machine=robot) for node in answer.nodes]
        case m.NodeDetail():
            answer.info = replace(answer.info, machine=robot)
        case m.Event():
            return replace(answer, machine=robot)
    return answer


def _top_of(robot: str, top: m.Top) -> m.Top:
    replace = msgspec.structs.replace
    return replace(
        top,
        nodes=[replace(node, machine=robot) for node in top.nodes],
        edges=[replace(edge, machine=robot) for edge in top.edges],
        links=[replace(link, reporter=robot) for link in top.links],
        interfaces=[replace(each, machine=robot) for each in top.interfaces],
    )
