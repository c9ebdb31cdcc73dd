"""Recordings of a dataflow over two machines: one file on each, merged into one."""

import json
import os
import signal
import subprocess
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from dorad.record.mcap.reader import RecordingReader
from tests.cli.dora import DORA, dora
from tests.fleet.fakerobot import DEADLINE_S
from tests.fleet.test_over_machines import over
from tests.harness.commands import fails

__all__ = ["over"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ECHO = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("seen", event["value"])
"""
TOPICS = {"arm1": "source/number", "arm2": "echo/seen"}


def add_echo(over, **keys):
    """Add a node on the second machine that sends what it receives."""
    (over.flow.parent / "echo.py").write_text(textwrap.dedent(ECHO))
    flow = yaml.safe_load(over.flow.read_text()) | keys
    flow["nodes"].append(
        {
            "id": "echo",
            "path": "echo.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 1000}},
            "outputs": ["seen"],
            "deploy": {"machine": "arm2"},
        }
    )
    over.flow.write_text(yaml.safe_dump(flow))


def values(path, topic):
    with RecordingReader(path) as reader:
        return [each.decode().array[0].as_py() for each in reader.messages(topics={topic})]


def topics(reader):
    return [each for each in reader.topics() if not each.startswith("dora/")]


def file_of(folder, machine):
    return next(folder.glob(f"*_{machine}*.mcap"), None)


def until_recorded(over, folder):
    """Wait until both machines have recorded some messages."""

    def holds(machine):
        path = file_of(folder, machine)
        return path is not None and path.stat().st_size and len(values(path, TOPICS[machine])) > 5

    over.until(lambda: all(holds(machine) for machine in TOPICS))


def consecutive(numbers):
    return bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def recorder_on(over, machine):
    """Return the process id of the recorder on a machine; None if it has ended."""
    for line in over.dora("node", "list", "-d", "demo", "--format", "json").splitlines():
        row = json.loads(line)
        if row["node"].startswith("__dora_record") and row["machine"] == machine:
            return int(row["pid"]) if row["pid"].isdecimal() else None
    return None


@contextmanager
def recording(over, *words):
    """Run `dora record --attach demo` meanwhile."""
    process = subprocess.Popen(
        [*DORA, "record", "--attach", "demo", *words],
        cwd=over.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def interrupted(process):
    """Press Ctrl-C; return the exit code and the output."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=2 * DEADLINE_S)
    return process.returncode, out, err


def test_each_machine_records_a_file_and_the_files_become_one(over):
    add_echo(over)
    over.dora("start", str(over.flow), "--name", "demo", "--detach")
    folder = over.flow.parent / "recordings"
    with recording(over) as process:
        until_recorded(over, folder)
        code, out, err = interrupted(process)
    assert code == 0, out + err
    for machine, topic in TOPICS.items():
        path = file_of(folder, machine)
        assert f"{machine}: COMPLETE: " in out
        assert f"recorded {machine}:{path}" in out
        assert consecutive(values(path, topic))
        with RecordingReader(path) as reader:
            assert reader.status == "COMPLETE"
            assert topics(reader) == [topic]
    both = over.folder / "both.mcap"
    files = [file_of(folder, machine) for machine in TOPICS]
    over.dora("record", "merge", *map(str, files), "-o", str(both))
    for path, topic in zip(files, TOPICS.values(), strict=True):
        assert values(both, topic) == values(path, topic)
    assert "__dora_record" not in over.dora("node", "list", "-q", "-d", "demo")

    # The recorders of a command that was killed go on until they are stopped. One that was killed,
    # too, is named; the other machine's recording is complete.
    left = over.folder / "left"
    left.mkdir()
    with recording(over, "-o", str(left / "day.mcap")) as process:
        until_recorded(over, left)
        process.kill()
    victim = recorder_on(over, "arm1")
    os.kill(victim, signal.SIGKILL)
    over.until(lambda: recorder_on(over, "arm1") != victim)
    done = dora("record", "stop", "demo", cwd=over.folder)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "arm1: UNKNOWN: " in done.stderr
    assert "dora record recover" in done.stderr
    assert "arm2: COMPLETE: " in done.stdout
    over.dora("record", "recover", str(left / "day_arm1.mcap"))
    for machine, topic in TOPICS.items():
        assert consecutive(values(left / f"day_{machine}.mcap", topic))
    assert "__dora_record" not in over.dora("node", "list", "-q", "-d", "demo")
    assert "no recorder has joined" in over.dora("record", "stop", "demo")

    done = dora("record", "--attach", "demo", "--topics", "source/nmber", cwd=over.folder)
    assert done.returncode == 1
    assert "no topic 'source/nmber'" in done.stderr
    # The dataflow has noticed nothing.
    assert consecutive(over.numbers())


def test_the_key_record_records_on_each_machine_what_its_nodes_send(over):
    folder = over.folder / "kept"
    add_echo(over, record={"folder": str(folder)})
    over.dora("start", str(over.flow), "--name", "demo", "--detach")
    until_recorded(over, folder)
    # A node that is added is recorded, too.
    late = over.folder / "late.yml"
    late.write_text(
        "id: late\npath: echo.py\ninputs: {number: source/number}\noutputs: [seen]\n"
        "deploy: {machine: arm2}\n"
    )
    over.dora("node", "add", "-d", "demo", "--from-yaml", str(late))
    over.until(lambda: len(values(file_of(folder, "arm2"), "late/seen")) > 5)
    over.dora("node", "remove", "late", "-d", "demo")
    over.dora("stop", "demo")
    for machine, topic in TOPICS.items():
        (path,) = folder.glob(f"*_{machine}_*.mcap")
        with RecordingReader(path) as reader:
            assert reader.status == "COMPLETE"
            assert topics(reader) == [topic, *(["late/seen"] if machine == "arm2" else [])]
            assert ("dora/tick/source/tick" in reader.topics()) == (machine == "arm1")
        found = values(path, topic)
        assert found == list(range(len(found)))


def incidents(over, *words):
    """Return the rows of `dora record incidents`."""
    out = over.dora("record", "incidents", *words, "--format", "json")
    return [json.loads(line) for line in out.splitlines()]


def test_a_mark_keeps_an_incident_on_each_machine(over, monkeypatch):
    # Both machines of this test share a folder, so only one of them may record into it.
    add_echo(over, record={"folder": "box", "keep": "60s", "topics": ["source/number"]})
    over.dora("start", str(over.flow), "--name", "demo", "--detach")
    folder = over.flow.parent / "box"
    over.until(lambda: any(folder.glob("ring/*.mcap")))
    words = ("mark", "-d", "demo", "--before", "60s", "--after", "0s", "--note", "missed the dock")
    over.until(lambda: any(values(path, "source/number") for path in folder.glob("ring/*.mcap")))
    out = over.dora("record", *words)
    found = {line.partition(": ")[0]: line.rpartition(" in ")[2] for line in out.splitlines()}
    assert sorted(found) == ["arm1", "arm2"], out
    for machine, own in found.items():
        mark = json.loads((folder / own / "incident.json").read_text())
        assert mark["note"] == "missed the dock"
        assert any((folder / own).glob("*.mcap")), machine
    # A folder that is no black box is named, by each machine.
    done = dora("record", *words, "nowhere", cwd=over.folder)
    assert done.returncode == 1
    for machine in TOPICS:
        assert f"{machine}: no incident is made in {over.flow.parent / 'nowhere'}: " in done.stderr
    assert "__dora_mark" not in over.dora("node", "list", "-q", "-d", "demo")

    # The incidents are listed and copied from here; scp is a program that has the same disk.
    known = {(row["machine"], row["id"]) for row in incidents(over)}
    assert known == {("arm1", Path(own).name) for own in found.values()}
    program = over.folder / "scp"
    program.write_text('#!/bin/sh\ncp -r "${4#*:}" "$5"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(over.folder), prepend=":")
    over.dora("record", "incidents", "-d", "arm1/demo", "--export", Path(found["arm1"]).name)
    assert values(over.folder / f"{Path(found['arm1']).name}.mcap", "source/number")

    over.dora("stop", "demo")
    listed = over.dora("record", "incidents", "-d", "demo")
    assert all(Path(own).name in listed for own in found.values())


def test_the_recorder_of_what_only_one_robot_knows_makes_its_incidents(over):
    # A dataflow of the robot itself, as a release brings it there.
    nodes = yaml.safe_load(over.flow.read_text())["nodes"][:1]
    del nodes[0]["deploy"]
    (over.flow.parent / "own.yml").write_text(
        yaml.safe_dump({"nodes": nodes, "record": {"keep": "60s"}})
    )
    with over.daemons[0].client() as client:
        client.start(over.flow.parent / "own.yml", name="own")
    box = over.flow.parent / "recordings"
    over.until(lambda: any(values(path, "source/number") for path in box.glob("ring/*.mcap")))
    out = over.dora("record", "mark", "-d", "arm1/own", "--after", "0s", "--note", "here")
    assert out.startswith("arm1: incident ")
    (row,) = incidents(over, "-d", "arm1/own")
    assert (row["note"], row["path"]) == ("here", out.strip().rpartition(" in ")[2])
    fails(dora("record", "mark", "-d", "arm1/own", "elsewhere", cwd=over.folder), 1, "elsewhere")


def uploaded(over):
    """Return the incidents that the coordinator lists, by id."""
    code, out, err = over.site.run("incidents", "list", "--json")
    assert code in (0, 1), err
    return {each["id"]: each for each in json.loads(out)["incidents"]}


def test_an_incident_of_a_robot_comes_to_the_coordinator_by_itself(over):
    """A real recorder, daemon, agent and coordinator: what scp does by hand elsewhere."""
    nodes = yaml.safe_load(over.flow.read_text())["nodes"][:1]
    del nodes[0]["deploy"]
    own = over.flow.parent / "own.yml"
    own.write_text(yaml.safe_dump({"nodes": nodes, "record": {"keep": "60s"}}))
    with over.daemons[0].client() as client:
        client.start(own, name="own")
    box = over.flow.parent / "recordings"
    over.until(lambda: any(values(path, "source/number") for path in box.glob("ring/*.mcap")))
    over.dora("record", "mark", "-d", "arm1/own", "--after", "0s", "--note", "missed the dock")
    (incident,) = (path.name for path in (box / "incidents").iterdir())
    # Nothing leaves a robot whose owner has not said so.
    assert uploaded(over) == {}
    settings = over.machines["arm1"].folder / "dorad.toml"
    settings.write_text('[incidents]\nper_day = "100MB"\n')
    over.until(lambda: uploaded(over).get(incident, {}).get("state") == "complete")
    assert uploaded(over)[incident]["note"] == "missed the dock"
    target = over.folder / "dock.mcap"
    code, _, err = over.site.run("incidents", "fetch", incident, "-o", str(target))
    assert code == 0, err
    assert consecutive(values(target, "source/number"))
