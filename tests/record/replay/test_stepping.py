"""`dora replay --step` is the same each time, whatever the dataflow and the machine do.

`make check-stepping` does so with more dataflows.
"""

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from dorad.record.mcap.reader import RecordingReader
from dorad.record.replay.plan import STEPPED_QUEUE
from tests.cli.running import write as write_flow
from tests.record.files import numbers, write
from tests.record.stepflows import busy, compile_node, digest, prepare

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.mark.long
@pytest.mark.parametrize(("seed", "nodes_in_c"), [(3, 0), (8, 2)])
def test_each_replay_of_a_random_dataflow_is_the_same(
    seed, nodes_in_c, tmp_path, tmp_path_factory, dora
):
    if nodes_in_c and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler (sudo apt-get install gcc libc6-dev)")
    in_c = compile_node(tmp_path_factory.mktemp("c")) if nodes_in_c else None
    text = prepare(tmp_path, seed, in_c)
    assert text.count("stepnode") == nodes_in_c
    digests = {}
    with busy(4):
        for number in range(2):
            logs = tmp_path / f"logs{number}"
            logs.mkdir()
            done = dora(tmp_path, "replay", "a.mcap", "--step", LOGS=str(logs))
            assert done.returncode == 0, done.stdout + done.stderr + text
            digests[digest(logs)] = logs
    assert len(digests) == 1, f"{digests}\n{text}"


@pytest.mark.long
def test_recordings_of_a_replay_are_equal_to_the_nanosecond(tmp_path, dora):
    flow = yaml.safe_load(prepare(tmp_path, 8))
    outputs = [f"{node['id']}/{node['outputs'][0]}" for node in flow["nodes"] if "path" in node]
    running = [topic for topic in outputs if not topic.startswith("s")]
    times = []
    for number in range(2):
        logs = tmp_path / f"logs{number}"
        logs.mkdir()
        done = dora(
            tmp_path, "replay", "a.mcap", "--step", "--record", f"r{number}.mcap", LOGS=str(logs)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with RecordingReader(tmp_path / f"r{number}.mcap") as reader:
            assert reader.status == "COMPLETE"
            times.append(
                sorted((each.time, each.topic) for each in reader.messages(topics=running))
            )
    assert times[0] == times[1]
    assert times[0]
    done = dora(tmp_path, "diff", "r0.mcap", "r1.mcap")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("example", "live", "ignored", "said"),
    [
        ("service", "client,calculator", (), ["1 / 0 failed", "6 messages are equal"]),
        # How far the arms are when the cancel comes depends on the machine that records.
        (
            "action",
            "client,arms",
            ("arms/*",),
            ["right: canceled", "left: succeeded at 40", "3 messages are equal"],
        ),
    ],
)
def test_an_example_whose_client_and_server_run_is_replayed(
    example, live, ignored, said, tmp_path, dora
):
    for file in (EXAMPLES / example).iterdir():
        shutil.copy(file, tmp_path)
    done = dora(tmp_path, "record", "dataflow.yml", "-o", "a.mcap", "--exit-when-nodes-finish")
    assert done.returncode == 0, done.stdout + done.stderr
    ignore = [word for topic in ignored for word in ("--ignore", topic)]
    done = dora(
        tmp_path,
        *("replay", "a.mcap", "--step", "--assert", "--live", live, "--record", "b.mcap"),
        *ignore,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if not ignored:
        difference = dora(tmp_path, "diff", "a.mcap", "b.mcap")
        assert difference.returncode == 0, difference.stdout + difference.stderr
    for text in said:
        assert text in done.stdout


LOOP = """
    nodes:
      - {id: source, path: none.py, outputs: [number]}
      - id: there
        path: there.py
        inputs: {number: source/number, back: {source: back/out, queue_size: 50}}
        outputs: [out]
      - id: back
        path: back.py
        inputs: {there: {source: there/out, queue_size: 50}}
        outputs: [out]
"""
BACK = """
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("out", event["value"])
"""
THERE = """
    import os
    from dora import Node

    node = Node()
    received = {"number": 0, "back": 0}
    for event in node:
        if event["type"] == "INPUT":
            received[event["id"]] += 1
            if event["id"] == "number" or "ENDLESS" in os.environ:
                for _ in range(int(os.environ.get("TIMES", "1"))):
                    node.send_output("out", event["value"])
    print("received", *received.values(), flush=True)
"""


def prepare_loop(folder):
    write_flow(folder, LOOP, there=THERE, back=BACK)
    flow = (folder / "dataflow.yml").read_bytes()
    write(folder / "a.mcap", numbers(20, every_ms=3), dataflow=flow)


@pytest.mark.parametrize("arguments", [(), ("--speed", "0"), ("--step",)], ids=str)
def test_nodes_on_a_cycle_end_when_the_replay_has_ended(arguments, tmp_path, dora):
    prepare_loop(tmp_path)
    done = dora(tmp_path, "replay", "a.mcap", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "received 20 20" in done.stdout


def test_a_queue_that_would_drop_ends_the_replay_with_its_edge(tmp_path, dora):
    prepare_loop(tmp_path)
    done = dora(tmp_path, "replay", "a.mcap", "--step", TIMES=str(STEPPED_QUEUE + 1))
    assert done.returncode == 1
    assert f"the queue of there/out -> back/there is full: more than {STEPPED_QUEUE}" in (
        done.stdout + done.stderr
    )
    assert "generated" not in done.stderr


def test_the_replayer_is_no_peer_of_a_client(tmp_path, dora):
    """It feeds the client, and receives its requests to compare them."""
    flow = LOOP.replace("inputs: {number", "pattern: service-client\n        inputs: {number")
    client = """
        from dora import Node

        node = Node()
        for event in node:
            if event["type"] == "INPUT":
                node.call("out", event["value"], timeout=30)
    """
    server = """
        from dora import Node

        node = Node()
        node.serve("there", "out", lambda event: event["value"])
    """
    write_flow(tmp_path, flow, there=client, back=server)
    lines = numbers(5, every_ms=30)
    for topic in ("there/out", "back/out"):
        lines += [(topic, n * 30 + 1, pa.array([n]), {}) for n in range(5)]
    lines.sort(key=lambda line: line[1])
    write(tmp_path / "a.mcap", lines, dataflow=(tmp_path / "dataflow.yml").read_bytes())
    for step in ((), ("--step",)):
        done = dora(
            tmp_path,
            *("replay", "a.mcap", *step, "--assert", "--live", "there,back"),
            *("--ignore", "*:metadata.*"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "10 messages are equal" in done.stdout
