"""`dora record --attach` and the key `record`, under a real daemon."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml

from dorad.cli.record_attach import _AddedTopics
from dorad.cli.record_options import Chosen
from dorad.control.errors import ControlError
from dorad.dataflow.recording import ATTACHED
from dorad.procinfo import start_time
from dorad.record.box import incidents, ring
from dorad.record.damage import dropped_in
from dorad.record.mcap.reader import RecordingReader
from tests.harness.flows import counting, seen, until_more_seen
from tests.harness.waiting import DEADLINE_S, wait_until

pytestmark = pytest.mark.long

LEAVES = 3
BIN = Path(sys.executable).parent


def values(path, topic="source/number"):
    """Return what was recorded so far; nothing before the file has its head."""
    if not path.exists() or path.stat().st_size <= 8:
        return []
    with RecordingReader(path) as reader:
        found = reader.messages(topics={topic})
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
    wait_until(lambda: process.poll() is not None or len(values(out)) > 20)
    assert process.poll() is None
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


def test_a_recorder_that_leaves_costs_another_one_no_message(dorad, tmp_path):
    """Its queue is far longer than any pause of a busy machine: what is lost is lost by leaving."""
    run = "demo"
    dorad.dora_ok("start", counting(tmp_path / "flow", 500), "--name", run, "--detach")
    stays = until_recorded(dorad, run, tmp_path / "stays.mcap", "--queue-size", "30000")
    for number in range(LEAVES):
        leaves = until_recorded(dorad, run, tmp_path / f"{number}.mcap")
        leaves.send_signal(signal.SIGINT)
        assert leaves.wait(DEADLINE_S) in (0, 1)  # its own queue is not so long
    stays.send_signal(signal.SIGINT)
    assert stays.wait(DEADLINE_S) == 0
    recorded = values(tmp_path / "stays.mcap")
    assert recorded == list(range(recorded[0], recorded[0] + len(recorded)))


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


def until_recorded(dorad, run, path, *more):
    """Start `dora record --attach`, and return it once the file has some messages."""
    process = subprocess.Popen(
        [BIN / "dora", "record", "--attach", run, "-o", path, *more],
        env=dorad.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: process.poll() is not None or len(values(path)) > 5)
    assert process.poll() is None
    return process


ADDED = """
    import pyarrow as pa
    from dora import Node

    node, number = Node(), 0
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("count", pa.array([number]))
            number += 1
"""


COUNTED = """
    import pyarrow as pa
    from dora import Node

    node, number = Node(), 0
    for event in node:
        if event["type"] == "STOP":
            open("sent", "w").write(str(number))
            break
        if event["type"] == "INPUT":
            node.send_output("number", pa.array([number]))
            number += 1
"""


def test_another_recorder_that_joins_has_no_topics_to_look_for(monkeypatch):
    looked = []
    monkeypatch.setattr(_AddedTopics, "_connect_new", lambda _: looked.append("now"))
    added = _AddedTopics("recorder", "demo", Chosen((), (), 1000))
    for node in (f"{ATTACHED}1_2__", "camera", f"{ATTACHED}3_4__"):
        added.take_event("topology-changed", {"change": "added", "node": node})
    assert added.lacking() == []
    assert len(looked) == 1


def test_a_node_that_is_added_meanwhile_is_recorded(dorad, tmp_path):
    folder, out = tmp_path / "flow", tmp_path / "a.mcap"
    dorad.dora_ok("start", counting(folder), "--name", "demo", "--detach")
    process = until_recorded(dorad, "demo", out)
    (folder / "late.py").write_text(textwrap.dedent(ADDED))
    definition = tmp_path / "late.yml"
    definition.write_text(
        f"id: late\npath: {folder / 'late.py'}\n"
        "inputs: {tick: dora/timer/millis/10}\noutputs: [count]\n"
    )
    dorad.dora_ok("node", "add", "--from-yaml", definition, "-d", "demo")
    wait_until(lambda: len(values(out, "late/count")) > 5, deadline_s=DEADLINE_S)
    assert "ended __dora_record" in dorad.dora("record", "stop", "demo").stdout
    assert process.wait(DEADLINE_S) == 0
    found = values(out, "late/count")
    assert found == list(range(found[0], found[0] + len(found)))


@pytest.mark.parametrize("split", [{}, {"split": "1s"}], ids=str)
def test_after_a_crash_of_the_recorder_what_is_lost_is_counted_exactly(dorad, tmp_path, split):
    """A second crash counts for itself; a queue of ten is too short for a restart."""
    folder, files = tmp_path / "flow", tmp_path / "files"
    file = counting(folder, 500)
    (folder / "source.py").write_text(textwrap.dedent(COUNTED))
    flow = yaml.safe_load(file.read_text())
    flow["record"] = {"folder": str(files), "queue_size": 10} | split
    file.write_text(yaml.safe_dump(flow))
    dorad.dora_ok("start", file, "--name", "demo", "--detach")

    def recorder():
        with dorad.client() as client:
            return next(each for each in client.nodes("demo") if each.node == "__dora_record__")

    def recorded():
        return sorted(number for path in files.glob("*.mcap") for number in values(path))

    for crash in (1, 2):
        before = recorded()
        wait_until(lambda before=before: len(recorded()) > len(before) + 200, deadline_s=DEADLINE_S)
        pid = recorder().pid
        os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda pid=pid: recorder().pid not in (None, pid),
            deadline_s=DEADLINE_S,
            why=f"crash {crash}",
        )
    before = recorded()
    wait_until(lambda: len(recorded()) > len(before) + 200, deadline_s=DEADLINE_S)
    assert dorad.dora("stop", "demo").returncode == 0
    found, dropped = recorded(), {}
    for path in files.glob("*.mcap"):
        with RecordingReader(path) as reader:
            about, end = reader.metadata["dora.recording"], reader.metadata.get("dora.end", {})
            # The files of a split count from the beginning of their recording.
            count = int(end.get("dropped.source/number", "0"))
            dropped[about["id"]] = max(count, dropped.get(about["id"], 0))
    sent = int((folder / "sent").read_text())
    assert len(found) == len(set(found))
    assert sum(dropped.values()) == sent - len(found) > 0


DATED = """
    import time

    import pyarrow as pa
    from dora import Node

    node, number = Node(), 0
    times = open("times", "w", buffering=1)
    for event in node:
        if event["type"] == "INPUT":
            print(time.time_ns(), file=times)
            node.send_output("number", pa.array([number]))
            number += 1
