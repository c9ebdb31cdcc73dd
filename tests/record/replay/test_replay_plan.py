"""Which nodes are replayed, how the dataflow changes, and when messages are due."""

import dataclasses
import threading

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dorad.dataflow.model import RECORDER
from dorad.record.mcap.reader import RecordingReader
from dorad.record.replay.config import ReplayConfig
from dorad.record.replay.control import Control
from dorad.record.replay.due import _ticks_of, with_extension
from dorad.record.replay.plan import (
    REPLAYER,
    ReplayError,
    check_comparison,
    choose_replayed,
    rewire,
    set_arguments,
)
from dorad.record.replay.player import Player, ReplayClock, StoppedError
from tests.record.files import DATAFLOW, numbers, write

FLOW = yaml.safe_load(DATAFLOW)
TOPICS = ("source/number", "source/text", "worker/sum")


def choose(wanted=(), live=(), sources_only=False):
    return choose_replayed(FLOW, TOPICS, wanted=wanted, live=live, sources_only=sources_only)


def test_every_node_with_recorded_messages_is_replayed():
    assert choose() == ("source", "worker")
    assert choose(live=["worker"]) == ("source",)
    assert choose(wanted=["worker"]) == ("worker",)
    assert choose(sources_only=True) == ("source",)
    with_size = yaml.safe_load(DATAFLOW)
    with_size["nodes"][1]["inputs"] = {"number": {"source": "source/number", "queue_size": 5}}
    assert choose_replayed(with_size, TOPICS, wanted=(), live=(), sources_only=True) == ("source",)


def test_unknown_nodes_are_refused_with_the_nearest():
    with pytest.raises(ReplayError, match=r"no node 'wroker'.*worker"):
        choose(wanted=["wroker"])
    with pytest.raises(ReplayError, match="no message of node 'sink'"):
        choose(wanted=["sink"])
    with pytest.raises(ReplayError, match="nothing to replay"):
        choose(live=["source", "worker"])


def test_a_dataflow_without_the_recorded_nodes_is_refused_with_both_names():
    other = {"nodes": [{"id": "lidar"}]}
    with pytest.raises(ReplayError, match="messages of source, worker; the dataflow has lidar"):
        choose_replayed(other, TOPICS, wanted=(), live=(), sources_only=False)


def test_there_must_be_something_to_compare():
    plan = changed(("source",), checks=True)[1]
    check_comparison(plan, lambda topic: topic == "source/number")
    with pytest.raises(ReplayError, match="--ignore leaves out every topic") as raised:
        check_comparison(plan, lambda topic: topic.startswith("worker/"))
    assert raised.value.hint == "they send: worker/sum"
    with pytest.raises(ReplayError, match="has no message of a node that runs"):
        check_comparison(dataclasses.replace(plan, checked=()), lambda _: False)
    removed = dataclasses.replace(plan, removed=("worker/old",))
    with pytest.raises(ReplayError, match="the dataflow has no output worker/old"):
        check_comparison(removed, lambda topic: topic == "worker/sum")
    check_comparison(removed, lambda topic: topic == "worker/old")


def test_the_arguments_of_the_replayer_are_set_last():
    found, _ = changed(("source",))
    before = yaml.safe_dump(found["nodes"][:-1])
    set_arguments(found, "--config x")
    assert found["nodes"][-1]["args"] == "--config x"
    assert node(found, REPLAYER) is found["nodes"][-1]
    assert yaml.safe_dump(found["nodes"][:-1]) == before


def test_without_a_speed_or_in_a_pause_the_clock_stands_at_the_last_message():
    for speed, paused in ((0.0, False), (1.0, True)):
        clock = ReplayClock(0, 1000, speed)
        if paused:
            clock.pause(1000)
        clock.at(70, 2000)
        assert clock.position(5000) == 70
    clock = ReplayClock(0, 1000, 2.0)
    clock.at(70, 2000)
    assert (clock.position(1100), clock.due(200)) == (200, 1100)
    clock = ReplayClock(0, 1000, 0.0)
    clock.at(70, 2000)
    clock.set_speed(1.0, 3000)
    assert clock.due(80) == 3010
    clock.resume(9000)
    assert clock.due(80) == 3010, "it was not paused"


