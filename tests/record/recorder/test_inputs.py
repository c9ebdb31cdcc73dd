"""What a recorder takes from its queues, and until when: over real rings, without a daemon."""

import os
import threading
import time
from types import SimpleNamespace

import pyarrow as pa
import pytest

from dorad.node import events, logbridge
from dorad.record.recorder import inputs
from dorad.record.recorder.inputs import DRAIN_S, IDLE_TAKES, LAST_LINES_S, TAKE_S, Taken
from dorad.shm import doorbell, layout, stepping
from tests.harness.waiting import wait_until
from tests.record.files import raw
from tests.record.rings import SIZE, SOURCES, robot_of


@pytest.fixture
def robot(monkeypatch):
    with robot_of(monkeypatch) as made:
        yield made


def taken(receiving):
    """Return topic and number of each message of a take."""
    return [(each.topic, each.sequence) for each in receiving.take().items]


def test_each_message_is_taken_once_with_its_topic_and_number(robot):
    receiving = robot.receiving()
    robot.send("cam___image", 1, 2)
    robot.send("arm___pose", 3)
    found = receiving.take()
    assert [(each.topic, each.sequence) for each in found.items] == [
        ("cam/image", 0),
        ("cam/image", 1),
        ("arm/pose", 0),
    ]
    assert [each.content[:4] for each in found.items] == [raw(pa.array([n])) for n in (1, 2, 3)]
    assert found.most == 2 / SIZE
    assert receiving.take() == Taken([], 0.0, [])
    robot.send("cam___image", 4)
    assert taken(receiving) == [("cam/image", 2)]


@pytest.mark.parametrize("discard", [False, True])
def test_what_was_queued_before_is_recorded_unless_it_is_to_be_discarded(robot, discard):
    robot.send("cam___image", 1, 2)
    receiving = robot.receiving(discard=discard)
    robot.send("cam___image", 3)
    assert [number for _, number in taken(receiving)] == ([2] if discard else [0, 1, 2])
    # What is discarded is no loss of the recording.
    assert receiving.dropped() == {"cam/image": 0, "arm/pose": 0, "dora/log": 0}


def test_messages_that_left_their_queues_are_counted_by_topic(robot):
    receiving = robot.receiving()
    robot.send("arm___pose", *range(SIZE + 3))
    found = receiving.take()
    assert len(found.items) + receiving.dropped()["arm/pose"] == SIZE + 3
    assert receiving.dropped() == {"cam/image": 0, "arm/pose": 3, "dora/log": 0}


def test_what_a_killed_recorder_had_taken_is_the_business_of_its_files(robot):
    """Only what leaves the queues from now on is counted here, also before the first take."""
    before = robot.receiving()
    robot.send("arm___pose", *range(SIZE + 3))
    before.take()
    robot.send("arm___pose", *range(SIZE + 2))
    receiving = robot.receiving()
    assert receiving.begin == {"cam/image": 0, "arm/pose": SIZE + 3, "dora/log": 0}
    assert len(receiving.take().items) == SIZE
    assert receiving.dropped()["arm/pose"] == 2


def test_a_large_message_is_copied_in_parts_and_others_are_taken(robot, monkeypatch, caplog):
    monkeypatch.setattr(inputs, "PART_BYTES", 1000)
    edge, payload = robot.edges["cam___image"], bytes(range(200)) * 20
    robot.connection.segments = edge.segments
    receiving = robot.receiving()
    caplog.set_level("ERROR")  # a kept warning would keep the memory
    edge.push_sample(payload)
    robot.send("cam___image", 7)
    rounds, images = [], []
    for n in range(6):
        robot.send("arm___pose", n)
        copying = receiving.copying
        lost = receiving.dropped()["cam/image"]
        found = receiving.take().items
        images += [each for each in found if each.topic == "cam/image"]
        rounds.append(([each.topic for each in found], copying, lost))
        if copying and receiving.copying:
            receiving.pause(Taken([], 0.0, []))
    assert [each.sequence for each in images] == [0, 1]
    assert bytes(images[0].content[3]) == payload
    hazards = edge.ring.base + layout.RING_HAZARDS
    assert not any(edge.box.words[hazards : hazards + layout.HAZARDS])
    pose, image = ["arm/pose"], ["cam/image", "cam/image", "arm/pose"]
    assert rounds[0] == (pose, False, 0)
    # At its end a recorder counts what it has not copied yet.
    assert rounds[1:4] == [(pose, True, 1)] * 3
    assert rounds[4:] == [(image, True, 1), (pose, False, 0)]
    assert robot.slept == []


