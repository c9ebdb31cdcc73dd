"""Read the `ros2` of a node: the topics, the service or the action that it bridges."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.settings import Ros2Bridge, Ros2Endpoint, Ros2Qos

if TYPE_CHECKING:
    from dorad.dataflow.model import Input
    from dorad.dataflow.value import Value

MAX_TOPICS = 64
MAX_DEPTH = 10_000
MAX_DOMAIN = 232
"""Ports of a higher domain would be above 65535."""

_MODES = ("topic", "topics", "service", "action")
_NAME = r"[~/]?[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*|~"
_TYPE = r"[A-Za-z][A-Za-z0-9_]*/[A-Za-z][A-Za-z0-9_]*"
_KEYS_OF = {
    "topic": ("message_type", "direction"),
    "topics": (),
    "service": ("service_type", "role"),
    "action": ("action_type", "role"),
}


class Direction(StrEnum):
    """Which way the messages of a topic go."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"


class Role(StrEnum):
    """The side of a service or an action that the dataflow takes."""

    CLIENT = "client"
    SERVER = "server"


_ACTION_INPUTS: dict[Role, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Role.CLIENT: ((), ()),
    Role.SERVER: (("result",), ("feedback", "goal_response")),
}
"""Those that are needed, and those that may be there. Goals come to a client on any input."""
_ACTION_OUTPUTS: dict[Role, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Role.CLIENT: (("result",), ("feedback",)),
    Role.SERVER: (("goal",), ("cancel", "goal_request")),
}


class Durability(StrEnum):
    """Whether a publisher keeps messages for late subscribers."""

    VOLATILE = "volatile"
    TRANSIENT_LOCAL = "transient_local"


class Liveliness(StrEnum):
    """How a publisher shows that it is alive."""

    AUTOMATIC = "automatic"
    MANUAL_BY_PARTICIPANT = "manual_by_participant"
    MANUAL_BY_TOPIC = "manual_by_topic"


class Transport(StrEnum):
    """The middleware of ROS 2."""

    DDS = "dds"
    ZENOH = "zenoh"


class Compatibility(StrEnum):
    """The version of Zenoh's protocol in dora; ours is that of the installed rmw_zenoh."""

    HUMBLE = "humble"
    REP2016 = "rep2016"


def read_ros2(
    node: Fields, inputs: tuple[Input, ...], outputs: tuple[str, ...]
) -> Ros2Bridge | None:
    """Return the bridge, None if it has no valid mode; report mistakes."""
    block = node.inside("ros2", "a mapping with `topic`, `topics`, `service` or `action`")
    if block is None or not isinstance(block.owner.data, dict):
        return None
    inputs_of = tuple(each.id for each in inputs)
    qos = _read_qos(block)
    endpoints = _read_endpoints(block, inputs_of, outputs, qos)
    transport, zenoh_config = _read_transport(block)
    bridge = Ros2Bridge(
        tuple(endpoints),
        block.text("setup"),
        block.checked("namespace", _check_namespace, "/"),
        block.checked("node_name", _check_node_name, None),
        block.integer("domain_id", maximum=MAX_DOMAIN),
        transport,
        zenoh_config,
        bool(block.flag("use_sim_time")),
    )
    block.finish()
    return bridge if endpoints else None


def _read_endpoints(
    block: Fields, inputs: tuple[str, ...], outputs: tuple[str, ...], qos: Ros2Qos
) -> list[Ros2Endpoint]:
    modes = [mode for mode in _MODES if block.has(mode)]
    if not modes:
        # An unknown key is reported with the nearest of these.
        block.ignore(*_MODES, *(key for keys in _KEYS_OF.values() for key in keys))
        block.problems.error_in_name(block.owner, f"needs one of {', '.join(_MODES)}")
        return []
    mode = modes[0]
    for extra in modes[1:]:
        block.ignore(extra)
        block.problems.error_in_name(
            block.name_of(extra), f"`{mode}` and `{extra}` exclude each other"
        )
    for key in {each for keys in _KEYS_OF.values() for each in keys} - {*_KEYS_OF[mode]}:
        block.ignore(key)
        if block.has(key):
            block.problems.error_in_name(block.name_of(key), f"not allowed with `{mode}`")
    match mode:
        case "topic":
            topic = _read_topic(block, inputs, outputs, qos)
            return [] if topic is None else [topic]
        case "topics":
            return _read_topics(block, inputs, outputs, qos)
        case _:
            return _read_call(block, mode, inputs, outputs, qos)


