"""The `ros2` of a node, as dora writes it."""

import pytest

from dorad.dataflow.settings import Ros2Bridge, Ros2Endpoint, Ros2Qos
from dorad.dataflow.support import unsupported
from tests.dataflow.reading import node_text, problems, read

PORTS = {
    "subscribe": "outputs: [o]",
    "publish": "inputs: {i: dora/timer/secs/1}",
    "service_client": "inputs: {i: dora/timer/secs/1}\noutputs: [o]",
    "service_server": "inputs: {i: dora/timer/secs/1}\noutputs: [o]",
    "action_client": "inputs: {i: dora/timer/secs/1}\noutputs: [feedback, result]",
    "action_server": "inputs: {result: dora/timer/secs/1}\noutputs: [goal]",
}
ZENOH = "transport: {kind: zenoh, compatibility: humble}"


def bridge(keys: str, ports: str = "outputs: [o]") -> Ros2Bridge:
    found = read(node_text(f"ros2: {{{keys}}}\n{ports}")).nodes[0].ros2
    assert found is not None
    return found


@pytest.mark.parametrize("transport", ["", f", {ZENOH}"])
@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("topic: /turtle1/pose, message_type: turtlesim/Pose, direction: subscribe", "subscribe"),
        ("topic: /turtle1/pose, message_type: turtlesim/Pose", "subscribe"),
        ("topic: /cmd_vel, message_type: geometry_msgs/Twist, direction: publish", "publish"),
        (
            "service: /add_two_ints, service_type: example_interfaces/AddTwoInts, role: client",
            "service_client",
        ),
        (
            "service: /add_two_ints, service_type: example_interfaces/AddTwoInts, role: server",
            "service_server",
        ),
        (
            "action: /fibonacci, action_type: example_interfaces/Fibonacci, role: client",
            "action_client",
        ),
        (
            "action: /fibonacci, action_type: example_interfaces/Fibonacci, role: server",
            "action_server",
        ),
    ],
)
def test_each_mode_of_dora_is_read(keys: str, kind: str, transport: str) -> None:
    found = bridge(keys + transport, PORTS[kind])
    assert [each.kind for each in found.endpoints] == [kind]
    assert found.transport == ("zenoh" if transport else "dds")


def test_topics_share_a_node_and_its_qos() -> None:
    found = bridge(
        "topics: [{topic: /turtle1/pose, message_type: turtlesim/Pose, direction: subscribe,"
        " output: pose, qos: {keep_all: true}}, {topic: /turtle1/cmd_vel,"
        " message_type: geometry_msgs/Twist, direction: publish}],"
        " qos: {reliable: true, keep_last: 10, durability: transient_local},"
        " namespace: /robot1, node_name: turtle, domain_id: 7, setup: /opt/ros/jazzy,"
        " use_sim_time: true",
        "inputs: {turtle1_cmd_vel: dora/timer/secs/1}\noutputs: [pose]",
    )
    assert found == Ros2Bridge(
        (
            Ros2Endpoint(
                "subscribe",
                "/turtle1/pose",
                "turtlesim/Pose",
                outputs=("pose",),
                qos=Ros2Qos(keep_all=True),
            ),
            Ros2Endpoint(
                "publish",
                "/turtle1/cmd_vel",
                "geometry_msgs/Twist",
                ("turtle1_cmd_vel",),
                qos=Ros2Qos(reliable=True, keep_last=10, durability="transient_local"),
            ),
        ),
        "/opt/ros/jazzy",
        "/robot1",
        "turtle",
        7,
        use_sim_time=True,
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("node_name: x", "needs one of topic, topics, service, action"),
        ("topic: /t", "needs `message_type`"),
        (
            "topic: /t, message_type: std_msgs/msg/String",
            "not the name of a type: `package/Name` (write `std_msgs/String`)",
        ),
        ("topic: a b, message_type: a/B", "`a b` is not the name of a topic"),
        ("topic: /t, message_type: a/B, direction: both", "must be one of subscribe, publish"),
        (
            "topic: /t, message_type: a/B, direction: publish",
            "to publish a topic, the node needs an input",
        ),
        ("topic: /t, message_type: a/B, service: /s", "`topic` and `service` exclude each other"),
        ("topic: /t, message_type: a/B, role: client", "not allowed with `topic`"),
        ("topic: /t, message_type: a/B, quos: {}", "unknown key `quos`"),
        ("topic: /t, message_type: a/B, qos: {keep_last: 0}", "from 1 to 10000"),
        (
            "topic: /t, message_type: a/B, qos: {durability: persistent}",
            "volatile, transient_local",
        ),
        ("topic: /t, message_type: a/B, qos: {lease_duration: -1}", "above 0"),
        ("topic: /t, message_type: a/B, domain_id: 300", "from 0 to 232"),
        (
            "topic: /t, message_type: a/B, transport: {kind: dds, compatibility: humble}",
            "only for `kind: zenoh`",
        ),
        ("topics: []", "has 0 topics; it has 1 to 64"),
        (
            "topics: [{topic: /t, message_type: a/B}]",
            "the node has no output `t` (add it to `outputs`)",
        ),
        (
            "topics: [{topic: /t, message_type: a/B, output: o, input: i}]",
            "a topic to subscribe has an `output`",
        ),
        (
            "service: /s, service_type: a/B, role: client",
            "the node needs an input for this service",
        ),
        ("service: /s, service_type: a/B", "needs `role`"),
        ("action: /s, role: client", "needs `action_type`"),
    ],
)
def test_mistakes_are_named(keys: str, message: str) -> None:
    lines = [str(each) for each in problems(node_text(f"ros2: {{{keys}}}\noutputs: [o]"))]
    assert any(message in line for line in lines), lines


