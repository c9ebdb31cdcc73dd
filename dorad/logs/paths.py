"""Names of log files and their folders.

`<base>/out/<uuid>/log_<node>.jsonl`; rotated files are `log_<node>.1.jsonl` (the newest), `.2` and
so on; `log_dora.jsonl` holds the daemon's reports (no node may be called `dora`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

DAEMON = "dora"
"""The daemon's name in place of a node's id."""
MAX_ROTATED = 100
ABOUT = "dataflow.json"

_FILE = re.compile(r"log_(?P<node>[\w.-]+?)(?:\.(?P<number>[1-9]\d{0,2}))?\.jsonl")


def out_folder(base: Path) -> Path:
    """Return the folder that holds the run folders of a dataflow file."""
    return base / "out"


def log_folder(base: Path, dataflow_id: str) -> Path:
    """Return the folder of one run."""
    return out_folder(base) / dataflow_id


def current_name(node: str) -> str:
    """Return the name of a node's current file."""
    return f"log_{node}.jsonl"


def rotated_names(node: str, count: int, others: Collection[str] = ()) -> list[str]:
    """Return the names of a node's rotated files, newest first.

    If a node `cam.1` exists beside `cam`, its file does not count as a rotated one.
    """
    numbers = (n for n in range(1, MAX_ROTATED + 1) if f"{node}.{n}" not in others)
    return [f"log_{node}.{number}.jsonl" for number, _ in zip(numbers, range(count), strict=False)]


def files_of(folder: Path, node: str, others: Collection[str] = ()) -> list[Path]:
    """Return the log files of a node that exist, oldest first."""
    names = [current_name(node), *rotated_names(node, MAX_ROTATED, others)]
    there = {path.name for path in folder.glob(f"log_{node}.*jsonl")}
    return [folder / name for name in reversed(names) if name in there]


def nodes_in(folder: Path) -> list[str]:
    """Return the nodes that have log files, sorted."""
    matches = (_FILE.fullmatch(path.name) for path in folder.glob("log_*.jsonl"))
    return sorted({match["node"] for match in matches if match and match["node"] != DAEMON})


def is_log_file(name: str) -> bool:
    """Return True if a file of this name is a log file."""
    return _FILE.fullmatch(name) is not None


def is_rotated(name: str, nodes: Collection[str]) -> bool:
    """Return True if a file of this name is a rotated log file."""
    match = _FILE.fullmatch(name)
    return bool(match and match["number"] and f"{match['node']}.{match['number']}" not in nodes)