def test_messages_that_are_large_only_together_are_taken_whole(robot, monkeypatch, caplog):
    monkeypatch.setattr(inputs, "PART_BYTES", 1000)
    edge, payloads = robot.edges["cam___image"], [bytes([n]) * 600 for n in (1, 2, 3)]
    robot.connection.segments = edge.segments
    caplog.set_level("ERROR")  # a kept warning would keep the memory
    receiving = robot.receiving()
    for payload in payloads:
        edge.push_sample(payload)
    images = receiving.take().items
    assert [bytes(each.content[3]) for each in images] == payloads
    assert not receiving.copying


def test_a_recorder_has_the_time_of_the_stepped_nodes_that_it_records(robot):
    words = robot.connection.box.words
    try:
        robot.connection.config["stepped"] = True
        robot.receiving()
        words[layout.BOX_STEP] = 5
        assert stepping.time_ns(words) == 5
        robot.connection.config["stepped"] = False
        robot.receiving()
        assert stepping.time_ns(words) > 5
    finally:
        stepping.allow(False)


def test_a_ring_that_takes_the_place_of_another_one_counts_for_the_same_topic(robot):
    receiving = robot.receiving()
    robot.send("arm___pose", *range(SIZE + 2))
    receiving.take()
    robot.tell("input", **(robot.item("late", "arm") | {"id": "arm___pose"}))
    receiving.take()
    robot.send("late", *range(SIZE + 3))
    assert {topic for topic, _ in taken(receiving)} == {"arm/pose"}
    assert receiving.dropped() == {"cam/image": 0, "arm/pose": 5, "dora/log": 0}


@pytest.mark.parametrize(
    ("name", "source", "topic"),
    [
        ("late___depth", "late", "late/depth"),
        ("other", "late", "other"),
        ("late___x", "", "late___x"),
    ],
)
def test_an_input_that_is_added_later_gets_the_topic_of_its_name(robot, name, source, topic):
    receiving = robot.receiving()
    receiving.take()
    robot.tell("input", **(robot.item("late", source) | {"id": name}))
    receiving.take()
    robot.send("late", 1)
    assert taken(receiving) == [(topic, 0)]
    assert receiving.dropped()[topic] == 0


def test_an_unreadable_message_is_counted_and_the_next_one_taken(robot, caplog):
    caplog.set_level("ERROR")  # a kept warning would keep the memory
    receiving = robot.receiving()
    entry = layout.ENTRY.pack(time.time_ns(), 1, 0, 4, 0, 0, 999, 0, 0, 5, 0, 0)
    robot.edges["cam___image"].outlet.push(entry, 4, 1)  # in a segment that does not exist
    robot.send("cam___image", 2)
    assert len(taken(receiving)) == 1
    assert robot.edges["cam___image"].counters.unreadable == 1


def test_nothing_is_taken_of_a_waiting_sender_before_its_bell_has_come(robot):
    space = doorbell.create()
    robot.connection.config["inputs"][0]["blocking"] = True
    receiving = robot.receiving()
    robot.send("cam___image", 1)
    assert taken(receiving) == []
    robot.connection.spaces["cam"] = space
    assert taken(receiving) == [("cam/image", 0)]
    os.close(space)


def test_log_lines_are_recorded_and_the_marks_among_them_returned(robot):
    receiving = robot.receiving()
    mark = logbridge.line("cam", "info", "look", inputs.MARK_TARGET, {"before": 5})
    robot.log(logbridge.line("cam", "info", "hello"), mark)
    # Not what a node prints: they are lines of hostile neighbours.
    robot.log("[1]", "not JSON")
    found = receiving.take()
    assert [(each.topic, each.sequence) for each in found.items] == [
        ("dora/log", 0),
        ("dora/log", 1),
    ]
    assert b"hello" in b"".join(found.items[0].content[1:3])
    [made] = found.marks
    assert (made.note, made.source, made.before_s) == ("look", "node cam", 5.0)
    assert receiving.take().marks == []