def test_a_recorded_output_that_a_live_node_has_no_longer_is_not_checked():
    flow = yaml.safe_load(DATAFLOW)
    flow["nodes"][1]["outputs"] = ["product"]
    del flow["nodes"][2]
    found, plan = rewire(flow, TOPICS, ("source",), programs={}, checks=True)
    assert (plan.checked, plan.removed) == ((), ("worker/sum",))
    assert "inputs" not in node(found, REPLAYER)
    _, plan = changed(("source",), checks=True)
    assert (plan.checked, plan.removed) == (("worker/sum",), ())


def changed(replayed, **options):
    return rewire(FLOW, TOPICS, replayed, programs=options.pop("programs", {}), **options)


def node(flow, name):
    return next(each for each in flow["nodes"] if each["id"] == name)


def test_consumers_receive_from_the_replayer():
    flow, plan = changed(("source",))
    assert [each["id"] for each in flow["nodes"]] == ["worker", "sink", REPLAYER]
    assert node(flow, "worker")["inputs"]["number"] == {
        "source": f"{REPLAYER}/source/number",
        "queue_size": 10,
        "queue_policy": "backpressure",
    }
    assert node(flow, "sink")["inputs"]["sum"] == "worker/sum"
    assert node(flow, REPLAYER)["outputs"] == ["source/number", "source/text"]
    assert plan.live == ("worker", "sink")
    assert yaml.safe_load(DATAFLOW) == FLOW


def test_an_input_with_a_queue_size_keeps_it_unless_nothing_may_be_lost():
    flow = yaml.safe_load(DATAFLOW)
    flow["nodes"][1]["inputs"]["number"] = {"source": "source/number", "queue_size": 1}
    for lossless, policy in ((False, None), (True, "backpressure")):
        found, _ = rewire(flow, TOPICS, ("source",), programs={}, lossless=lossless)
        assert node(found, "worker")["inputs"]["number"].get("queue_policy") == policy


def test_inputs_of_topics_that_are_not_sent_end_with_the_replayer():
    """A node that waits for what a changed dataflow sends would never end without inputs."""
    flow, plan = changed(("source",), topics=["source/text"])
    assert node(flow, "worker")["inputs"]["number"]["source"] == f"{REPLAYER}/source/number"
    assert node(flow, REPLAYER)["outputs"] == ["source/text", "source/number"]
    assert (plan.topics, plan.silent) == (("source/text",), ("source/number",))


def test_another_program_runs_in_place_of_the_recorded_one():
    flow, _ = changed(("source",), programs={"worker": "/new.py"})
    assert node(flow, "worker")["path"] == "/new.py"
    with pytest.raises(ReplayError, match="'source' is replayed"):
        changed(("source",), programs={"source": "/new.py"})


def test_the_replayer_receives_what_is_checked():
    flow, plan = changed(("source",), checks=True)
    assert plan.checked == ("worker/sum",)
    assert list(node(flow, REPLAYER)["inputs"]) == ["worker/sum"]


def test_a_step_takes_over_the_timers_of_running_nodes():
    flow = yaml.safe_load(DATAFLOW)
    flow["nodes"][1]["inputs"]["tick"] = "dora/timer/millis/20"
    found, plan = rewire(flow, TOPICS, ("source",), programs={}, steps=True)
    assert plan.ticks == {"dora/tick/worker/tick": 20_000_000}
    assert node(found, "worker")["inputs"]["tick"]["source"] == f"{REPLAYER}/dora/tick/worker/tick"
    # Only timers, and only in steps.
    flow["nodes"][1]["inputs"]["log"] = "dora/logs"
    found, plan = rewire(flow, TOPICS, ("source",), programs={}, steps=True)
    assert node(found, "worker")["inputs"]["log"] == "dora/logs"
    assert list(plan.ticks) == ["dora/tick/worker/tick"]
    found, plan = rewire(flow, TOPICS, ("source",), programs={})
    assert node(found, "worker")["inputs"]["tick"] == "dora/timer/millis/20"
    assert plan.ticks == {}