"""


def test_what_is_sent_while_a_killed_recorder_restarts_waits_for_it(dorad, tmp_path):
    """Only what the killed process had taken, and not yet written, is lost, and it is counted."""
    folder, files = tmp_path / "flow", tmp_path / "files"
    file = counting(folder)
    (folder / "source.py").write_text(textwrap.dedent(DATED))
    flow = yaml.safe_load(file.read_text())
    flow["record"] = {"folder": str(files), "queue_size": 10_000}
    file.write_text(yaml.safe_dump(flow))
    dorad.dora_ok("start", file, "--name", "demo", "--detach")

    def recorded():
        return sorted(number for path in files.glob("*.mcap") for number in values(path))

    wait_until(lambda: len(recorded()) > 50, deadline_s=DEADLINE_S)
    with dorad.client() as client:
        pid = next(each.pid for each in client.nodes("demo") if each.node == "__dora_record__")
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([process], [], [], DEADLINE_S)[0]
    ended_ns = time.time_ns()
    os.close(process)
    wait_until(lambda: recorded()[-1] > sent_before(folder, ended_ns) + 50, deadline_s=DEADLINE_S)
    assert dorad.dora("stop", "demo").returncode == 0
    lost = set(range(recorded()[-1])).difference(recorded())
    times = [int(line) for line in (folder / "times").read_text().split()]
    assert [number for number in lost if times[number] > ended_ns] == []
    dropped = 0
    for path in files.glob("*.mcap"):
        with RecordingReader(path) as reader:
            dropped += dropped_in(reader.metadata).get("source/number", 0)
    assert dropped == len(lost)


def sent_before(folder, time_ns):
    """Return how many numbers the source has sent before a time."""
    return sum(int(line) < time_ns for line in (folder / "times").read_text().split())


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
                if message.topic.startswith("dora/") and message.channel.encoding == "json":
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
        wait_until(lambda: any((box / "ring").glob("*.mcap")), deadline_s=DEADLINE_S)
        wait_until(lambda: "dora/tick/lonely/tick" in own_topics(box), deadline_s=DEADLINE_S)
        dorad.dora_ok("param", "set", "lonely", "speed", "7", "-d", run)
        wait_until(lambda: incidents.incidents(box), deadline_s=DEADLINE_S)
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


def test_the_daemon_lets_the_recorder_make_an_incident(dorad, tmp_path):
    """What the console and a coordinator ask for; the folder is written by the node alone."""
    file = counting(tmp_path / "flow")
    plain = yaml.safe_load(Path(file).read_text())
    dorad.dora_ok("start", file, "--name", "plain", "--detach")
    boxed = Path(file).with_name("boxed.yml")
    boxed.write_text(yaml.safe_dump(plain | {"record": {"folder": "box", "keep": "60s"}}))
    dorad.dora_ok("start", boxed, "--name", "boxed", "--detach")
    box = boxed.parent / "box"
    wait_until(
        lambda: any(values(each.path) for each in ring.segments(box / ring.RING)),
        deadline_s=DEADLINE_S,
    )
    with dorad.client() as client:
        with pytest.raises(ControlError, match="'plain' has no black box") as raised:
            client.mark_incident("plain")
        assert raised.value.code == "not-found" and "keep: 60s" in str(raised.value.hint)
        made = client.mark_incident("boxed", before=5.0, after=0.0, note="x" * 2000).made[""]
        ((own, mark),) = incidents.incidents(box)
        assert made == f"incident {own.name} in {own}"
        assert (mark.before_s, mark.after_s, mark.note) == (5.0, 0.0, "x" * incidents.MAX_NOTE)
        # What cannot be an incident is refused by the recorder's words.
        with pytest.raises(ControlError, match=r"no incident is made in .*box: "):
            client.mark_incident("boxed", before=-1.0)
        assert len(incidents.incidents(box)) == 1
        # The order is not kept: a recorder that starts again makes none.
        assert client.params("__dora_record__", dataflow="boxed") == []
        dorad.dora_ok("node", "stop", "__dora_record__", "-d", "boxed")
        with pytest.raises(ControlError, match="the recorder of 'boxed' is not connected"):
            client.mark_incident("boxed")