def test_an_input_feeds_one_topic() -> None:
    topic = "message_type: a/B, direction: publish, input: i"
    topics = f"[{{topic: /a, {topic}}}, {{topic: /b, {topic}}}]"
    text = f"ros2: {{topics: {topics}}}\ninputs: {{i: dora/timer/secs/1}}"
    lines = [str(each) for each in problems(node_text(text))]
    assert any("another topic has the input `i`" in line for line in lines), lines


@pytest.mark.parametrize(
    ("role", "ports", "message"),
    [
        ("client", "inputs: {i: x/y}\noutputs: [o]", "needs the output `result` (add it to"),
        ("server", "inputs: {i: x/y}\noutputs: [goal]", "needs the input `result`"),
        ("server", "inputs: {result: x/y}\noutputs: [o]", "needs the output `goal`"),
        ("server", "inputs: {result: x/y}\noutputs: [goal, goal_request]", "only one of them"),
    ],
)
def test_the_ports_of_an_action_have_the_names_of_their_parts(
    role: str, ports: str, message: str
) -> None:
    text = node_text(f"ros2: {{action: /s, action_type: a/B, role: {role}}}\n{ports}")
    lines = [str(each) for each in problems(text)]
    assert any(message in line for line in lines), lines


def test_of_several_outputs_a_service_uses_the_one_with_the_name_of_its_part() -> None:
    keys = "service: /s, service_type: a/B, role: client"
    ports = "inputs: {i: dora/timer/secs/1}\noutputs: [a, response]"
    assert bridge(keys, ports).endpoints[0].outputs == ("response",)
    text = node_text(f"ros2: {{{keys}}}\n{ports.replace('response', 'b')}")
    lines = [str(each) for each in problems(text)]
    assert any("which output has the responses of the service?" in line for line in lines), lines


def handler(inputs: str, outputs: str) -> str:
    return f"  - {{id: handler, path: handler.py, inputs: {{{inputs}}}, outputs: [{outputs}]}}"


def block(keys: str, transport: str, inputs: str, outputs: str) -> str:
    ros2 = f"{{{keys}{transport}}}"
    return f"  - {{id: bridge, ros2: {ros2}, inputs: {{{inputs}}}, outputs: [{outputs}]}}"


SERVICE = "service: /add_two_ints, service_type: example_interfaces/AddTwoInts"
TOPICS = (
    "topics: [{topic: /turtle1/pose, message_type: turtlesim/Pose, output: pose},"
    " {topic: /turtle1/cmd_vel, message_type: geometry_msgs/Twist, direction: publish,"
    " input: velocity}], qos: {reliable: true, keep_last: 10}"
)
ACTION = "action: /fibonacci, action_type: example_interfaces/Fibonacci"


@pytest.mark.parametrize("transport", ["", f", {ZENOH}"])
@pytest.mark.parametrize(
    ("keys", "sent", "received"),
    [
        (f"{SERVICE}, role: client", ("request",), ("response",)),
        (f"{SERVICE}, role: server", ("response",), ("request",)),
        (f"{ACTION}, role: client", ("goal",), ("feedback", "result")),
        (f"{ACTION}, role: server", ("feedback", "result"), ("goal",)),
        (TOPICS, ("velocity",), ("pose",)),
    ],
)
def test_dataflows_like_the_examples_of_dora_are_valid_and_run(
    keys: str, sent: tuple[str, ...], received: tuple[str, ...], transport: str
) -> None:
    to_bridge = ", ".join(f"{each}: handler/{each}" for each in sent)
    to_handler = ", ".join(f"{each}: bridge/{each}" for each in received)
    text = "\n".join(
        (
            "nodes:",
            block(keys, transport, to_bridge, ", ".join(received)),
            handler(f"{to_handler}, tick: dora/timer/secs/1", ", ".join(sent)),
            "",
        )
    )
    flow = read(text)
    assert not flow.warnings
    assert not unsupported(flow)


def test_an_input_that_an_action_server_does_not_use_is_a_warning() -> None:
    ports = "inputs: {result: dora/timer/secs/1, i: dora/timer/secs/1}\noutputs: [goal]"
    flow = read(node_text(f"ros2: {{action: /s, action_type: a/B, role: server}}\n{ports}"))
    assert any("does not use the input `i`" in str(each) for each in flow.warnings)
