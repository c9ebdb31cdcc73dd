"""Make the request that starts a dataflow from its file, or from its checked content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dorad.control.messages import Start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.model import Dataflow


def start_request(
    dataflow: str | Path | Dataflow,
    *,
    name: str | None,
    env: Mapping[str, str] | None,
    uv: bool,
    allow_shell: bool,
    exit_when_nodes_finish: bool | None,
    hot_reload: bool,
) -> Start:
    """Return the request that starts a dataflow, after reading and checking its file.

    This happens in the client, because the file and its environment variables are the user's.

    Raises:
        DataflowError: with every problem in the file, by line and column.
    """
    if isinstance(dataflow, (str, Path)):
        from dorad.dataflow.load import load

        dataflow = load(dataflow)
    return Start(
        descriptor=dict(dataflow.descriptor),
        path=str(dataflow.path.absolute()),
        name=name,
        env=dict(env or {}),
        uv=uv,
        allow_shell=allow_shell,
        exit_when_nodes_finish=exit_when_nodes_finish,
        hot_reload=hot_reload,
    )
