"""Dataflows for tests of the daemon: sequences whose every number can be accounted for."""

import textwrap
from pathlib import Path
from typing import Any

import yaml

from tests.harness.waiting import wait_until

from .dataflow import json_lines

SOURCE = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    number = 0
    for event in node:
        if event["type"] == "STOP":
            break
        if event["type"] == "INPUT":
            node.send_output("number", pa.array([number]))
            print(f"sent {number}")
            number += 1
"""

SINK = """
    import os
    from dora import Node

    node = Node()
    with open(os.environ["SEEN"], "a", buffering=1) as seen:
        for event in node:
            if event["type"] == "STOP":
                break
            if event["type"] == "INPUT":
                seen.write(f"{event['value'][0]}\\n")
"""

BUSY = """
    import os, time
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT" and os.path.exists(os.environ["WORK"]):
            with node.busy("holds a cup"):
                while os.path.exists(os.environ["WORK"]):
                    time.sleep(0.01)
"""
"""A node that is busy while the file WORK exists."""


def write_flow(folder: Path, nodes: list[dict[str, Any]], **scripts: str) -> Path:
    """Write `dataflow.yml` and a Python file for each script; return the dataflow's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in scripts.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    file = folder / "dataflow.yml"
    file.write_text(yaml.safe_dump({"nodes": nodes}, sort_keys=False), encoding="utf-8")
    return file


def counting(folder: Path, hz: int = 100, **source_keys: Any) -> Path:
    """Write a dataflow in which `sink` notes every number that `source` sends, in `seen`."""
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": f"dora/timer/hz/{hz}"},
            "outputs": ["number"],
            **source_keys,
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 1000}},
            "env": {"SEEN": str(folder / "seen")},
        },
    ]
    return write_flow(folder, nodes, source=SOURCE, sink=SINK)


def seen(folder: Path) -> list[int]:
    """Return the numbers that the sink of `counting` has noted."""
    path = folder / "seen"
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [int(line) for line in whole.splitlines()]


def until_more_seen(folder: Path, more: int) -> None:
    """Wait until the sink of `counting` has noted more than `more` further numbers."""
    before = len(seen(folder))
    wait_until(lambda: len(seen(folder)) > before + more)


def logged(folder: Path, node: str) -> list[str]:
    """Return the messages in the log files of a node, over all runs in this folder."""
    return [
        line["msg"]
        for path in sorted((folder / "out").glob(f"*/log_{node}.jsonl"))
        for line in json_lines(path)
    ]


def until_more_logged(folder: Path, node: str, more: int) -> None:
    """Wait until a node has logged more than `more` further messages."""
    before = len(logged(folder, node))
    wait_until(lambda: len(logged(folder, node)) > before + more)
