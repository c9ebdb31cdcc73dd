"""Run a node's source code on a file of test inputs, in its own process."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.dataflow import clean_environment
from tests.harness.waiting import DEADLINE_S


@dataclass(frozen=True)
class Ran:
    code: int
    printed: list[str]
    errors: str
    outputs: list[dict[str, Any]]


def run_source(
    source: str, *, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python source to its end."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        cwd=cwd,
        env=clean_environment(Path(sys.executable).parent, env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def run_node(
    source: str,
    events: list[dict[str, Any]] | Path,
    *,
    folder: Path,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Run a node on events, or on a recording, and return what it printed and sent."""
    if isinstance(events, Path):
        inputs = events
    else:
        inputs = folder / "inputs.json"
        inputs.write_text(json.dumps({"id": "node", "events": events}))
    outputs = folder / "outputs.jsonl"
    ended = run_source(
        source,
        cwd=folder,
        env={
            "DORA_TEST_WITH_INPUTS": str(inputs),
            "DORA_TEST_NO_OUTPUT_TIME_OFFSET": "1",
            "DORA_TEST_WRITE_OUTPUTS_TO": str(outputs),
            **(env or {}),
        },
    )
    lines = outputs.read_text().splitlines() if outputs.exists() else []
    return Ran(
        ended.returncode, ended.stdout.splitlines(), ended.stderr, [json.loads(x) for x in lines]
    )