def _read_topic(
    block: Fields, inputs: tuple[str, ...], outputs: tuple[str, ...], qos: Ros2Qos
) -> Ros2Endpoint | None:
    name, kind, direction = _read_one_topic(block)
    ports, what = (outputs, "output") if direction is Direction.SUBSCRIBE else (inputs, "input")
    if not ports:
        block.problems.error_in_name(
            block.name_of("topic"), f"to {direction} a topic, the node needs an {what}"
        )
    return _topic(direction, name, kind, ports, qos) if name and kind else None


def _topic(
    direction: Direction, name: str, kind: str, ports: tuple[str, ...], qos: Ros2Qos
) -> Ros2Endpoint:
    if direction is Direction.SUBSCRIBE:
        return Ros2Endpoint(direction, name, kind, (), ports, qos)
    return Ros2Endpoint(direction, name, kind, ports, (), qos)


def _read_one_topic(fields: Fields) -> tuple[str, str, Direction]:
    name = fields.checked("topic", _check_name, "")
    fields.required_text("message_type", "such as `sensor_msgs/Image`")
    kind = fields.checked("message_type", _check_type, "")
    return name, kind, fields.choice("direction", Direction) or Direction.SUBSCRIBE


def _read_topics(
    block: Fields, inputs: tuple[str, ...], outputs: tuple[str, ...], qos: Ros2Qos
) -> list[Ros2Endpoint]:
    items = block.items("topics")
    if not items or len(items) > MAX_TOPICS:
        block.problems.error_in_name(
            block.name_of("topics"), f"has {len(items)} topics; it has 1 to {MAX_TOPICS}"
        )
    endpoints = []
    used: dict[str, Value] = {}
    seen: dict[tuple[str, str, str], Value] = {}
    for item in items[:MAX_TOPICS]:
        fields = Fields(item, block.problems, "a mapping with `topic` and `message_type`")
        fields.required_text("topic")
        name, kind, direction = _read_one_topic(fields)
        own = _read_qos(fields) if fields.has("qos") else qos
        fields.ignore("qos", "output", "input")
        key, other = (
            ("output", "input") if direction is Direction.SUBSCRIBE else ("input", "output")
        )
        if fields.has(other):
            block.problems.error_in_name(
                fields.name_of(other), f"a topic to {direction} has an `{key}`"
            )
        port = fields.text(key) or name.strip("/~").replace("/", "_")
        known = outputs if key == "output" else inputs
        place = fields.name_of(key if fields.has(key) else "topic")
        if name and port not in known:
            block.problems.error_in_name(
                place, f"the node has no {key} `{port}`", f"add it to `{key}s`"
            )
        elif (same := seen.setdefault((key, name, port), item)) is not item and name:
            block.problems.error(
                item,
                f"the topic `{name}` has the {key} `{port}` already, {same.where()}",
                "remove it",
            )
        elif key == "input" and port in used:
            block.problems.error_in_name(
                place, f"another topic has the input `{port}`, {used[port].where()}"
            )
        if key == "input":
            used[port] = place
        fields.finish()
        if name and kind:
            endpoints.append(_topic(direction, name, kind, (port,), own))
    for each in inputs:
        if each not in used:
            block.problems.warn(block.name_of("topics"), f"no topic has the input `{each}`")
    return endpoints


