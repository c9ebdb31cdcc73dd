"""One sentence for each node that is the cause of something, and none for what follows from it."""

import pytest

from dorad.daemon.broker.readings import EdgeCounters
from dorad.daemon.measuring.outputs import Slow
from dorad.daemon.measuring.troubles import (
    Flooding,
    Growing,
    Losing,
    Missing,
    Sentence,
    Troubles,
    TroubleWatch,
    sentences,
)
from dorad.daemon.rules.loss import CLEAN_S
from dorad.dataflow.model import LINK
from dorad.logs.dataflowlog import LineCounts

EDGE = EdgeCounters("planner", "path", "control", "path", 10, 0, 0, 0, 0, 0, 0)
NODES = {"planner": 1, "control": 2}
CLEAN = round(CLEAN_S) + 3


def test_losses_of_one_receiver_are_one_sentence_with_the_worst() -> None:
    troubles = Troubles(
        losing=[
            Losing(1.0, 50.0, "odometry/pose", "control"),
            Losing(4.1, 50.0, "planner/path", "control"),
        ]
    )
    (only,) = sentences(troubles, [], [])
    assert only == Sentence(
        "input-drops",
        "control",
        "planner/path -> control drops 4.1/s of 50.0/s: control is slow",
        "planner/path -> control drops: control is slow",
    )
    assert list(sentences(troubles, [], ["control"])) == []


def test_a_flood_of_lines_names_the_node_and_what_it_logs() -> None:
    errors, lines = Flooding("gripper", 200.4, "errors"), Flooding("arm", 4000.0, "lines")
    texts = [
        (each.text, each.brief) for each in sentences(Troubles(flooding=[errors, lines]), [], [])
    ]
    assert texts == [
        ("gripper logs 200 errors/s", "gripper logs many errors"),
        ("arm logs 4000 lines/s", "arm logs many lines"),
    ]


def test_a_node_has_one_sentence() -> None:
    troubles = Troubles(
        [Slow("control/state", 3.0, 50.0)],
        [Losing(4.1, 50.0, "planner/path", "control")],
        [Flooding("control", 200.0, "errors")],
        [Growing("control", 431e6, 64_000_000)],
    )
    assert [each.cause for each in sentences(troubles, [], [])] == ["output-slow"]
    assert [each.cause for each in sentences(troubles._replace(slow=()), [], [])] == ["input-drops"]
    assert list(sentences(troubles, [], ["control"])) == []


def run(
    seconds: int, edge: EdgeCounters, drops: int, watch: TroubleWatch, at: float
) -> EdgeCounters:
    for second in range(1, seconds + 1):
        edge = edge._replace(sent=edge.sent + 50, dropped=edge.dropped + drops)
        watch.add(at + second, [edge], NODES, {}, {})
    return edge


def test_an_input_that_begins_to_drop_is_found_unless_it_takes_the_newest_only() -> None:
    for changed, expected in (
        ({}, [Losing(8.0, 50.0, "planner/path", "control")]),
        ({"queue_size": 1}, []),
        ({"limited": True}, []),
    ):
        watch = TroubleWatch({})
        edge = run(CLEAN, EDGE._replace(**changed), 0, watch, 0.0)
        assert watch.now() == Troubles([], [], [], [], [])
        edge = run(30, edge, 8, watch, CLEAN)
        assert watch.now().losing == expected
        run(1, edge, 8, watch, CLEAN + 30.0)
        watch.add(CLEAN + 32.0, [edge], NODES | {"control": 3}, {}, {})
        assert watch.now().losing == []


def test_a_slow_line_to_another_machine_is_the_cause_and_not_the_link() -> None:
    changed = {"node": LINK, "input": "arm2/planner/path"}
    link = EDGE._replace(**changed)  # type: ignore[arg-type]
    watch, nodes = TroubleWatch({}), {"planner": 1, LINK: "link"}

    def lose(seconds: int, drops: int, at: float, edge: EdgeCounters, *down: str) -> EdgeCounters:
        for second in range(1, seconds + 1):
            edge = edge._replace(sent=edge.sent + 50, dropped=edge.dropped + drops)
            watch.add(at + second, [edge], nodes, {}, {}, down)
        return edge

    link = lose(30, 20, CLEAN, lose(CLEAN, 0, 0.0, link))
    (only,) = sentences(watch.now(), [], [])
    assert only == Sentence(
        "link-loses",
        "planner",
        "the link to arm2 drops 20.0/s of 50.0/s of planner/path: the line is slower than what "
        "is sent",
        "the link to arm2 loses messages",
        "planner/path",
    )
    # A link that is not up has its own alert.
    link = lose(1, 20, CLEAN + 30.0, link, "arm2")
    assert watch.now().losing == []


def test_messages_that_get_lost_on_the_way_are_told_by_the_receiving_machine() -> None:
    watch = TroubleWatch({})
    edge = EdgeCounters(LINK, "mic/sound", "control", "sound", 10, 0, 0, 0, 0, 0, 0)
    for second in range(20):
        edge = edge._replace(sent=edge.sent + 45, lost=edge.lost + 5)
        watch.add(float(second), [edge], {LINK: "link", "control": 2, "mic": "link"}, {}, {})
    (missing,) = watch.now().missing
    assert missing == Missing("mic/sound", pytest.approx(0.1, abs=0.01))
    (only,) = sentences(Troubles(missing=[missing]), [], [])
    assert (only.cause, only.node, only.output) == ("link-loses", "", "mic/sound")
    assert only.text.startswith("10% of mic/sound of another machine is lost on the way")


def test_lines_of_nodes_are_counted() -> None:
    watch = TroubleWatch({})
    for second in range(30):
        counts = {"arm": LineCounts(20 * second, 8 * second), "camera": LineCounts(20 * second, 0)}
        watch.add(float(second), [], {}, {}, counts)
    assert watch.now().flooding == [Flooding("arm", 8.0, "errors")]


def test_a_node_that_takes_more_and_more_memory_is_named_until_it_is_another_process() -> None:
    watch = TroubleWatch({})
    for second in range(150):
        memory = 64_000_000 + 6_000_000 * max(0, second - 90)
        watch.add_memory(float(second), {"arm": (7, memory), "camera": (8, 64_000_000)})
    (arm,) = watch.now().growing
    assert (arm.node, arm.before) == ("arm", 64_000_000)
    (only,) = sentences(Troubles(growing=[arm]), [], [])
    assert only.text == f"arm takes {arm.memory / 1e6:.0f} MB, was 64 MB"
    assert only.brief == "arm takes more memory"
    watch.add_memory(151.0, {"arm": (9, 64_000_000), "camera": (8, 64_000_000)})
    assert watch.now().growing == []
