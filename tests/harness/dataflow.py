"""Write a dataflow with its nodes into a folder, run it with `dora run`, read what nodes report."""

import json
import os
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .process import Outcome, run

PROBE = '''
"""Report values to the test: one JSON line each in <node>.jsonl."""

import json
import os

_out = open(os.environ["PROBE"] + ".jsonl", "a", encoding="utf-8")


def report(value):
    _out.write(json.dumps(value) + "\\n")
    _out.flush()
'''


def clean_environment(bin_dir: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment as a shell with that venv active would have it.

    Nothing that dora or Python reads is inherited.
    """
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("DORA", "PYTHON", "PYTEST", "COV_"))
    }
    path = os.pathsep.join([str(bin_dir), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(bin_dir.parent), **(extra or {})}


def dora_run(
    file: Path,
    *,
    bin_dir: Path | None = None,
    stop_after: float | None = None,
    env: Mapping[str, str] | None = None,
    deadline: float = 30.0,
) -> Outcome:
    """Run `dora run FILE` in the file's folder with the `dora` of bin_dir (default: this venv's).

    `deadline` is in seconds beyond `stop_after`.
    """
    bin_dir = bin_dir or Path(sys.executable).parent
    argv: list[str | Path] = [bin_dir / "dora", "run", file.name]
    if stop_after is not None:
        argv += ["--stop-after", f"{stop_after:g}s"]
    return run(
        argv,
        cwd=file.parent,
        env=clean_environment(bin_dir, env),
        deadline=(stop_after or 0.0) + deadline,
    )


@dataclass
class Flow:
    """A dataflow being written: its Python nodes are given as source text.

    A node may call `report(value)`, with `from probe import report`; the test reads the values
    back with `reports`.
    """

    folder: Path
    nodes: list[dict[str, Any]] = field(default_factory=list)

    def node(
        self,
        node_id: str,
        source: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        outputs: list[str] | None = None,
        env: Mapping[str, Any] | None = None,
    ) -> "Flow":
        """Add a node that runs this Python source."""
        script = self.folder / f"{node_id}.py"
        script.write_text(textwrap.dedent(source), encoding="utf-8")
        entry: dict[str, Any] = {"id": node_id, "path": script.name}
        if inputs:
            entry["inputs"] = dict(inputs)
        if outputs:
            entry["outputs"] = outputs
        entry["env"] = {"PROBE": node_id, **(env or {})}
        self.nodes.append(entry)
        return self

    def dynamic(self, node_id: str, *, inputs: Mapping[str, Any] | None = None) -> "Flow":
        """Add a node that some process attaches to by its id."""
        self.nodes.append({"id": node_id, "path": "dynamic", "inputs": dict(inputs or {})})
        return self

    def run(self, *, stop_after: float | None = None, deadline: float = 30.0) -> Outcome:
        """Write the files and run the dataflow to its end."""
        (self.folder / "probe.py").write_text(PROBE.lstrip(), encoding="utf-8")
        file = self.folder / "dataflow.yml"
        file.write_text(yaml.safe_dump({"nodes": self.nodes}, sort_keys=False), encoding="utf-8")
        return dora_run(file, stop_after=stop_after, deadline=deadline)

    def reports(self, node_id: str) -> list[Any]:
        """Return what the node reported, in order; nothing if it never did."""
        return json_lines(self.folder / f"{node_id}.jsonl")


def json_lines(file: Path) -> list[Any]:
    """Return the values of a JSON lines file, or nothing if there is no such file.

    Leaves out a last line that is still being written.
    """
    if not file.exists():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
