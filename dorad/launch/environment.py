"""The environment variables of a node's process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dorad.dataflow.env import is_loader, is_reserved

COMPAT_FOLDER = Path(__file__).parents[1] / "compat"
"""Contains the `dora` module that nodes import, even if another one is installed."""

_NOT_INHERITED = frozenset(
    {
        # These would load foreign code into every node.
        "LD_PRELOAD",
        "LD_AUDIT",
        "DYLD_INSERT_LIBRARIES",
        "DYLD_FORCE_FLAT_NAMESPACE",
        # Secrets and switches of dora itself.
        "DORA_AUTH_TOKEN",
        "DORA_ALLOW_SHELL_NODES",
        # These belong to one process, and a node may start dora.
        "DORA_NODE_CONFIG",
        "DORA_RUNTIME_CONFIG",
        "DORA_RUN_PARENT_PID",
        "DORA_ZENOH_CONNECT",
        "DORA_ZENOH_LISTEN",
        "DORA_ZENOH_LISTEN_EXTRA",
        "DORA_ZENOH_MULTICAST",
        # The secrets of the service that dora may run in are not those of a node.
        "CREDENTIALS_DIRECTORY",
    }
)
_LOADER_REASON = (
    "for safety, loader variables (LD_PRELOAD, LD_AUDIT, LD_LIBRARY_PATH, DYLD_*) "
    "are not passed to nodes with --env"
)


def inherit(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of `environ` that nodes and build commands inherit."""
    return {name: value for name, value in environ.items() if name not in _NOT_INHERITED}


def layered_environment(
    environ: Mapping[str, str],
    dataflow_env: Mapping[str, str],
    run_env: Mapping[str, str],
    own_env: Mapping[str, str],
) -> dict[str, str]:
    """Return the node's `env` over `--env` over the dataflow's `env` over the inherited variables.

    Used to run a node and to run its build commands. Names that only dora may set are left out of
    `run_env` (see `left_out`).
    """
    return {
        **inherit(environ),
        "PYTHONUNBUFFERED": "1",
        **dataflow_env,
        **{name: value for name, value in run_env.items() if not is_reserved(name)},
        **own_env,
    }


def left_out(run_env: Mapping[str, str]) -> list[str]:
    """Return a warning for each name in `--env` that is left out, with the reason."""
    return [
        f"--env {name} is left out: {_LOADER_REASON if is_loader(name) else 'only dora sets it'}"
        for name in run_env
        if is_reserved(name)
    ]


def with_compat(python_path: str | None) -> str:
    """Return PYTHONPATH with our `dora` module first."""
    return os.pathsep.join([str(COMPAT_FOLDER), *([python_path] if python_path else [])])
