"""A recorder that comes and goes beside a fast node costs another one no message.

ROUNDS is how often; 200 take a few minutes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dorad.record.damage import dropped_in
from dorad.record.mcap.reader import RecordingReader
from dorad.record.recorder.leftovers import BEGIN
from tests.harness.commands import Forked, command_server
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import write_flow
from tests.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = int(os.environ.get("ROUNDS", "200"))
DEADLINE_S = 120.0
TOPIC = "source/number"
NEAR_S = 0.5
"""A gap so near to a start or an end of the other recorder may be its doing."""

FAST = """
    import pyarrow as pa
    from dora import Node

    node, number = Node(), 0
    for event in node:
        if event["type"] == "STOP":
            open("sent", "w").write(str(number))
            break
        if event["type"] == "INPUT":
            for _ in range(10):
                node.send_output("number", pa.array([number]))
                number += 1
"""


@pytest.fixture(scope="module")
def dorad() -> Iterator[Daemon]:
    with command_server(), daemon() as started:
        yield started


def record(dorad: Daemon, path: Path, *options: str) -> Forked:
    """Start `dora record --attach`, and return it once its file has messages."""
    with Path(os.devnull).open("r+b") as nothing:
        process = Forked(
            "dora",
            ("record", "--attach", "demo", "-o", str(path), *options),
            [nothing.fileno()] * 3,
            env=dorad.env,
        )
    wait_until(lambda: path.exists() and path.stat().st_size > 50_000, deadline_s=DEADLINE_S)
    assert process.poll() is None
    return process


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("queue_size", [65536, 1000])
def test_one_recorder_leaves_again_and_again_and_the_other_counts_exactly(
    dorad: Daemon, tmp_path: Path, queue_size: int
) -> None:
    """A queue of 1000 holds a tenth of a second: less than the pauses of a busy machine.

    The long one holds six seconds, and loses nothing.
    """
    folder = tmp_path / "flow"
    tick = {"tick": "dora/timer/hz/1000"}
    source = {"id": "source", "path": "source.py", "inputs": tick, "outputs": ["number"]}
    file = write_flow(folder, [source], source=FAST)
    dorad.dora_ok("start", file, "--name", "demo", "--detach")
    stays = record(dorad, tmp_path / "stays.mcap", "--queue-size", str(queue_size))
    chance, moments = random.Random(queue_size), []
    for _ in range(ROUNDS):
        path = tmp_path / "leaves.mcap"
        moments.append(time.time())
        leaves = record(dorad, path)
        time.sleep(chance.random() * 0.05)
        moments.append(time.time())
        leaves.send_signal(signal.SIGINT)
        assert leaves.wait(DEADLINE_S) in (0, 1)  # its own queue is short
        path.unlink()
    assert dorad.dora("stop", "demo").returncode == 0
    code = stays.wait(DEADLINE_S)
    sent = int((folder / "sent").read_text())
    with RecordingReader(tmp_path / "stays.mcap") as reader:
        begin = int(reader.metadata["dora.recording"].get(f"{BEGIN}{TOPIC}", "0"))
        dropped = dropped_in(reader.metadata).get(TOPIC, 0)
        messages = [(each.sequence, each.time) for each in reader.messages(topics={TOPIC})]
        value = next(reader.messages(topics={TOPIC})).decode().array[0].as_py()
    gaps = [
        (second - first - 1, at / 1e9)
        for (first, _), (second, at) in pairwise(messages)
        if second != first + 1
    ]
    near = [gap for gap in gaps if min(abs(gap[1] - each) for each in moments) < NEAR_S]
    print(
        f"{len(messages)} recorded of {sent}, {dropped} dropped in {len(gaps)} gaps:"
        f" {sum(n for n, _ in near)} in {len(near)} near a start or an end"
    )
    assert messages[0][0] == begin
    assert len(messages) + dropped == sent - value
    assert sum(count for count, _ in gaps) == dropped
    assert code == (1 if dropped else 0)
    if queue_size > 10_000:
        assert not dropped, gaps
