"""DORA_RUNTIME_CONFIG: the operators that a process runs, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

CONFIG = "DORA_RUNTIME_CONFIG"


class OperatorEntry(NamedTuple):
    """One operator; `source` is the absolute path of its file."""

    id: str
    source: str


def to_json(entries: Iterable[OperatorEntry]) -> str:
    """Return the value of the variable."""
    return json.dumps({"operators": [[*entry] for entry in entries]})


def from_environment(environ: Mapping[str, str]) -> tuple[OperatorEntry, ...]:
    """Return the operators of this process.

    Raises:
        RuntimeError: the variable is missing or not valid.
    """
    text = environ.get(CONFIG)
    if not text:
        raise RuntimeError(
            "this process is not an operator node: `dora run` and `dora start` start one for each "
            f"node with `operator` or `operators`, and set {CONFIG}"
        )
    try:
        return tuple(
            OperatorEntry(str(name), str(source)) for name, source in json.loads(text)["operators"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"{CONFIG} is not a valid runtime configuration: {error}") from error
