"""`dora record --attach` and the key `record`, under a real daemon."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import yaml

from dorad.procinfo import start_time
from dorad.record import incidents, ring
from dorad.record.reader import RecordingReader
from tests.harness.flows import counting, seen, until_more_seen

DEADLINE_S = 60.0
BIN = Path(sys.executable).parent


def values(path):
    """Return what was recorded so far; nothing before the file has its head."""
    if not path.exists() or path.stat().st_size <= 8:
        return []
    with RecordingReader(path) as reader:
        found = reader.messages(topics={"source/number"})
        return [each.decode().array[0].as_py() for each in found]


def recorders(dorad):
    """Return the recorders that `dora node list` shows; the other nodes are in it, too."""
    names = dorad.dora_ok("node", "list", "-q").split()
    assert "source" in names
    return [each for each in names if each.startswith("__dora_record")]


def test_a_recorder_comes_and_goes_and_no_message_is_lost(dorad, tmp_path):
    file = counting(tmp_path / "flow")
    run = "demo"
    dorad.dora_ok("start", file, "--name", run, "--detach")
    until_more_seen(tmp_path / "flow", 5)
    out = tmp_path / "a.mcap"
    process = subprocess.Popen(
        [BIN / "dora", "record", "--attach", run, "-o", out],
        env=dorad.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + DEADLINE_S
    while len(values(out)) <= 20:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(recorders(dorad)) == 1
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, text
    assert "COMPLETE" in text
    recorded = values(out)
    assert recorded == list(range(recorded[0], recorded[0] + len(recorded)))
    until_more_seen(tmp_path / "flow", 5)
    found = seen(tmp_path / "flow")
    assert found == list(range(found[0], found[0] + len(found)))
    assert recorders(dorad) == []


def test_a_killed_recorder_is_removed_by_the_next(dorad, tmp_path):
    run = "demo"
    dorad.dora_ok("start", counting(tmp_path / "flow"), "--name", run, "--detach")
    process = until_recorded(dorad, run, tmp_path / "a.mcap")
    process.kill()
    process.wait()
    process = until_recorded(dorad, run, tmp_path / "b.mcap")
    assert len(recorders(dorad)) == 1
    # `record stop` ends one that runs, and removes one that was killed.
    assert "ended __dora_record" in dorad.dora("record", "stop", run).stdout
    assert process.wait(DEADLINE_S) == 0
    process = until_recorded(dorad, run, tmp_path / "c.mcap")
    process.kill()
    process.wait()
    assert "ended __dora_record" in dorad.dora("record", "stop", run).stdout
    assert recorders(dorad) == []
    until_more_seen(tmp_path / "flow", 5)


def test_a_recorder_leaves_the_daemon_that_took_over_from_a_killed_one(own_daemon, tmp_path):
    run = "demo"
    own_daemon.dora_ok("start", counting(tmp_path / "flow"), "--name", run, "--detach")
    for ended_by_its_command in (True, False):
        process = until_recorded(own_daemon, run, tmp_path / f"{ended_by_its_command}.mcap")
        own_daemon.kill()
        own_daemon.start()
        if ended_by_its_command:
            process.send_signal(signal.SIGINT)
        else:
            assert "ended __dora_record" in own_daemon.dora("record", "stop", run).stdout
        assert process.wait(DEADLINE_S) == 0
        assert recorders(own_daemon) == []


def test_a_recorder_that_still_joins_is_not_taken_for_one_that_was_killed(dorad, tmp_path):
    run = "demo"
    dorad.dora_ok("start", counting(tmp_path / "flow"), "--name", run, "--detach")
    gone = subprocess.Popen(["true"])
    gone.wait()
    started = start_time(os.getpid())
    joining = f"__dora_record_{os.getpid()}_{started}__"
    killed = f"__dora_record_{gone.pid}_{started}__"
    # Its process is dead, too: a younger one has got its number.
    reused = f"__dora_record_{os.getpid()}_{started - 1}__"
    for node in (joining, killed, reused):
        dorad.dora_ok("node", "add", "--from-yaml", dynamic_node(tmp_path, node), "-d", run)
    process = until_recorded(dorad, run, tmp_path / "a.mcap")
    known = recorders(dorad)
    assert joining in known
    assert killed not in known
    assert reused not in known
    assert "ended" in dorad.dora("record", "stop", run).stdout
    assert process.wait(DEADLINE_S) == 0


def dynamic_node(folder, name):
    """Write the definition of a node that attaches by itself, and return its path."""
    path = folder / f"{name}.yml"
    path.write_text(f"id: {name}\npath: dynamic\ninputs: {{number: source/number}}\n")
    return path


def until_recorded(dorad, run, path):
    """Start `dora record --attach`, and return it once the file has some messages."""
    process = subprocess.Popen(
        [BIN / "dora", "record", "--attach", run, "-o", path],
        env=dorad.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + DEADLINE_S
    while len(values(path)) <= 5:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


CRASHER = """
    from dora import Node

    for event in Node():
        if event["type"] == "PARAM_UPDATE":
            raise SystemExit(3)
