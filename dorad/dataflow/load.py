"""From a YAML file to a checked dataflow, or to all its problems at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.model import Dataflow


def load(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Dataflow:
    """Read and check the file at `path`.

    `environ` is what `$NAME` in `env` values refers to (None: this process's environment).
    Raises DataflowError with every problem found, sorted by position; also for a file that is
    missing, a directory, unreadable or not UTF-8.
    """
    raise NotImplementedError


def parse(text: str, *, path: Path, environ: Mapping[str, str] | None = None) -> Dataflow:
    """Check the YAML in `text` as if it were the content of `path`, which is not opened.

    Raises DataflowError with every problem found, sorted by position.
    """
    raise NotImplementedError
