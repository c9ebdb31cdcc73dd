"""Signals to `dora run`, and the end of its nodes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.cli.running import dora, write
from tests.cli.test_run import SINK, TICKING, printed

DEAF = """
    import signal, subprocess, sys, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    from dora import Node
    node = Node()
    subprocess.Popen(["setsid", "sleep", "600"])
    print("deaf", flush=True)
    time.sleep(600)
"""
LATE = """
    import time
    print("not yet", flush=True)
    time.sleep(1.5)
    from dora import Node
    for event in Node():
        print(event["type"], event["id"])
"""
GONE_S = 20.0
"""An idle machine needs a fraction of a second."""

SOURCE_OF_ALL = "nodes: [{id: deaf, path: deaf.py}]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_stops_the_nodes_gracefully(
    tmp_path: Path, number: signal.Signals
) -> None:
    write(tmp_path, TICKING, sink=SINK)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("INPUT tick")
        run.signal(number)
        run.end(0)
        assert printed(run.out, "sink")[-2:] == ["STOP MANUAL None", "the end"]
        assert "Ctrl-C again kills the nodes" in run.err


def test_a_stop_before_the_start_succeeds(tmp_path: Path) -> None:
    yaml = TICKING + "      - {id: late, path: late.py}\n"
    write(tmp_path, yaml, sink=SINK, late=LATE)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("not yet")
        run.signal(signal.SIGINT)
        run.end(0)
        assert printed(run.out, "late") == ["not yet", "STOP MANUAL"]


def test_the_second_signal_kills(tmp_path: Path) -> None:
    write(tmp_path, SOURCE_OF_ALL, deaf=DEAF)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("deaf: deaf")
        run.signal(signal.SIGINT)
        run.until_prints("stopping")
        run.signal(signal.SIGINT)
        run.end(1)
        assert "error: node deaf was killed because a second interrupt asked for it" in run.err


@pytest.mark.long
def test_a_node_that_only_sends_is_ended_by_sigterm_after_the_grace(tmp_path: Path) -> None:
    forever = """
        import time
        from dora import Node
        node = Node()
        print("up", flush=True)
        time.sleep(600)
    """
    write(tmp_path, "nodes: [{id: forever, path: forever.py}]", forever=forever)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("forever: up")
        begun = time.monotonic()
        run.signal(signal.SIGINT)
        run.end(0)
        assert time.monotonic() - begun > 9.5


def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    write(tmp_path, SOURCE_OF_ALL, deaf=DEAF)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("deaf: deaf")
        run.until(lambda: len(run.processes()) >= 2)  # the node and its runaway child
        run.signal(signal.SIGKILL)
        run.process.wait()
        run.until(lambda: not run.processes(), GONE_S)


def test_a_killed_holder_ends_the_run(tmp_path: Path) -> None:
    write(tmp_path, SOURCE_OF_ALL, deaf=DEAF)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("deaf: deaf")
        (holder,) = [
            child
            for child in psutil.Process(run.process.pid).children()
            if "serve_client" in " ".join(child.cmdline())
        ]
        holder.kill()
        run.end(1)
        assert "the process holder ended" in run.out


def test_a_runaway_grandchild_does_not_keep_a_run_from_ending(tmp_path: Path) -> None:
    leave = """
        import subprocess
        subprocess.Popen(["setsid", "sleep", "600"])
        print("left", flush=True)
    """
    write(tmp_path, "nodes: [{id: leave, path: leave.py}]", leave=leave)
    with dora(tmp_path, "dataflow.yml") as run:
        run.end(0, deadline=10)


def test_a_dynamic_node_attaches_by_name_and_leaves(tmp_path: Path) -> None:
    yaml = """
        nodes:
          - {id: hand, path: dynamic, outputs: [out]}
          - id: sink
            path: sink.py
            inputs: {x: hand/out, tick: dora/timer/millis/100}
    """
    hand = """
        import pyarrow as pa
        from dora import Node
        node = Node("hand")
        node.send_output("out", pa.array([7]))
    """
    write(tmp_path, yaml, sink=SINK, hand=hand)
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("INPUT tick")
        compat = Path(__file__).parents[2] / "dorad" / "compat"
        path = os.pathsep.join([str(compat), str(compat.parents[1])])
        subprocess.run(
            [sys.executable, "hand.py"],
            cwd=tmp_path,
            env={**run.environ, "PYTHONPATH": path},
            check=True,
            timeout=20,
        )
        run.until_prints("INPUT_CLOSED x")
        assert "INPUT x [7]" in printed(run.out, "sink")
        run.signal(signal.SIGINT)
        run.end(0)
