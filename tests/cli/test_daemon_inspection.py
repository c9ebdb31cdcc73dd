"""`dora topic`, `dora top` and `dora node info` on a dataflow that runs under a real daemon."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dorad.control.messages import NodeInfo
from tests.cli.test_completion_daemon import COMPLETE
from tests.harness.daemon import Daemon
from tests.harness.flows import logged, seen, until_more_seen, write_flow
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.long]

SOURCE = """
    import numpy as np
    import pyarrow as pa
    from dora import Node

    node = Node()
    large = np.zeros(8 << 20, dtype=np.uint8)
    number = 0
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("number", pa.array([number]), {"parity": number % 2})
            if number % 2:
                node.send_output("large", pa.array(large))
            number += 1
"""

SINK = """
    import os
    from dora import Node

    with open(os.environ["SEEN"], "a", buffering=1) as seen:
        for event in Node():
            if event["type"] == "INPUT":
                seen.write(f"{event['value'][0]}\\n")
                if event["value"][0].as_py() < 0:
                    print("published", event["value"].to_pylist(), event["metadata"]["from"])
"""

HZ = 20


def near(rate: float) -> object:
    """Return a value that equals a rate which a busy machine has lowered, but not halved."""
    return pytest.approx(rate, rel=0.45)


@pytest.fixture
def flow(dorad: Daemon, tmp_path: Path) -> Path:
    """A dataflow that sends 20 numbers a second, and 8 MiB after each second one."""
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": f"dora/timer/hz/{HZ}"},
            "outputs": ["number", "large"],
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 100}},
            "env": {"SEEN": str(tmp_path / "seen")},
        },
    ]
    file = write_flow(tmp_path, nodes, source=SOURCE, sink=SINK)
    dorad.dora_ok("start", file, "--name", "demo", "--detach")
    wait_until(lambda: seen(tmp_path))
    return tmp_path


def test_hz_is_right_for_small_messages_and_for_8_mib(dorad: Daemon, flow: Path) -> None:
    out = dorad.dora_ok("topic", "hz", "--duration", "2", "-f", "json")
    rates = {row["topic"]: row for row in map(json.loads, out.splitlines())}
    assert rates["source/number"]["avg_hz"] == near(HZ)
    assert rates["source/large"]["avg_hz"] == near(HZ / 2)
    assert rates["source/large"]["avg_ms"] == near(2000 / HZ)


def test_what_happened_before_is_known_when_somebody_looks(dorad: Daemon, flow: Path) -> None:
    """The daemon keeps ten minutes of each node and edge, whether anybody watches or not."""

    def history() -> dict[str, Any]:
        shown = json.loads(dorad.dora_ok("node", "info", "sink", "-f", "json"))
        edges = shown["history"]["edges"]
        return edges[0] if edges and edges[0]["rate"][-1] else {}

    wait_until(history)
    edge = history()
    assert (edge["source"], edge["target"]) == ("source/number", "sink/number")
    assert edge["rate"][-1] == near(HZ)
    assert edge["latency_p99"][-1] is not None
    text = dorad.dora_ok("node", "info", "sink")
    assert "Last ten minutes:" in text
    assert "source/number -> sink/number" in text


def test_info_of_an_output_without_receivers(dorad: Daemon, flow: Path) -> None:
    out = dorad.dora_ok("topic", "info", "source/large", "--duration", "2", "-f", "json")
    (found,) = map(json.loads, out.splitlines())
    assert (found["type"], found["subscribers"]) == ("uint8", [])
    assert found["hz"] == near(HZ / 2)
    assert found["mbps"] == near(HZ / 2 * (8 << 20) * 8 / 1e6)


def test_echo_shows_every_message_with_its_metadata(dorad: Daemon, flow: Path) -> None:
    out = dorad.dora_ok("topic", "echo", "source/number", "--count", "10", "-f", "json")
    found = [json.loads(line) for line in out.splitlines()]
    numbers = [message["data"][0] for message in found]
    assert numbers == list(range(numbers[0], numbers[0] + 10))
    assert [message["metadata"]["parity"] for message in found] == [n % 2 for n in numbers]
    times = [message["timestamp"] for message in found]
    assert times == sorted(times)


PRINTING = """
    import logging
    from dora import Node

    number = 0
    for event in Node():
        if event["type"] == "INPUT":
            print("line", number, flush=True)
            logging.warning("warned %d", number)
            number += 1
