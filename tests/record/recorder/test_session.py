"""One recording from its first event to its closed file: real rings and files, and no daemon."""

import json
import threading
import time
from itertools import pairwise

import pytest
from mcap.reader import make_reader

from dorad.node import events
from dorad.record.mcap.reader import RecordingReader
from dorad.record.recorder import inputs, session
from dorad.record.recorder.outcome import END_PARAM, MARK_PARAM, read_marked
from dorad.record.recorder.session import Session
from dorad.record.recorder.settings import Settings
from tests.record.rings import SOURCES, robot_of

INCIDENT = {"time_ns": 0, "before_s": 9e8, "after_s": 1.0}


@pytest.fixture
def robot(monkeypatch):
    with robot_of(monkeypatch) as made:
        monkeypatch.setattr(inputs, "time", time)
        made.open = {}
        yield made
        # Of a test that has failed: threads would keep the process alive.
        for one in made.open.values():
            one._recorder.end("the test has ended", {})


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "a.mcap", min_free=0)


def session_of(robot, settings, *, dynamic=False, **recorded):
    """Return the recording of a dataflow that starts now."""
    robot.connection.config |= {
        "node_id": "rec",
        "dataflow_id": "d-1",
        "descriptor": {"nodes": [{"id": "rec"}, {"path": "cam.py", "id": "cam", "env": None}]},
        "dynamic": dynamic,
        "recorded": recorded,
    }
    robot.connection.wait_for_start = time.monotonic_ns
    one = robot.open[settings.path] = Session(robot.connection, settings, folder="/srv")
    return one


def run(robot, one, on_progress=None):
    """Record until the end, and return the outcome."""
    outcome = one.run(on_progress)
    robot.open = {path: each for path, each in robot.open.items() if each is not one}
    return outcome


def end_all(robot):
    """Let all nodes end, and the daemon say so."""
    for name in SOURCES:
        robot.tell("closed", input=name)
    robot.tell("stop", reason=events.ALL_INPUTS_CLOSED)


def happens(robot, what, node, **data):
    robot.tell("happened", what=what, node=node, text="so", data=data)


def read(path):
    """Return topic and content of each message of a file; that of a node has no content here."""
    with path.open("rb") as file:
        messages = make_reader(file, validate_crcs=True).iter_messages(log_time_order=False)
        return [
            (channel.topic, json.loads(message.data) if channel.topic.startswith("dora/") else None)
            for _, channel, message in messages
        ]


def events_of(path, topic="dora/control"):
    """Return the events of a topic without their times."""
    return [
        {key: value for key, value in content.items() if key != "epoch_ns"}
        for found, content in read(path)
        if found == topic
    ]