"""


def own_topics(box):
    """Return the messages of the recorder's own topics in the ring of a black box."""
    found = {}
    for each in ring.segments(box / ring.RING):
        with RecordingReader(each.path) as reader:
            for message in reader.messages():
                if message.topic.startswith("dora/") and message.topic != "dora/log":
                    found.setdefault(message.topic, []).append(
                        (message.sequence, json.loads(bytes(message.data)))
                    )
    return found


def test_a_node_that_nothing_receives_from_makes_an_incident_when_it_fails(dorad, tmp_path):
    """Also its parameters, its timers and its end are in the recording."""
    folder, box, run = tmp_path / "flow", tmp_path / "box", "demo"
    file = counting(folder)
    flow = yaml.safe_load(file.read_text())
    flow["nodes"].append(
        {
            "id": "lonely",
            "path": "lonely.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "params": {"speed": {"type": "int", "default": 3}},
        }
    )
    file.write_text(yaml.safe_dump(flow))
    (folder / "lonely.py").write_text(textwrap.dedent(CRASHER))
    dorad.dora_ok("start", file, "--name", run, "--detach")
    process = dorad.begin("record", "ring", "--attach", run, "--folder", box, "--keep", "60s")
    try:
        dorad.until(lambda: any((box / "ring").glob("*.mcap")), DEADLINE_S)
        dorad.until(lambda: "dora/tick/lonely/tick" in own_topics(box), DEADLINE_S)
        dorad.dora_ok("param", "set", "lonely", "speed", "7", "-d", run)
        dorad.until(lambda: incidents.incidents(box), DEADLINE_S)
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, out + err
    ((_, mark),) = incidents.incidents(box)
    assert (mark.source, mark.note.partition(":")[0]) == ("node-failed", "node lonely")
    found = own_topics(box)
    events = [event for _, event in found["dora/param"]]
    assert events[0]["params"]["lonely"] == {"speed": 3}
    changed = next(event for event in events if event["event"] == "param-changed")
    assert (changed["node"], changed["key"], changed["value"]) == ("lonely", "speed", 7)
    (failed,) = [e for _, e in found["dora/control"] if e["event"] == "node-failed"]
    assert failed["node"] == "lonely"
    for topic in ("dora/tick/lonely/tick", "dora/tick/source/tick"):
        numbers = [number for number, _ in found[topic]]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    rows = dorad.dora_ok("record", "incidents", str(box), "--format", "json")
    assert json.loads(rows)["source"] == "node-failed"
    assert json.loads(rows)["bytes"] > 0


def test_a_dataflow_with_a_black_box_keeps_what_happened_before_a_failure(dorad, tmp_path):
    folder = tmp_path / "flow"
    file = counting(folder)
    flow = yaml.safe_load(file.read_text())
    flow["record"] = {"keep": "60s", "folder": str(tmp_path / "box")}
    file.write_text(yaml.safe_dump(flow))
    run = "demo"
    dorad.dora_ok("start", file, "--name", run, "--detach")
    until_more_seen(folder, 10)
    done = dorad.dora("record", "mark", str(tmp_path / "box"), "--note", "why", "--after", "0s")
    assert done.returncode == 0, done.stderr
    # A node that is added for a moment makes this one; the recorder of the block is there already.
    done = dorad.dora("record", "mark", "-d", run, "--note", "by name", "--after", "0s")
    assert done.returncode == 0, done.stderr
    (own, mark), (_, named) = incidents.incidents(tmp_path / "box")
    assert (mark.note, named.note) == ("why", "by name")
    assert dorad.dora("stop", run).returncode == 0
    box = str(tmp_path / "box")
    # Its name finds no running dataflow now; the hint must be one that works.
    done = dorad.dora("record", "mark", "-d", run)
    assert done.returncode == 1
    assert f"dataflow {run} has ended" in done.stderr
    assert f"dora record mark {box}" in done.stderr
    out = tmp_path / "incident.mcap"
    done = dorad.dora("record", "incidents", box, "--export", own.name, "-o", str(out))
    assert done.returncode == 0, done.stderr
    found = values(out)
    assert found[:10] == list(range(10))
