"""A node that makes no call for ten seconds is reported by `dora run`, and no other one."""

import signal
from pathlib import Path

import pytest

from tests.cli.running import dora, write

BEGIN = """
    import os, time
    import pyarrow as pa
    from dora import Node
    node = Node()
"""
NODES = {
    "hangs": "    while not os.path.exists('stop'): time.sleep(0.1)\n",
    "waits": "    for event in node: pass\n",
    "polls": (
        "    while not os.path.exists('stop'):\n        node.try_recv()\n        time.sleep(1)\n"
    ),
    "sends": (
        "    while not os.path.exists('stop'):\n"
        "        node.send_output('out', pa.array([1]))\n        time.sleep(1)\n"
    ),
    "works": "    for event in node: time.sleep(0.5)\n",
}
YAML = """
    nodes:
      - {id: hangs, path: hangs.py, inputs: {x: sends/never}}
      - {id: waits, path: waits.py, inputs: {x: sends/never}}
      - {id: polls, path: polls.py, inputs: {x: sends/never}}
      - {id: sends, path: sends.py, outputs: [out, never]}
      - {id: works, path: works.py, inputs: {tick: dora/timer/millis/100, x: sends/out}}
"""


@pytest.mark.long
def test_only_the_node_that_makes_no_calls_is_reported(tmp_path: Path) -> None:
    write(tmp_path, YAML, **{name: BEGIN + source for name, source in NODES.items()})
    with dora(tmp_path, "dataflow.yml") as run:
        run.until_prints("has not called dora for 10 s")
        (tmp_path / "stop").touch()
        run.signal(signal.SIGINT)
        run.end()
        (line,) = [each for each in run.out.splitlines() if "has not called dora" in each]
        assert "WARN   hangs:" in line
        assert "`health_check_timeout`" in line
