"""`dora top`: the JSON of `--once`, and the rows of the live table."""

import contextlib
import json
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console

from dorad.cli.top_screen import (
    edge_row,
    interface_row,
    link_row,
    node_row,
    screen,
    sort_links,
)
from dorad.control import messages as m
from dorad.control.topparts import sort_edges, sort_nodes
from tests.cli.dora import DORA, dora
from tests.cli.fakedaemon import UUID, no_daemon, node
from tests.harness.commands import fails


def edge(source, target, **values):
    given = {
        "dataflow": UUID,
        "queue_size": 10,
        "sent": 100,
        "received": 90,
        "dropped": 4,
        "unreadable": 2,
        "queued": 6,
        "payload": 800,
        "rate": 20.0,
        "drop_rate": 0.5,
        "bandwidth": 160_000.0,
        "latency": 0.00025,
        "latency_p50": 0.0001,
        "latency_p99": 0.0004,
        "latency_worst": 0.0005,
        "jitter": 0.00001,
    }
    return m.EdgeStats(source=source, target=target, **{**given, **values})


USED = m.NodeMetrics(
    cpu=50.0,
    memory=200_000_000,
    disk_read=1_000_000.0,
    net_tx=2000.0,
    net_rx=5.0,
    net_known=True,
)
TOP = m.Top(
    at=1000.0,
    window=2.0,
    nodes=[
        node(
            "arm",
            metrics=USED,
            broken_inputs=["scan"],
            pending=6,
            deadline_misses=3,
            tick_delay=0.0001,
            tick_jitter=0.00008,
            tick_worst=0.02,
        ),
        node("camera"),
    ],
    edges=[edge("camera/image", "arm/image"), edge("camera/scan", "arm/scan", latency=None)],
)


@pytest.fixture
def topped(daemon):
    daemon.answers["top"] = TOP
    return daemon


@pytest.mark.parametrize("words", [["top"], ["inspect", "top"]])
def test_once_prints_doras_array_of_nodes(topped, words):
    arm, camera = json.loads(topped.dora(*words, "--once").stdout)
    assert arm["dataflow_id"] == UUID
    assert (arm["dataflow_name"], arm["node_id"]) == ("demo", "arm")
    assert arm["metrics"] == {
        "pid": 4711,
        "cpu_usage": 50.0,
        "memory_mb": 200.0,
        "disk_read_mb_s": 1.0,
        "disk_write_mb_s": 0.0,
        "restart_count": 0,
        "broken_inputs": ["scan"],
        "status": "running",
        "pending_messages": 6,
    }
    assert arm["network"] == {"tx_bytes_s": 2000.0, "rx_bytes_s": 5.0}
    assert camera["network"] is None
    assert arm["timers"]["deadline_misses"] == 3
    assert (arm["timers"]["jitter_ms"], arm["timers"]["worst_ms"]) == (0.08, 20.0)
    assert camera["timers"] is None
    assert camera["inputs"] == []


def test_once_has_the_edges_below_the_node_that_receives(topped):
    arm, _ = json.loads(topped.dora("top", "--once").stdout)
    image, scan = arm["inputs"]
    assert image == {
        "id": "image",
        "source": "camera/image",
        "queue_size": 10,
        "queued": 6,
        "sent": 100,
        "received": 90,
        "dropped": 4,
        "unreadable": 2,
        "lost": 0,
        "bytes": 800,
        "rate_hz": 20.0,
        "drop_rate_hz": 0.5,
        "bytes_s": 160_000.0,
        "latency_ms": 0.25,
        "latency_p50_ms": 0.1,
        "latency_p99_ms": 0.4,
        "latency_worst_ms": 0.5,
        "jitter_ms": 0.01,
        "broken": False,
    }
    assert scan["latency_ms"] is None


def test_nodes_of_other_dataflows_with_the_same_name_keep_their_own_edges(daemon):
    twin = node("arm", dataflow="other")
    found = m.Top(at=0.0, window=1.0, nodes=[node("arm"), twin], edges=[edge("a/b", "arm/x")])
    daemon.answers["top"] = found
    first, second = json.loads(daemon.dora("top", "--once").stdout)
    assert (len(first["inputs"]), len(second["inputs"])) == (1, 0)


def test_the_live_table_needs_a_terminal(topped):
    fails(topped.dora("top"), 1, "--once")