def test_marks_of_one_take_are_bounded(robot, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_MARKS", 2)
    receiving = robot.receiving()
    robot.log(*(logbridge.line("cam", "info", "x", inputs.MARK_TARGET) for _ in range(4)))
    found = receiving.take()
    assert (len(found.items), len(found.marks)) == (4, 2)


def test_one_sender_that_never_pauses_delays_no_other_for_long(robot, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_TAKEN", 3)
    receiving = robot.receiving()
    robot.send("cam___image", *range(5))
    robot.send("arm___pose", 1)
    assert taken(receiving) == [*(("cam/image", n) for n in range(3)), ("arm/pose", 0)]
    assert taken(receiving) == [("cam/image", 3), ("cam/image", 4)]


def test_a_message_of_a_wrong_clock_is_recorded_now_and_warned_of_once(robot, caplog):
    receiving = robot.receiving()
    begun = time.time_ns()
    robot.push("cam___image", pa.array([0]))
    robot.push("cam___image", pa.array([1]), stamp=1)
    robot.push("cam___image", pa.array([2]), stamp=10**9)
    found = receiving.take().items
    assert len(found) == 3
    assert all(begun <= each.stamp <= time.time_ns() for each in found)
    robot.push("arm___pose", pa.array([3]), stamp=3)
    assert len(receiving.take().items) == 1
    warnings = [each.getMessage() for each in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].startswith("cam/image: a message is dated 1970-01-01 00:00:00")


# -- the end


def test_a_recording_of_nodes_that_run_goes_on(robot):
    receiving = robot.receiving()
    robot.tell("closed", input="cam___image")
    for _ in range(3):
        receiving.take()
        robot.now_s += 1000
        assert (receiving.finished, receiving.stopped, receiving.lost) == (False, False, False)


def test_a_recording_ends_a_moment_after_all_its_nodes(robot):
    """The end of the log does not count: the recorder's own lines are in it."""
    receiving = robot.receiving()
    robot.tell("closed", input="cam___image")
    robot.tell("closed", input="arm___pose")
    receiving.take()
    assert not receiving.finished
    robot.now_s += LAST_LINES_S - 0.01
    assert not receiving.finished
    robot.now_s += 0.01
    assert receiving.finished
    assert not receiving.stopped


def test_a_node_that_comes_back_in_that_moment_continues_the_recording(robot):
    receiving = robot.receiving()
    for name in ("cam___image", "arm___pose"):
        robot.tell("closed", input=name)
    receiving.take()
    assert not receiving.finished
    robot.tell("recovered", input="arm___pose")
    receiving.take()
    robot.now_s += 10
    assert not receiving.finished
    robot.tell("closed", input="arm___pose")
    receiving.take()
    assert not receiving.finished, "its last lines come a moment later again"
    robot.now_s += LAST_LINES_S
    assert receiving.finished


def test_after_a_stop_the_last_messages_are_waited_for_but_not_for_ever(robot):
    receiving = robot.receiving()
    robot.tell("stop", reason=events.MANUAL)
    receiving.take()
    assert (receiving.stopped, receiving.finished) == (True, False)
    assert [each["type"] for each in robot.events] == ["STOP"]
    # Other nodes stop at the next message; the recorder takes it.
    robot.send("cam___image", 1)
    assert taken(receiving) == [("cam/image", 0)]
    robot.now_s += DRAIN_S - 0.01
    assert not receiving.finished
    robot.now_s += 0.01
    assert receiving.finished


def test_after_a_stop_the_recording_ends_with_its_last_node(robot):
    receiving = robot.receiving()
    robot.tell("stop", reason=events.MANUAL)
    for name in ("cam___image", "arm___pose"):
        robot.tell("closed", input=name)
    receiving.take()
    assert receiving.finished


def test_the_end_of_all_inputs_and_of_the_daemon_end_a_recording(robot):
    receiving = robot.receiving()
    for name in SOURCES:
        robot.tell("closed", input=name)
    robot.tell("stop", reason=events.ALL_INPUTS_CLOSED)
    receiving.take()
    assert (receiving.finished, receiving.stopped, receiving.lost) == (True, True, False)
    assert [each["type"] for each in robot.events] == ["INPUT_CLOSED"] * 3 + ["STOP"]


def test_the_end_of_the_daemon_ends_a_recording(robot):
    receiving = robot.receiving()
    robot.connection.lost = True
    assert (receiving.finished, receiving.stopped, receiving.lost) == (True, False, True)


def test_a_recorder_in_a_hurry_ends_within_a_second_and_a_stop_before_counts(robot):
    receiving = robot.receiving()
    receiving.hurry()
    assert receiving.stopped
    robot.now_s += 0.99
    assert not receiving.finished
    receiving.hurry()
    robot.now_s += 0.01
    assert receiving.finished
    stopped = robot.receiving()
    robot.connection.daemon_events.urgent.append(events.stop(events.MANUAL))
    stopped.take()
    stopped.hurry()
    robot.now_s += 1.0
    assert stopped.finished


# -- pauses


def some(most):
    return Taken(["a message"], most, [])


def test_the_fuller_the_queues_were_the_sooner_is_the_next_take(robot):
    receiving = robot.receiving()
    for most in (0.25, 0.26, 0.5, 0.51, 0.1, 0.1):
        receiving.pause(some(most))
    half = TAKE_S / 2
    assert robot.slept == pytest.approx([TAKE_S, half, half / 2, 0.0005, 0.00075, 0.001125])
    for _ in range(20):
        receiving.pause(some(0.0))
    assert robot.slept[-1] == TAKE_S


def test_after_some_takes_of_nothing_the_recorder_sleeps_until_a_message_comes(robot):
    receiving = robot.receiving()
    nothing = receiving.take()
    for _ in range(IDLE_TAKES - 1):
        receiving.pause(nothing)
    assert len(robot.slept) == IDLE_TAKES - 1
    # One message between them: it is not idle.
    receiving.pause(some(0.1))
    for _ in range(IDLE_TAKES - 1):
        receiving.pause(nothing)
    assert (len(robot.slept), robot.reads) == (2 * IDLE_TAKES - 1, 0)
    words = robot.connection.box.words
    states = []

    def ring():
        wait_until(lambda: words[layout.BOX_ASLEEP])
        states.append("asleep" if words[layout.BOX_ASLEEP] else "awake")
        doorbell.ring(robot.connection.bell)

    thread = threading.Thread(target=ring)
    thread.start()
    receiving.pause(nothing)
    thread.join(10)
    assert states == ["asleep"]
    assert (words[layout.BOX_ASLEEP], robot.reads, len(robot.slept)) == (0, 1, 2 * IDLE_TAKES - 1)


@pytest.mark.parametrize("what", ["message", "mail", "packet"])
def test_a_recorder_does_not_sleep_while_something_has_come(robot, monkeypatch, what):
    receiving = robot.receiving()
    nothing = receiving.take()
    if what == "message":
        robot.send("arm___pose", 1)
    elif what == "mail":
        robot.connection.box.words[layout.BOX_MAIL] += 1
    else:
        robot.connection.packets_handled += 1
    waits = []
    monkeypatch.setattr(receiving, "_waiter", SimpleNamespace(wait=waits.append))
    for _ in range(IDLE_TAKES):
        receiving.pause(nothing)
    assert (waits, robot.reads) == ([], 1)
    assert robot.connection.box.words[layout.BOX_ASLEEP] == 0


def test_a_recorder_sleeps_for_a_bounded_time(robot, monkeypatch):
    receiving = robot.receiving()
    nothing = receiving.take()
    waits = []
    monkeypatch.setattr(receiving, "_waiter", SimpleNamespace(wait=waits.append))
    for _ in range(IDLE_TAKES + 1):
        receiving.pause(nothing)
    assert waits == [inputs.SLEEP_NS] * 2


def test_a_line_that_is_no_text_or_no_table_is_not_recorded():
    for array in (pa.array(["[1]"]), pa.array(["{"]), pa.array([1]), pa.array([], pa.string())):
        assert inputs._line(*raw(array)) is None
    assert inputs._line(*raw(pa.array(['{"a":1}']))) == {"a": 1}