def test_the_replayer_declares_the_types_of_what_it_sends_and_no_others():
    flow = yaml.safe_load(DATAFLOW)
    flow["nodes"][0]["output_types"] = {"number": "std/core/v1/Int64"}
    flow["nodes"][1]["output_types"] = {"sum": "std/core/v1/Float64"}
    found, _ = rewire(flow, TOPICS, ("source",), programs={})
    assert node(found, REPLAYER)["output_types"] == {"source/number": "std/core/v1/Int64"}
    del flow["nodes"][0]["output_types"]
    found, _ = rewire(flow, TOPICS, ("source",), programs={})
    assert "output_types" not in node(found, REPLAYER)


def test_operators_that_feed_each_other_are_a_source_and_a_circle_has_none():
    a, b = (
        {"id": "a", "python": "a.py", "inputs": {"x": "dora/timer/hz/1"}, "outputs": ["y"]},
        {"id": "b", "python": "b.py", "inputs": {"y": "ops/a/y"}, "outputs": ["z"]},
    )
    sink = {"id": "sink", "path": "s.py", "inputs": {"z": "ops/b/z"}, "outputs": ["back"]}
    flow = {"nodes": [{"id": "ops", "operators": [a, b]}, sink]}
    recorded = ("ops/a/y", "ops/b/z", "sink/back")
    assert choose_replayed(flow, recorded, wanted=(), live=(), sources_only=True) == ("ops",)
    a["inputs"]["back"] = "sink/back"
    with pytest.raises(ReplayError, match="every node is fed by another one"):
        choose_replayed(flow, recorded, wanted=(), live=(), sources_only=True)


def test_a_client_runs_only_with_the_node_that_it_calls():
    client = {"id": "client", "path": "c.py", "pattern": "service-client", "outputs": ["question"]}
    server = {"id": "server", "path": "s.py", "inputs": {"q": "client/question"}, "outputs": ["a"]}
    camera = {"id": "camera", "path": "x.py", "outputs": ["image"]}
    client["inputs"] = {"a": "server/a", "image": "camera/image"}
    other = {"id": "other", "path": "o.py"}
    flow = {"nodes": [other, client, server, camera]}
    recorded = ("server/a", "client/question", "camera/image")
    with pytest.raises(ReplayError, match="belong to the recorded requests") as raised:
        rewire(flow, recorded, ("server", "camera"), programs={})
    assert raised.value.hint == "let both run: --live client,server"
    _, plan = rewire(flow, recorded, ("camera",), programs={})
    assert plan.live == ("other", "client", "server")
    # Nodes that feed each other without requests may be taken apart.
    del client["pattern"]
    _, plan = rewire(flow, recorded, ("server", "camera"), programs={})
    assert plan.live == ("other", "client")


def test_operators_and_their_short_names_are_rewired():
    flow = {
        "nodes": [
            {"id": "op", "operator": {"python": "op.py", "outputs": ["out"]}},
            {"id": "ops", "operators": [{"id": "a", "python": "a.py", "inputs": {"x": "op/out"}}]},
        ]
    }
    found, plan = rewire(flow, ("op/op/out",), ("op",), programs={})
    assert plan.topics == ("op/op/out",)
    (operator,) = node(found, "ops")["operators"]
    assert operator["inputs"]["x"]["source"] == f"{REPLAYER}/op/op/out"


@given(
    st.lists(st.integers(0, 10**10), min_size=1, max_size=20).map(sorted),
    st.floats(0.1, 100),
)
def test_deadlines_are_absolute_and_in_order(times, speed):
    clock = ReplayClock(times[0], 1000, speed)
    due = [clock.due(each) for each in times]
    assert due == sorted(due)
    assert due[0] == 1000
    assert abs(due[-1] - 1000 - (times[-1] - times[0]) / speed) < 2


def test_a_pause_moves_the_deadlines():
    clock = ReplayClock(0, 0, 1.0)
    clock.pause(100)
    clock.pause(120)
    clock.resume(500)
    assert clock.due(150) == 550
    clock.set_speed(2.0, 550)
    assert clock.due(250) == 600
    assert clock.position(600) == 250


def test_a_speed_of_zero_never_waits_and_a_bad_one_is_refused():
    assert ReplayClock(5, 1000, 0).due(10**12) == 0
    with pytest.raises(ValueError, match="not a speed"):
        ReplayClock(0, 0, 1.0).set_speed(-1.0, 0)