def _read_call(
    block: Fields, mode: str, inputs: tuple[str, ...], outputs: tuple[str, ...], qos: Ros2Qos
) -> list[Ros2Endpoint]:
    name = block.checked(mode, _check_name, "")
    block.required_text(f"{mode}_type", "such as `std_srvs/Trigger`")
    kind = block.checked(f"{mode}_type", _check_type, "")
    block.required_text("role", "client or server")
    role = block.choice("role", Role)
    for what, ports in (("an input", inputs), ("an output", outputs)):
        if not ports:
            block.problems.error_in_name(
                block.name_of(mode), f"the node needs {what} for this {mode}"
            )
    if not (name and kind and role and inputs and outputs):
        return []
    if mode == "service":
        outputs = _service_output(block, role, outputs)
    else:
        _check_action_ports(block, role, inputs, outputs)
    return [Ros2Endpoint(f"{mode}_{role}", name, kind, inputs, outputs, qos)]


def _service_output(block: Fields, role: Role, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the output of what comes from ROS 2, which has dora's name if there are several."""
    name = "response" if role is Role.CLIENT else "request"
    if name in outputs:
        return (name,)
    if len(outputs) > 1:
        block.problems.error_in_name(
            block.name_of("service"),
            f"which output has the {name}s of the service?",
            f"name it `{name}`",
        )
    return outputs[:1]


def _check_action_ports(
    block: Fields, role: Role, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    place = block.name_of("action")
    for what, ports, needed, optional in (
        ("input", inputs, *_ACTION_INPUTS[role]),
        ("output", outputs, *_ACTION_OUTPUTS[role]),
    ):
        for each in needed:
            if each not in ports:
                block.problems.error_in_name(
                    place, f"an action {role} needs the {what} `{each}`", f"add it to `{what}s`"
                )
        for each in ports if optional else ():
            if each not in (*needed, *optional):
                block.problems.warn(place, f"an action {role} does not use the {what} `{each}`")
    if role is Role.SERVER and ("goal_request" in outputs) != ("goal_response" in inputs):
        block.problems.error_in_name(
            place,
            "the output `goal_request` asks whether to accept a goal, the input `goal_response`"
            " has the answer: the node has only one of them",
        )


def _read_qos(fields: Fields) -> Ros2Qos:
    block = fields.inside("qos")
    if block is None:
        return Ros2Qos()
    qos = Ros2Qos(
        block.flag("reliable"),
        block.choice("durability", Durability),
        block.choice("liveliness", Liveliness),
        block.seconds("lease_duration", zero=False),
        block.seconds("max_blocking_time"),
        block.integer("keep_last", minimum=1, maximum=MAX_DEPTH),
        bool(block.flag("keep_all")),
    )
    block.finish()
    return qos


def _read_transport(fields: Fields) -> tuple[str, str | None]:
    block = fields.inside("transport")
    if block is None:
        return Transport.DDS, None
    block.required_text("kind", "dds or zenoh")
    kind = block.choice("kind", Transport) or Transport.DDS
    block.choice("compatibility", Compatibility)
    config = block.text("config_uri")
    if kind is Transport.DDS:
        for key in ("compatibility", "config_uri"):
            if block.has(key):
                block.problems.error_in_name(block.name_of(key), "only for `kind: zenoh`")
    block.finish()
    return kind, config


def _check_name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise TextError(
            f"`{text}` is not the name of a topic, service or action",
            "letters, digits and `_`, with `/` between parts",
        )
    return text


def _check_type(text: str) -> str:
    if re.fullmatch(_TYPE, text):
        return text
    package, _, base = text.partition("/")
    kind, _, name = base.partition("/")
    hint = f"write `{package}/{name}`" if kind in ("msg", "srv", "action") and name else None
    raise TextError(f"`{text}` is not the name of a type: `package/Name`", hint)


def _check_namespace(text: str) -> str:
    if not re.fullmatch(r"/|/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*", text):
        raise TextError(f"`{text}` is not a namespace", "such as `/robot1`")
    return text


def _check_node_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise TextError(f"`{text}` is not the name of a ROS 2 node", "letters, digits and `_`")
    return text