"""


@pytest.mark.parametrize("received", [False, True])
def test_outputs_of_printed_lines_are_topics_like_others(
    dorad: Daemon, tmp_path: Path, received: bool
) -> None:
    talker: dict[str, Any] = {
        "id": "talker",
        "path": "talker.py",
        "inputs": {"tick": f"dora/timer/hz/{HZ}"},
        "outputs": ["lines", "logs"],
        "send_stdout_as": "lines",
        "send_logs_as": "logs",
    }
    inputs = {"lines": "talker/lines", "logs": "talker/logs"}
    sink = {"id": "sink", "path": "sink.py", "inputs": inputs, "env": {"SEEN": "/dev/null"}}
    nodes = [talker, sink] if received else [talker]
    quiet = SINK.replace(".as_py() < 0", ".as_py() is None")
    dorad.dora_ok("start", write_flow(tmp_path, nodes, talker=PRINTING, sink=quiet), "--detach")

    def echo(topic: str) -> list[str]:
        out = dorad.dora_ok("topic", "echo", topic, "--count", "8", "-f", "json")
        return [json.loads(line)["data"][0] for line in out.splitlines()]

    lines = [int(line.split()[1]) for line in echo("talker/lines") if line.startswith("line ")]
    assert lines == list(range(lines[0], lines[0] + len(lines)))
    messages = [json.loads(text) for text in echo("talker/logs")]
    assert {message["node_id"] for message in messages} == {"talker"}
    assert any("warned" in message["message"] for message in messages)

    # A tick makes two lines; both outputs carry each.
    out = dorad.dora_ok("topic", "hz", "--duration", "2", "-f", "json")
    rates = {row["topic"]: row["avg_hz"] for row in map(json.loads, out.splitlines())}
    assert rates == {
        "talker/lines": near(2 * HZ),
        "talker/logs": near(2 * HZ),
    }
    out = dorad.dora_ok("topic", "info", "talker/logs", "--duration", "1", "-f", "json")
    info = json.loads(out)
    assert (info["type"], info["subscribers"]) == ("string", ["sink/logs"] if received else [])
    assert info["messages"] > 0
    listed = map(json.loads, dorad.dora_ok("topic", "list", "-f", "json").splitlines())
    assert {(row["node"], row["name"]) for row in listed} == {
        ("talker", "lines"),
        ("talker", "logs"),
    }


def test_a_killed_echo_leaves_nothing_and_disturbs_no_node(dorad: Daemon, flow: Path) -> None:
    (pid,) = [node.pid for node in dorad_nodes(dorad) if node.node == "source"]
    assert pid is not None
    before = doorbells(pid)
    for _ in range(4):
        with dorad.begin("topic", "echo", "source/number", "source/large") as echo:
            assert echo.stdout is not None
            assert echo.stdout.readline()
            echo.kill()
        until_more_seen(flow, 5)
    # The node closes the last ones a little later.
    wait_until(lambda: doorbells(pid) <= before + 2)
    numbers = seen(flow)
    assert numbers == list(range(len(numbers)))


def doorbells(pid: int) -> int:
    """Return the number of receivers that a node can wake, including itself."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found += str(entry.readlink()) == "anon_inode:[eventfd]"
    return found


def dorad_nodes(dorad: Daemon) -> list[NodeInfo]:
    with dorad.client() as client:
        return client.nodes()


def test_echo_ends_with_control_c_and_with_its_terminal(dorad: Daemon, flow: Path) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        with dorad.begin("topic", "echo", "source/number") as echo:
            assert echo.stdout is not None
            assert echo.stdout.readline()
            echo.send_signal(number)
            code = echo.wait(30)
        assert code == (0 if number == signal.SIGINT else -number)


def test_echo_ends_with_the_dataflow(dorad: Daemon, flow: Path) -> None:
    with dorad.begin("topic", "echo", "source/number") as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline()
        dorad.dora_ok("stop", "demo")
        echo.communicate(timeout=30)
    assert echo.returncode == 0