@pytest.mark.parametrize(
    ("origin", "begin", "end", "expected"),
    [(0, 0, 35, [0, 10, 20, 30]), (5, 20, 40, [25, 35]), (50, 20, 71, [50, 60, 70])],
)
def test_ticks_are_due_at_whole_intervals_after_the_start(origin, begin, end, expected):
    assert [each.time for each in _ticks_of("t", 10, origin, begin, end)] == expected


def test_an_unknown_extension_type_is_sent_with_its_name():
    field = pa.field("x", pa.int32(), metadata={"ARROW:extension:name": "robot.tick"})
    array = with_extension(pa.array([1], pa.int32()), field)
    assert array.type.extension_name == "robot.tick"


class Commands(Control):
    """Orders of a user: one list for each time that the replayer asks."""

    def __init__(self, *orders):
        super().__init__("")
        self._orders = list(orders)

    def commands(self):
        return iter(self._orders.pop(0) if self._orders else ())


class StoppedNode:
    """A node that is told to stop at its first event."""

    def __init__(self):
        self.sent = 0

    def next(self, timeout=None):
        return self.try_recv()

    def try_recv(self):
        return {"type": "STOP", "id": "MANUAL"} if self.sent >= 6 else None

    def send_output(self, output, array, metadata):
        self.sent += 1


def looping(tmp_path, control, **options):
    """Replay three messages again and again, until the node stops; return the player."""
    path = write(tmp_path / "a.mcap", numbers(3, every_ms=1))
    node = StoppedNode()
    config = ReplayConfig(files=[], topics=["source/number"], loop=True, **options)
    with RecordingReader(path) as reader:
        player = Player(node, [reader], config, control, None)
        with pytest.raises(StoppedError):
            player.play()
    assert node.sent == 6
    return player


def test_a_loop_of_few_messages_stops_when_it_is_told_to(tmp_path):
    looping(tmp_path, Commands(), speed=0.0)


def test_a_loop_keeps_the_speed_that_was_chosen_meanwhile(tmp_path):
    player = looping(tmp_path, Commands(["speed 4"], ["resume"]), speed=1.0, paused=True)
    assert (player._clock.speed, player._clock.paused) == (4.0, False)


class SlowRecording:
    """A recording whose first message, and whose end, take a while to read."""

    def __init__(self, reader, delay):
        self._reader, self._delay = reader, delay

    def messages(self, **chosen):
        threading.Event().wait(self._delay)
        yield from self._reader.messages(**chosen)
        threading.Event().wait(self._delay)


class EndlessNode(StoppedNode):
    """A node that is never told to stop."""

    def try_recv(self):
        return None


class LonelyNode(StoppedNode):
    """A node whose senders have all ended after its first message."""

    def try_recv(self):
        return {"type": "STOP", "id": "ALL_INPUTS_CLOSED"} if self.sent == 1 else None


def test_a_replay_goes_on_when_the_nodes_that_it_compares_have_ended(tmp_path):
    path = write(tmp_path / "a.mcap", numbers(3, every_ms=1))
    config = ReplayConfig(files=[], topics=["source/number"], speed=0.05)
    with RecordingReader(path) as reader:
        node = LonelyNode()
        assert Player(node, [reader], config, Control(""), None).play().messages == 3
    assert node.sent == 3


@pytest.mark.parametrize("count", [1, 3])
def test_the_real_speed_counts_from_the_first_message_to_the_last(tmp_path, count):
    """One message has no speed."""
    path = write(tmp_path / "a.mcap", numbers(count, every_ms=1))
    config = ReplayConfig(files=[], topics=["source/number"], speed=0.0)
    with RecordingReader(path) as reader:
        slow = SlowRecording(reader, 0.5)
        played = Player(EndlessNode(), [slow], config, Control(""), None).play()
    assert played.messages == count
    assert played.seconds < 0.5
    assert (played.speed > 0) == (count > 1)


def test_recorders_of_the_recorded_dataflow_are_left_out():
    flow = yaml.safe_load(DATAFLOW)
    flow["nodes"] += [
        {"id": "box", "path": RECORDER, "inputs": {"x": "source/number"}},
        {"id": "__dora_record_1", "path": "r.py", "inputs": {"x": "source/number"}},
    ]
    found, plan = rewire(flow, TOPICS, ("source",), programs={})
    assert {each["id"] for each in found["nodes"]} == {"worker", "sink", REPLAYER}
    assert plan.live == ("worker", "sink")
