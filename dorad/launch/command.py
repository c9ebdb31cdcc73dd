"""What to execute for a node: its command line, folder and environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dorad.dataflow.model import Dataflow, Node
    from dorad.launch.model import Command


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What the commands of all nodes of a run have in common."""

    dataflow: Dataflow
    environ: Mapping[str, str]
    """What nodes inherit: normally `os.environ`."""
    run_env: Mapping[str, str] = field(default_factory=dict)
    """`--env`: over the dataflow's `env`, under the node's."""
    uv: bool = False
    allow_shell: bool = False
    parent_pid: int | None = None
    """Goes into DORA_RUN_PARENT_PID."""


def command_for(
    node: Node, context: LaunchContext, node_config: str, *, downloaded: Path | None = None
) -> Command:
    """The command of `node`; `node_config` is the text of DORA_NODE_CONFIG.

    `downloaded` is the local file of a node whose path is a URL (see `fetch.download`).

    Raises:
        LaunchError: the file or command does not exist, or may not be run.
    """
    raise NotImplementedError
