"""The `ros2:` block of a node: a declared bridge to ROS 2 topics, a service or an action."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from dorad.dataflow.document import shorten
from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.dataflow.document import Value
    from dorad.dataflow.problems import Problems

_NAME = re.compile(r"/?[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")
_NAMESPACE = re.compile(r"/|/?[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]*/[A-Za-z][A-Za-z0-9_]*")
_MOST_TOPICS = 64
_MOST_KEPT = 10_000


class Direction(StrEnum):
    """Which way a topic is bridged, seen from dora."""

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"


class Role(StrEnum):
    """Which end of a service or action the bridge is."""

    CLIENT = "client"
    SERVER = "server"


class Durability(StrEnum):
    """ROS 2 durability."""

    VOLATILE = "volatile"
    TRANSIENT_LOCAL = "transient_local"


class Liveliness(StrEnum):
    """ROS 2 liveliness."""

    AUTOMATIC = "automatic"
    MANUAL_BY_PARTICIPANT = "manual_by_participant"
    MANUAL_BY_TOPIC = "manual_by_topic"


class TransportKind(StrEnum):
    """What carries ROS 2 messages."""

    DDS = "dds"
    ZENOH = "zenoh"


class Compatibility(StrEnum):
    """Which key scheme a Zenoh transport speaks."""

    HUMBLE = "humble"
    REP2016 = "rep2016"


@dataclass(frozen=True, slots=True)
class Qos:
    """Quality of service; times in seconds."""

    reliable: bool = False
    durability: Durability = Durability.VOLATILE
    liveliness: Liveliness = Liveliness.AUTOMATIC
    lease_duration: float | None = None
    max_blocking_time: float | None = None
    keep_last: int = 1
    keep_all: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """One bridged topic, and the output or input of the node it is tied to."""

    topic: str
    message_type: str
    direction: Direction = Direction.SUBSCRIBE
    output: str | None = None
    input: str | None = None
    qos: Qos | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A bridged service or action."""

    name: str
    type: str
    role: Role = Role.CLIENT


@dataclass(frozen=True, slots=True)
class Transport:
    """How the bridge talks to ROS 2."""

    kind: TransportKind = TransportKind.DDS
    compatibility: Compatibility | None = None
    config_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Ros2Bridge:
    """What a `ros2:` node bridges: topics, or a service, or an action."""

    topics: tuple[Topic, ...] = ()
    service: Endpoint | None = None
    action: Endpoint | None = None
    qos: Qos = field(default_factory=Qos)
    namespace: str = "/"
    node_name: str | None = None
    transport: Transport = field(default_factory=Transport)


def read_ros2(block: Fields, *, has_inputs: bool, has_outputs: bool) -> Ros2Bridge:
    """The block as far as it can be read; reports what is wrong, ports that miss included."""
    if not isinstance(block.owner.data, dict):
        return Ros2Bridge()
    makers = [key for key in ("topic", "topics", "service", "action") if block.has(key)]
    for extra in makers[1:]:
        block.problems.error_in_name(
            block.name_of(extra), f"`{makers[0]}` and `{extra}` exclude each other"
        )
    topics: tuple[Topic, ...] = ()
    if block.has("topic"):
        topics = (_read_topic(block),)
    else:
        block.ignore("topic")
    listed = block.items("topics")
    if len(listed) > _MOST_TOPICS or (block.has("topics") and not listed):
        block.problems.error(block.name_of("topics"), f"must hold 1 to {_MOST_TOPICS} topics")
    topics += tuple(_read_item(item, block.problems) for item in listed)
    service = _read_endpoint(block, "service")
    action = _read_endpoint(block, "action")
    role = block.choice("role", Role)
    if (service or action) and not block.has("role"):
        block.problems.error_in_name(block.owner, "needs `role`", "client or server")
    bridge = Ros2Bridge(
        topics,
        Endpoint(*service, role or Role.CLIENT) if service else None,
        Endpoint(*action, role or Role.CLIENT) if action else None,
        _read_qos(block) or Qos(),
        block.checked("namespace", _matches(_NAMESPACE, "a ROS 2 namespace"), "/"),
        block.text("node_name"),
        _read_transport(block),
    )
    meant = block.finish()
    if not makers and not meant.intersection(("topic", "topics", "service", "action")):
        block.problems.error_in_name(block.owner, "needs one of topic, topics, service, action")
    _check_ports(block, bridge, has_inputs=has_inputs, has_outputs=has_outputs)
    return bridge


def _check_ports(block: Fields, bridge: Ros2Bridge, *, has_inputs: bool, has_outputs: bool) -> None:
    both = bridge.service is not None or bridge.action is not None
    directions = {topic.direction for topic in bridge.topics}
    if (both or Direction.SUBSCRIBE in directions) and not has_outputs:
        block.problems.error_in_name(block.owner, "brings messages in: the node needs `outputs`")
    if (both or Direction.PUBLISH in directions) and not has_inputs:
        block.problems.error_in_name(block.owner, "sends messages out: the node needs `inputs`")


def _read_item(item: Value, problems: Problems) -> Topic:
    fields = Fields(item, problems, "a mapping with `topic` and `message_type`")
    topic = Topic(
        *_read_names(fields, "topic", "message_type"),
        fields.choice("direction", Direction) or Direction.SUBSCRIBE,
        fields.text("output"),
        fields.text("input"),
        _read_qos(fields),
    )
    fields.finish()
    return topic


def _read_topic(block: Fields) -> Topic:
    return Topic(
        *_read_names(block, "topic", "message_type"),
        block.choice("direction", Direction) or Direction.SUBSCRIBE,
    )


def _read_endpoint(block: Fields, key: str) -> tuple[str, str] | None:
    if not block.has(key):
        block.ignore(key)
        return None
    return _read_names(block, key, f"{key}_type")


def _read_names(fields: Fields, name_key: str, type_key: str) -> tuple[str, str]:
    name, kind = fields.required_text(name_key), fields.required_text(type_key)
    if name:
        fields.checked(name_key, _matches(_NAME, "a ROS 2 name"), None)
    if kind:
        fields.checked(type_key, _matches(_TYPE, "a type such as `std_msgs/String`"), None)
    return name, kind


def _read_qos(owner: Fields) -> Qos | None:
    block = owner.inside("qos")
    if block is None:
        return None
    qos = Qos(
        block.flag("reliable") or False,
        block.choice("durability", Durability) or Durability.VOLATILE,
        block.choice("liveliness", Liveliness) or Liveliness.AUTOMATIC,
        block.seconds("lease_duration"),
        block.seconds("max_blocking_time"),
        block.integer("keep_last", least=1, most=_MOST_KEPT) or 1,
        block.flag("keep_all") or False,
    )
    block.finish()
    return qos


def _read_transport(owner: Fields) -> Transport:
    block = owner.inside("transport")
    if block is None:
        return Transport()
    block.required_text("kind", "dds or zenoh")
    kind = block.choice("kind", TransportKind) or TransportKind.DDS
    compatibility = block.choice("compatibility", Compatibility)
    config_uri = block.text("config_uri")
    if kind is TransportKind.DDS and block.has("kind"):
        for key in ("compatibility", "config_uri"):
            if block.has(key):
                block.problems.error_in_name(block.name_of(key), "only for `kind: zenoh`")
    elif kind is TransportKind.ZENOH and not block.has("compatibility"):
        block.problems.error_in_name(block.owner, "`kind: zenoh` needs `compatibility`")
    block.finish()
    return Transport(kind, compatibility, config_uri)


def _matches(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise TextError(f"`{shorten(text)}` is not {what}")
        return text

    return check
