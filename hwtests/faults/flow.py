"""Dataflows that check their own data, and their results."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dorad.logs.fileline import decode
from dorad.logs.paths import files_of, log_folder

NODES = Path(__file__).with_name("nodes")
TICK_MS = 5
QUEUE = 4000
"""Messages: more than arrive while a node is stopped or restarted."""
_COUNTS = struct.Struct("3Q")
RESTARTED = {"restart_policy": "always", "restart_delay": 0.02, "max_restart_delay": 0.2}


@dataclass
class Flow:
    """A dataflow in its own folder; the daemon knows it by `name`."""

    name: str
    folder: Path
    nodes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "flow.yml"

    def add(self, node: str, program: str, *, tick: float | None = None, **keys: Any) -> None:
        """Add a node; `tick` is in milliseconds. Its own environment is in `env`."""
        inputs = keys.pop("inputs", {})
        if tick is not None:
            inputs = {"tick": f"dora/timer/millis/{tick:g}"}
        env = {"FAULTS_NODE": node, "FAULTS_FOLDER": str(self.folder), **keys.pop("env", {})}
        path = str(NODES / f"{program}.py")
        self.nodes.append({"id": node, "path": path, "inputs": inputs, "env": env, **keys})

    def add_chain(self, prefix: str, **keys: Any) -> None:
        """Add a source, a node that passes its data on, and one that checks what arrives."""

        def from_(node: str) -> dict[str, Any]:
            return {"data": {"source": f"{prefix}_{node}/data", "queue_size": QUEUE}}

        self.add(f"{prefix}_feed", "feed", tick=TICK_MS, outputs=["data"], **keys)
        self.add(f"{prefix}_pass", "pass_on", inputs=from_("feed"), outputs=["data"], **keys)
        self.add(f"{prefix}_check", "check", inputs=from_("pass"), **keys)

    def write(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.file.write_text(yaml.safe_dump({"nodes": self.nodes}, sort_keys=False))

    @property
    def checks(self) -> list[str]:
        return [node["id"] for node in self.nodes if node["id"].endswith("_check")]

    def counts(self, node: str) -> tuple[int, int, int]:
        try:
            data = (self.folder / f"{node}.counts").read_bytes()
        except FileNotFoundError:
            return 0, 0, 0
        first, second, third = _COUNTS.unpack(data) if data else (0, 0, 0)
        return first, second, third

    def received(self) -> int:
        return sum(self.counts(node)[0] for node in self.checks)

    def missing(self) -> int:
        """Return the number of messages lost with killed processes."""
        return sum(self.counts(node)[1] for node in self.checks)

    def faults(self) -> list[str]:
        path = self.folder / "faults"
        return path.read_text().splitlines() if path.exists() else []

    def longest_pause(self, nodes: Iterable[str], since_ns: int = 0) -> float:
        """Return the longest time between two messages at one of these nodes, at least 0.05 s."""
        longest = 0.05
        for node in nodes:
            path = self.folder / f"{node}.pauses"
            for line in path.read_text().splitlines() if path.exists() else ():
                at, pause = map(int, line.split())
                if at >= since_ns:
                    longest = max(longest, pause / 1e9)
        return longest

    def wrong_lines(self, uuid: str, node: str) -> list[str]:
        """Compare the log of a `talk` node that has ended with what it printed."""
        files = files_of(log_folder(self.folder, uuid), node)
        found = [
            record.message
            for file in files
            for line in file.read_bytes().splitlines()
            if (record := decode(line)).message.startswith("line ")
        ]
        expected = [f"line {number}" for number in range(self.counts(node)[0])]
        if found == expected:
            return []
        at = next(
            (i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found)
        )
        text = (
            f"the log of {node} has {len(found)} lines, {len(expected)} were printed;"
            f" the first difference is at {at}: {found[at : at + 3]}"
        )
        return [text]