def answers(capsys):
    """Return what the recorder has said of incidents that were ordered."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [read_marked(line["target"], line["fields"]) for line in lines]
    return [(each.made, each.text) for each in found if each is not None]


def test_a_recording_has_the_messages_and_the_events_of_its_dataflow(robot, settings):
    one = session_of(robot, settings, params={"cam": {"gain": 2}, "arm": {}})
    robot.send("cam___image", 1, 2)
    happens(robot, "node-restarting", "cam", failed=True)
    happens(robot, "param-changed", "cam", key="gain", value=3)
    happens(robot, "node-failed", "rec")
    robot.tell("param", key="other", value=1)
    end_all(robot)
    outcome = run(robot, one)
    assert (outcome.complete, outcome.reason) == (True, "the dataflow has ended")
    assert sorted({topic for topic, _ in read(settings.path)}) == [
        "cam/image", "dora/control", "dora/param",
    ]  # fmt: skip
    assert events_of(settings.path, "dora/param") == [
        {"event": "params", "params": {"cam": {"gain": 2}, "arm": {}}},
        {"event": "param-changed", "node": "cam", "text": "so", "key": "gain", "value": 3},
    ]
    control = events_of(settings.path)
    # What the recorder itself does is no event of the dataflow, nor is a parameter of its own.
    assert control[:2] == [
        {"event": "start"},
        {"event": "node-restarting", "node": "cam", "text": "so", "failed": True},
    ]
    assert [each for each in control[2:] if each["event"] == "input-closed"] == [
        {"event": "input-closed", "id": name, "reason": "finished"} for name in SOURCES
    ]
    assert [each for each in control[2:] if each["event"] != "input-closed"] == [
        {"event": "stop", "id": events.ALL_INPUTS_CLOSED}
    ]
    assert outcome.messages == len(read(settings.path))


def test_a_recording_of_a_dataflow_that_does_not_start_is_incomplete(robot, settings):
    def fail():
        raise RuntimeError("node cam has ended")

    session_of(robot, settings)  # sets the configuration
    robot.open.pop(settings.path)._recorder.end("", {})
    robot.connection.wait_for_start = fail
    other = Settings(settings.path.with_name("b.mcap"), min_free=0)
    with pytest.raises(RuntimeError, match="node cam has ended"):
        Session(robot.connection, other, folder="/srv")
    with RecordingReader(other.path) as reader:
        assert reader.status == "INCOMPLETE"
        assert reader.metadata["dora.end"]["reason"] == "the dataflow did not start"


def test_without_parameters_there_is_no_event_about_them_and_no_file(robot, settings):
    one = session_of(robot, settings, params={"cam": {}})
    end_all(robot)
    assert run(robot, one).complete
    assert events_of(settings.path, "dora/param") == []
    with settings.path.open("rb") as file:
        attached = {each.name: each.data for each in make_reader(file).iter_attachments()}
    # The dataflow is that without its recorder.
    assert attached == {"dataflow.yml": b"nodes:\n- path: cam.py\n  id: cam\n"}


def test_the_parameters_are_a_file_of_the_recording(robot, settings):
    one = session_of(robot, settings, params={"cam": {"name": "größe", "gain": 2}, "arm": {}})
    end_all(robot)
    run(robot, one)
    with settings.path.open("rb") as file:
        attached = {each.name: each.data for each in make_reader(file).iter_attachments()}
    assert attached["params.yml"].decode() == "cam/gain: 2\ncam/name: größe\n"


@pytest.mark.parametrize(
    ("how", "reason", "complete"),
    [
        ("nodes", "all recorded nodes have ended", True),
        ("dataflow", "the dataflow has ended", True),
        ("daemon", "the connection to the daemon was closed", False),
        ("parameter", "enough", True),
        ("command", "Ctrl-C", True),
    ],
)
def test_a_recording_says_why_it_has_ended(robot, settings, how, reason, complete):
    one = session_of(robot, settings)
    robot.send("cam___image", 1)
    if how == "nodes":
        for name in SOURCES:
            robot.tell("closed", input=name)
    elif how == "dataflow":
        end_all(robot)
    elif how == "daemon":
        robot.connection.lost = True
    elif how == "parameter":
        robot.tell("param", key=END_PARAM, value="enough")
    else:
        one.stop("Ctrl-C")
    outcome = run(robot, one)
    assert outcome.reason == reason
    assert [topic for topic, _ in read(settings.path)].count("cam/image") == 1


def test_progress_is_reported_once_in_a_while_with_what_left_the_queues(
    robot, settings, monkeypatch
):
    monkeypatch.setattr(session, "PROGRESS_S", 0.05)
    one = session_of(robot, settings)
    robot.send("cam___image", *range(20))
    reports = []

    def on_progress(progress):
        reports.append((time.monotonic(), progress))
        if len(reports) == 3:
            end_all(robot)

    began = time.monotonic()
    run(robot, one, on_progress)
    assert len(reports) >= 3
    times = [began, *(at for at, _ in reports)]
    assert all(later - before >= 0.05 for before, later in pairwise(times))
    assert {progress.dropped for _, progress in reports} == {12}


def test_a_terminal_that_stands_still_costs_no_message(robot, settings, monkeypatch):
    monkeypatch.setattr(session, "PROGRESS_S", 0.05)
    one = session_of(robot, settings)
    goes_on = threading.Event()

    def on_progress(_):
        robot.send("cam___image", 1, 2, 3)
        end_all(robot)
        goes_on.wait()

    try:
        outcome = run(robot, one, on_progress)
    finally:
        goes_on.set()
    assert (outcome.complete, outcome.counts["cam/image"]) == (True, 3)


@pytest.mark.parametrize("value", ["x", {"time_ns": -1}])
def test_an_order_for_an_incident_that_cannot_be_is_answered(
    robot, settings, tmp_path, capsys, value
):
    one = session_of(robot, settings)
    robot.tell("param", key=MARK_PARAM, value=INCIDENT)
    end_all(robot)
    run(robot, one)
    assert answers(capsys) == [
        (False, "no incident is made: the recorder is not a black box"),
    ]
    box = Settings(tmp_path / "box", keep_s=10.0, min_free=0)
    box.folder.mkdir(parents=True)
    one = session_of(robot, box)
    robot.tell("param", key=MARK_PARAM, value=value)
    end_all(robot)
    run(robot, one)
    ((made, text),) = answers(capsys)
    assert not made
    assert text.startswith(f"no incident is made in {box.box}: ")


def test_incidents_are_made_by_orders_marks_and_failures_and_only_orders_are_answered(
    robot, tmp_path, capsys
):
    box = Settings(tmp_path / "box", keep_s=10.0, min_free=0)
    box.folder.mkdir(parents=True)
    one = session_of(robot, box)
    robot.send("cam___image", 1)
    robot.tell("param", key=MARK_PARAM, value=INCIDENT | {"time_ns": time.time_ns(), "note": "why"})
    happens(robot, "node-failed", "arm")
    happens(robot, "node-failed", "arm")
    happens(robot, "node-started", "arm")
    end_all(robot)
    run(robot, one)
    made = sorted((box.box / "incidents").iterdir())
    assert len(made) == 2
    ((done, text),) = answers(capsys)
    assert done
    assert text in {f"incident {each.name} in {each.absolute()}" for each in made}


def test_a_recording_begins_at_the_start_of_the_dataflow_by_the_wall_clock(robot, settings):
    before = time.time_ns()
    one = session_of(robot, settings)
    after = time.time_ns()
    end_all(robot)
    run(robot, one)
    (start,) = (content for _, content in read(settings.path) if content and "epoch_ns" in content)
    # Both clocks are read one after the other.
    assert before - 10**8 < start["epoch_ns"] < after + 10**8


def test_the_second_order_to_end_does_not_wait_for_what_is_queued(robot, settings, monkeypatch):
    one = session_of(robot, settings)
    hurries = []
    monkeypatch.setattr(one._recorder, "hurry", lambda: hurries.append("recorder"))
    monkeypatch.setattr(one._receiving, "hurry", lambda: hurries.append("receiving"))
    one.stop("first")
    assert hurries == []
    one.stop("second")
    assert hurries == ["recorder"]
    one.hurry()
    assert sorted(hurries[1:]) == ["receiving", "recorder"]
    assert run(robot, one).reason == "second"


def test_the_reason_that_a_parameter_gives_is_bounded(robot, settings):
    one = session_of(robot, settings)
    robot.tell("param", key="other", value="no reason")
    robot.tell("param", key=END_PARAM, value="x" * 200)
    assert run(robot, one).reason == "x" * 100
