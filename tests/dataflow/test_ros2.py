"""The `ros2:` block."""

from __future__ import annotations

import pytest

from dorad.dataflow.ros2 import (
    Compatibility,
    Direction,
    Durability,
    Endpoint,
    Qos,
    Role,
    Ros2Bridge,
    Topic,
    Transport,
    TransportKind,
)
from tests.dataflow.reading import node, node_text, problem

_PORTS = "inputs: {i: dora/timer/secs/1}\noutputs: [o]\n"


def test_one_topic_with_defaults() -> None:
    found = node("ros2: {topic: /chatter, message_type: std_msgs/String}\noutputs: [o]")
    assert found.ros2 == Ros2Bridge((Topic("/chatter", "std_msgs/String"),))


def test_everything_around_topics() -> None:
    found = node(
        _PORTS
        + """
ros2:
  topics:
    - {topic: /a, message_type: x/A, output: o, qos: {reliable: true, keep_last: 5}}
    - {topic: b, message_type: x/B, direction: publish, input: i}
  namespace: /robot
  node_name: bridge
  qos: {durability: transient_local, lease_duration: 1.5, keep_all: true}
  transport: {kind: zenoh, compatibility: humble, config_uri: x}
"""
    )
    assert found.ros2 == Ros2Bridge(
        topics=(
            Topic("/a", "x/A", output="o", qos=Qos(reliable=True, keep_last=5)),
            Topic("b", "x/B", Direction.PUBLISH, input="i"),
        ),
        qos=Qos(durability=Durability.TRANSIENT_LOCAL, lease_duration=1.5, keep_all=True),
        namespace="/robot",
        node_name="bridge",
        transport=Transport(TransportKind.ZENOH, Compatibility.HUMBLE, "x"),
    )


@pytest.mark.parametrize("kind", ["service", "action"])
def test_services_and_actions(kind: str) -> None:
    found = node(f"{_PORTS}ros2: {{{kind}: /add, {kind}_type: x/Add, role: server}}")
    assert getattr(found.ros2, kind) == Endpoint("/add", "x/Add", Role.SERVER)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("x", "ros2: must be a mapping, not `x`"),
        ("{}", "ros2: needs one of topic, topics, service, action"),
        ("{topi: /a}", "ros2.topi: unknown key `topi` (did you mean `topic`?)"),
        ("{topic: /a}", "ros2: needs `message_type`"),
        ("{topic: /a, message_type: String}", "`String` is not a type such as `std_msgs/String`"),
        ("{topic: 'a b', message_type: x/A}", "ros2.topic: `a b` is not a ROS 2 name"),
        ("{topic: /a, message_type: x/A, direction: in}", "must be one of subscribe, publish"),
        ("{topics: []}", "ros2.topics: must hold 1 to 64 topics"),
        ("{topics: [{topic: a, message_type: x/A, quos: 1}]}", "topics[0].quos: unknown key"),
        ("{service: a, service_type: x/A, role: srv}", "must be one of client, server, not `srv`"),
        (
            "{service: a, service_type: x/A, action: b, action_type: x/B, role: client}",
            "`service` and `action` exclude",
        ),
        ("{topic: a, message_type: x/A, qos: {keep_last: 0}}", "a whole number from 1 to 10000"),
        ("{topic: a, message_type: x/A, qos: {deadline: 1}}", "unknown key `deadline`"),
        ("{topic: a, message_type: x/A, namespace: a-b}", "`a-b` is not a ROS 2 namespace"),
        ("{topic: a, message_type: x/msg/A}", "`x/msg/A` is not a type"),
        ("{topic: ~/a, message_type: x/A}", "`~/a` is not a ROS 2 name"),
        ("{service: a, service_type: x/A}", "ros2: needs `role` (client or server)"),
        ("{topic: a, message_type: x/A, transport: {}}", "ros2.transport: needs `kind`"),
        ("{topic: a, message_type: x/A, transport: {kind: zenoh}}", "needs `compatibility`"),
        (
            "{topic: a, message_type: x/A, transport: {kind: dds, config_uri: x}}",
            "only for `kind: zenoh`",
        ),
    ],
)
def test_mistakes(block: str, message: str) -> None:
    assert message in str(problem(node_text(f"{_PORTS}ros2: {block}")))


@pytest.mark.parametrize(
    ("ports", "block", "message"),
    [
        ("", "{topic: a, message_type: x/A}", "needs `outputs`"),
        ("", "{topic: a, message_type: x/A, direction: publish}", "needs `inputs`"),
        (
            "outputs: [o]\n",
            "{service: a, service_type: x/A, role: client}",
            "the node needs `inputs`",
        ),
    ],
)
def test_ports_that_miss(ports: str, block: str, message: str) -> None:
    assert message in problem(node_text(f"{ports}ros2: {block}")).message
