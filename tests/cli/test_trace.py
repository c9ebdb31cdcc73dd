"""`dora trace` of a `dora run`, whose nodes need no set-up."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from tests.cli import running
from tests.cli.dora import DORA, dora
from tests.harness.commands import fails, succeeds
from tests.harness.waiting import wait_until

FLOW = """
    nodes:
      - id: camera
        path: camera.py
        inputs: {tick: dora/timer/millis/50}
        outputs: [image]
      - id: detector
        path: detector.py
        inputs: {image: camera/image}
        outputs: [boxes]
      - id: planner
        path: planner.py
        inputs: {boxes: detector/boxes}
      - id: logger
        path: logger.py
        inputs:
          image: {source: camera/image, queue_size: 1}
      - id: arm
        operators:
          - {id: grip, python: grip.py, inputs: {image: camera/image}, outputs: [force]}
          - {id: stop, python: grip.py, inputs: {force: arm/grip/force}}
"""
GRIPS = """
    import pyarrow as pa
    from dora import DoraStatus

    class Operator:
        def on_event(self, event, send_output):
            if event["type"] == "INPUT" and event["id"] == "image":
                send_output("force", pa.array([1]))
            return DoraStatus.CONTINUE
"""
SENDS = """
    import os, sys, time
    import pyarrow as pa
    from dora import Node

    node = Node()
    number = 0
    for event in node:
        if event["type"] == "INPUT":
            number += 1
            time.sleep(3.0 if number == 20 and "SLOW" else 0.002)
            node.send_output("OUTPUT", pa.array([number]))
"""
PLANS = """
    from dora import Node

    for event in Node():
        pass
"""
LOGS = """
    import time
    from dora import Node

    for event in Node():
        time.sleep(0.3)
"""


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Running]:
    folder = tmp_path_factory.mktemp("flow")
    running.write(
        folder,
        FLOW,
        camera=SENDS.replace("OUTPUT", "image").replace("SLOW", ""),
        detector=SENDS.replace("OUTPUT", "boxes"),
        planner=PLANS,
        logger=LOGS,
        grip=GRIPS,
    )
    with running.dora(folder, "dataflow.yml") as started:
        wait_until(lambda: rows(started, "list", "--slow", "--min-duration", "3"))
        yield started


def trace(flow: running.Running, *words: str) -> subprocess.CompletedProcess[str]:
    return dora("trace", *words, env=flow.environ)


def rows(flow: running.Running, *words: str) -> list[dict[str, object]]:
    result = trace(flow, *words, "-f", "json")
    return [json.loads(line) for line in result.stdout.splitlines()]


PATH = "camera/tick → camera → detector → planner"


def test_the_slow_node_is_found_without_set_up(flow: running.Running) -> None:
    slowest = next(row for row in rows(flow, "list", "--slow", "--through", "detector"))
    assert slowest["path"] == PATH
    assert float(str(slowest["duration_ms"])) > 3000
    trace_id = str(slowest["trace_id"])
    out = succeeds(trace(flow, "view", trace_id[:8]))
    assert "\x1b" not in out
    works = {
        line.split()[0]: float(line.split()[-1])
        for line in out.splitlines()
        if " process " in line and "█" in line
    }
    assert max(works, key=lambda node: works[node]) == "detector"
    assert f"trace {trace_id[:8]}" in out
    plain = subprocess.run(
        [*DORA, "trace", "view", trace_id[:8]],
        env={**flow.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert plain.stdout.isascii()
    assert "camera/tick -> camera -> detector" in plain.stdout
    whole = json.loads(trace(flow, "view", trace_id, "-f", "json").stdout)
    nodes = {span["node"] for span in whole["spans"]}
    assert {"camera", "detector", "planner"} <= nodes


def test_the_latest_traces_are_there_within_a_second_and_whole(flow: running.Running) -> None:
    known = {str(row["trace_id"]) for row in rows(flow, "list", "-n", "1000")}
    wait_until(
        lambda: any(
            row["path"] == PATH and row["trace_id"] not in known and row["complete"]
            for row in rows(flow, "list")
        )
    )


def test_messages_between_operators_of_one_process_are_followed(flow: running.Running) -> None:
    path = "camera/tick → camera → arm → arm"
    wait_until(lambda: path in {row["path"] for row in rows(flow, "paths", "--through", "arm")})


def test_dropped_messages_are_in_their_traces(flow: running.Running) -> None:
    wait_until(lambda: rows(flow, "list", "--failed"))
    row = rows(flow, "list", "--failed", "-n", "1")[0]
    assert row["dropped"] == 1
    shown = trace(flow, "view", str(row["trace_id"])).stdout
    assert "✗ camera/image dropped at logger/image" in shown


def test_paths_tell_where_the_time_goes(flow: running.Running) -> None:
    found = {str(row["path"]): row for row in rows(flow, "paths")}
    path = found[PATH]
    shares = [float(str(path[name])) for name in ("wait", "work", "transport")]
    assert sum(shares) == pytest.approx(1)
    assert float(str(path["p50_ms"])) < float(str(path["worst_ms"]))
    succeeds(trace(flow, "view", str(path["worst_trace_id"])))
    assert not rows(flow, "paths", "--through", "elsewhere")
    table = trace(flow, "paths").stdout.splitlines()
    assert table[0].split()[0] == "PATH"


def test_perfetto_opens_the_export(flow: running.Running, tmp_path: Path) -> None:
    file = tmp_path / "flow.pftrace"
    succeeds(trace(flow, "export", "--perfetto", str(file)))
    read = pb.Trace()
    read.ParseFromString(file.read_bytes())
    names = {each.track_descriptor.name for each in read.packet} - {""}
    assert names >= {"camera", "detector", "planner", "logger"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("view", "00000000000000000000"), "no trace is kept whose id begins with"),
        (("view",), "give an ID"),
        (("list", "-d", "elsewhere"), "elsewhere"),
        (("export", "--perfetto", "/nowhere/x"), "cannot write /nowhere/x"),
        (("export", "--perfetto", "/tmp/x", "--min-duration", "9h"), "no trace is kept"),
    ],
)
def test_mistakes_are_one_sentence(
    flow: running.Running, words: tuple[str, ...], error: str
) -> None:
    result = trace(flow, *words)
    assert result.returncode in (1, 2)
    assert error in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_daemon_and_a_run_the_error_says_so(tmp_path: Path) -> None:
    fails(dora("trace", "list", env={"XDG_RUNTIME_DIR": str(tmp_path)}), 1, "no dorad is running")


def test_a_command_that_needs_a_daemon_says_what_sees_a_run(flow: running.Running) -> None:
    found = dora("topic", "hz", "--duration", "1", env=flow.environ)
    fails(found, 1, "no dorad is running", "`dora run` runs is seen by `dora trace` and")