def test_a_published_message_reaches_the_subscribers(dorad: Daemon, flow: Path) -> None:
    words = ("[-1, -2]", "--metadata", '{"from": "a test"}', "--count", "3")
    dorad.dora_ok("topic", "pub", "source/number", *words)
    output = "published [-1, -2] a test"
    wait_until(lambda: logged(flow, "sink").count(output) == 3)


def test_top_once_has_the_figures_of_nodes_and_edges(dorad: Daemon, flow: Path) -> None:
    found: dict[str, dict[str, Any]] = {}

    def settled() -> bool:
        found.update({row["node_id"]: row for row in json.loads(dorad.dora_ok("top", "--once"))})
        return any(edge["rate_hz"] > 0 for edge in found["sink"]["inputs"])

    wait_until(settled)
    assert found["sink"]["dataflow_name"] == "demo"
    (edge,) = found["sink"]["inputs"]
    assert (edge["id"], edge["source"], edge["queue_size"]) == ("number", "source/number", 100)
    assert edge["sent"] == edge["received"] + edge["dropped"] + edge["queued"]
    assert edge["dropped"] == 0
    assert edge["rate_hz"] == near(HZ)
    assert 0 < edge["latency_ms"] < 1000
    assert found["source"]["metrics"]["memory_mb"] > 10


def test_a_nodes_names_topics_and_dataflow_are_completed(dorad: Daemon, flow: Path) -> None:
    def complete(*words: str) -> list[str]:
        env = {"_DORA_COMPLETE": "bash_complete", "_DORA_WORDS": "\n".join(words)}
        done = subprocess.run(
            [sys.executable, "-c", COMPLETE],
            env={**dorad.env, **env},
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert complete("stop", "") == ["demo"]
    assert complete("node", "restart", "s") == ["source", "sink"]
    assert complete("topic", "echo", "source/n") == ["source/number"]


def test_an_attached_start_ends_with_control_c(dorad: Daemon, tmp_path: Path) -> None:
    talk = 'from dora import Node\nfor event in Node():\n    print(event["type"], flush=True)\n'
    inputs = {"tick": "dora/timer/millis/50"}
    file = write_flow(tmp_path, [{"id": "a", "path": "a.py", "inputs": inputs}], a=talk)
    with dorad.begin("start", file, "--attach") as attached:
        assert attached.stdout is not None
        while "INPUT" not in attached.stdout.readline():
            assert attached.poll() is None
        attached.send_signal(signal.SIGINT)
        out, err = attached.communicate(timeout=30)
    assert attached.returncode == 0, err
    assert "STOP" in out
    with dorad.client() as client:
        assert [info.status for info in client.list()] == ["finished"]


def test_an_attached_start_reports_that_the_daemon_has_exited(
    own_daemon: Daemon, tmp_path: Path
) -> None:
    talk = "from dora import Node\nfor event in Node():\n    print(1, flush=True)\n"
    inputs = {"tick": "dora/timer/millis/50"}
    file = write_flow(tmp_path, [{"id": "a", "path": "a.py", "inputs": inputs}], a=talk)
    with own_daemon.begin("start", file, "--attach") as attached:
        assert attached.stdout is not None
        while "stdout" not in attached.stdout.readline():
            assert attached.poll() is None
        own_daemon.kill()
        _, err = attached.communicate(timeout=30)
    assert attached.returncode == 1
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    own_daemon.start()
    own_daemon.dora_ok("stop", "--all")


def test_doctor_finds_a_healthy_daemon(dorad: Daemon, flow: Path) -> None:
    found = json.loads(dorad.dora_ok("doctor", "--json", "--dataflow", str(flow / "dataflow.yml")))
    levels = {check["name"]: check["level"] for check in found["checks"]}
    assert found["ok"]
    assert {
        name: levels[name] for name in ("daemon", "socket", "nodes", "dataflow")
    } == dict.fromkeys(("daemon", "socket", "nodes", "dataflow"), "PASS")


def test_a_hanging_daemon_is_reported_within_seconds(own_daemon: Daemon) -> None:
    os.kill(own_daemon.pid, signal.SIGSTOP)
    try:
        done = own_daemon.dora("list", deadline=10)
    finally:
        os.kill(own_daemon.pid, signal.SIGCONT)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(own_daemon.pid) in done.stderr