def test_without_a_daemon_the_error_has_a_fix(tmp_path):
    result = dora("top", "--once", env=no_daemon(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert "`dora up`" in result.stderr


@pytest.mark.parametrize("lacking", ["textual", "textual.geometry", "dorafleet"])
def test_where_the_console_cannot_be_used_top_draws_its_plain_table(topped, lacking):
    """Textual may be missing, or be too old; dorafleet is not installed on every robot."""
    ours, theirs = pty.openpty()
    code = f"import sys, runpy; sys.modules[{lacking!r}] = None; sys.argv[0] = 'dora'"
    code += "; runpy.run_module('dorad.cli', run_name='__main__')"
    env = {**os.environ, "DORA_SOCKET": str(topped.socket), "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, "-c", code, "top"], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as process:
        os.close(theirs)
        shown = b""
        while b"camera/scan" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"q")
        with contextlib.suppress(OSError):
            while new := os.read(ours, 4096):
                shown += new
    os.close(ours)
    assert process.returncode == 0
    assert b"Traceback" not in shown
    for promised in (b"DISK R/W", b"NET TX/RX", b"INTERFACE"):
        assert promised in shown


def test_the_live_table_is_drawn_and_q_quits(topped):
    ours, theirs = pty.openpty()
    env = {**os.environ, "DORA_SOCKET": str(topped.socket), "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        [*DORA, "top", "--refresh-interval", "60"], stdin=theirs, stdout=theirs, env=env
    ) as process:
        os.close(theirs)
        shown = b""
        while b"camera/scan" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"q")
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while os.read(ours, 4096):
                pass
    os.close(ours)
    assert process.returncode == 0
    assert len(topped.asked("top")) == 1


def test_a_narrow_terminal_cuts_lines_and_not_columns():
    console = Console(width=60, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(screen(TOP, "n"))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert all(len(line) <= 60 for line in lines)
    assert lines[4] == "arm     Running  demo      4711  50.0  200.0       0"


def test_a_row_of_a_node():
    assert node_row(TOP.nodes[0]) == (
        *("arm", "Running", "demo", "4711", "50.0", "200.0", "0", "6", "3", "0.080"),
        *("2.0 kB/s / 5 B/s", "1.0 MB/s / 0 B/s"),
    )
    assert node_row(node("x", pid=None, dynamic=True))[1:4] == ("Dynamic", "demo", "-")


def test_a_row_of_an_edge():
    assert edge_row(TOP.edges[0]) == (
        *("camera/image -> arm/image", "20.0", "0.250", "0.100/0.400/0.500", "0.010"),
        *("4 + 2 lost", "0.5", "6/10", "160.0 kB/s"),
    )
    assert edge_row(edge("a/b", "c/d", latency=None, broken=True))[0] == "a/b -> c/d (broken)"


def test_keys_sort_nodes_and_edges():
    nodes = [node("b"), node("c", metrics=USED), node("a")]
    assert [info.node for info in sort_nodes(nodes, "name")] == ["a", "b", "c"]
    assert [info.node for info in sort_nodes(nodes, "cpu")] == ["c", "a", "b"]
    assert [info.node for info in sort_nodes(nodes, "memory")] == ["c", "a", "b"]
    edges = [edge("a/a", "z/a"), edge("b/b", "z/b", rate=30.0), edge("c/c", "z/c", drop_rate=9.0)]
    assert [found.source for found in sort_edges(edges, "name")] == ["a/a", "b/b", "c/c"]
    assert [found.source for found in sort_edges(edges, "rate")] == ["b/b", "a/a", "c/c"]
    assert [found.source for found in sort_edges(edges, "drops")] == ["c/c", "a/a", "b/b"]
    edges.append(edge("d/d", "z/d", latency=0.9))
    edges[0].latency = None
    assert [found.source for found in sort_edges(edges, "latency")] == ["d/d", "b/b", "c/c", "a/a"]


def test_a_row_of_an_interface():
    found = m.InterfaceRates(name="eth0", received=2000.0, sent=5.0, dropped=0.25)
    assert interface_row(found) == ("eth0", "2.0 kB/s", "5 B/s", "0.2")


def link(output, machine, **values):
    given = {"outgoing": True, "messages": 10, "lost": 0, "queued": 0, "dataflow": UUID}
    return m.LinkChannel(output=output, machine=machine, **{**given, **values})


def shown(found):
    console = Console(width=200, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(screen(found, "n"))
    return [line.split() for line in capture.get().splitlines()]


def test_the_live_table_has_a_row_for_each_output_between_machines():
    incoming = {"outgoing": False, "lost": 3, "queued": 2, "latency_us": 1500}
    links = [link("b/out", "arm2"), link("a/out", "arm3", **incoming)]
    lines = shown(m.Top(at=1.0, window=2.0, nodes=TOP.nodes, edges=[], links=links))
    at = lines.index(["LINK", "DATAFLOW", "MESSAGES", "LOST", "QUEUE", "LATENCY(ms)"])
    name = lines[at + 1][3]
    assert lines[at + 1] == ["a/out", "from", "arm3", name, "10", "3", "2", "1.500"]
    assert lines[at + 2] == ["b/out", "to", "arm2", name, "10", "0", "0", "-"]
    assert ["LINK"] not in [line[:1] for line in shown(TOP)], "no table without links"


def test_links_of_a_fleet_name_the_machine_that_counts():
    found = m.Top(at=1.0, window=2.0, nodes=[], edges=[], links=[link("a/out", "x", reporter="y")])
    lines = shown(found)
    at = next(n for n, line in enumerate(lines) if line[:1] == ["LINK"])
    assert (lines[at][-1], lines[at + 1][-1]) == ("MACHINE", "y")


def test_keys_sort_links():
    links = [link("a/out", "x", messages=1, lost=5), link("b/out", "x", messages=9)]
    orders = {order: [each.output[0] for each in sort_links(links, order)] for order in "nrd"}
    assert orders == {"n": ["a", "b"], "r": ["b", "a"], "d": ["a", "b"]}
    assert link_row(links[0], "flow")[0] == "a/out to x"
