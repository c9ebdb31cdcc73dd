"""DORA_RUNTIME_CONFIG: which operators a process runs, from which files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONFIG = "DORA_RUNTIME_CONFIG"


class OperatorEntry(NamedTuple):
    """One operator; `source` is the absolute path of its file."""

    id: str
    source: str


def to_json(entries: Iterable[OperatorEntry]) -> str:
    """Return the text for the environment."""
    return json.dumps({"operators": [[*entry] for entry in entries]})


def from_environment(environ: Mapping[str, str]) -> tuple[OperatorEntry, ...]:
    """Return the operators that this process is to run.

    Raises:
        RuntimeError: it is to run none.
    """
    text = environ.get(CONFIG)
    if not text:
        raise RuntimeError(
            "this process is no operator node: `dora run` and `dora start` make one for each node"
            f" with `operator` or `operators`, and tell it what to run in {CONFIG}"
        )
    try:
        return tuple(
            OperatorEntry(str(name), str(source)) for name, source in json.loads(text)["operators"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"{CONFIG} is not one of ours: {error}") from error
