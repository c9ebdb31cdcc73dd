"""`dora.run` and `dora.build`: commands of `dora` as Python functions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from dorad.cli.root import cli
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    words = ["run", os.fspath(dataflow_path)]
    if uv:
        words.append("--uv")
    if stop_after is not None:
        words += ["--stop-after", repr(float(stop_after))]
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
    if not force_local and (coordinator_addr is not None or coordinator_port is not None):
        raise NotImplementedError(
            "a coordinator builds nothing: the robots need the programs already; pass "
            "force_local=True to build on this machine"
        )
    _call(["build", os.fspath(dataflow_path), *(["--uv"] if uv else [])])


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
