"""`dora.run` and `dora.build`: commands of `dora` as Python functions."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import click

from dorad.cli.root import cli
from dorad.problems import ProblemError

MAX_S = 1e9
"""Longer runs are refused."""


def run(
    dataflow_path: str | os.PathLike[str],
    uv: bool | None = None,
    stop_after: float | None = None,
) -> None:
    """Run a dataflow to its end as `dora run` does; `stop_after` in seconds.

    Raises:
        RuntimeError: it could not start, or a node failed; stderr has the details.
        KeyboardInterrupt: it was interrupted before it started.
    """
    words = ["run", _path(dataflow_path), *_flag("uv", uv)]
    if stop_after is not None:
        if not isinstance(stop_after, int | float):
            raise TypeError(f"stop_after must be a number, got {type(stop_after).__name__}")
        if not (math.isfinite(stop_after) and 0 <= stop_after < MAX_S):
            raise RuntimeError(
                f"invalid stop_after of {stop_after} seconds: it must be finite, not negative, and "
                f"less than {MAX_S:.0e}"
            )
        words += ["--stop-after", f"{float(stop_after):f}"]
    _call(words)


def build(
    dataflow_path: str | os.PathLike[str],
    uv: bool | None = None,
    coordinator_addr: str | None = None,
    coordinator_port: int | None = None,
    force_local: bool = False,
) -> None:
    """Run the build commands of a dataflow as `dora build` does, on this machine.

    Raises:
        RuntimeError: a command failed, or the dataflow cannot be read.
        NotImplementedError: a coordinator is named and `force_local` is not set.
    """
    path, flags = _path(dataflow_path), _flag("uv", uv)
    if not isinstance(force_local, bool):
        raise TypeError(f"force_local must be a bool, got {type(force_local).__name__}")
    if not force_local and (coordinator_addr is not None or coordinator_port is not None):
        raise NotImplementedError(
            "a coordinator builds nothing: the robots need the programs already; pass "
            "force_local=True to build on this machine"
        )
    _call(["build", path, *flags])


def _path(dataflow_path: object) -> str:
    path = os.fspath(dataflow_path) if isinstance(dataflow_path, os.PathLike) else dataflow_path
    if not isinstance(path, str):
        raise TypeError(f"dataflow_path must be a str or a path, got {type(path).__name__}")
    # A file whose name begins with a hyphen is not an option.
    return f"./{path}" if path.startswith("-") else path


def _flag(name: str, value: bool | None) -> list[str]:
    if not isinstance(value, bool | None):
        raise TypeError(f"{name} must be a bool or None, got {type(value).__name__}")
    return [f"--{name}"] if value else []


def _call(words: Sequence[str]) -> None:
    try:
        code = cli.main(list(words), prog_name="dora", standalone_mode=False)
    except click.ClickException as error:
        raise RuntimeError(error.format_message()) from error
    except ProblemError as error:
        raise RuntimeError(str(error)) from error
    except click.Abort:
        raise KeyboardInterrupt from None
    if code:
        raise RuntimeError(f"dora {words[0]} {words[1]} failed; the report is on stderr")
