"""The drop-in `dora` module: nodes written for dora run unmodified.

It comes first in the module search path of every node, even if the dora-rs wheel is installed. It
loads the `dorad` package that it is a part of, so the node's environment need not contain it.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from typing import NoReturn

if "dorad" not in sys.modules:
    _package = os.path.realpath(f"{__file__}/../../..")
    _spec = importlib.util.spec_from_file_location(
        "dorad", f"{_package}/__init__.py", submodule_search_locations=[_package]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError(f"the dorad package is incomplete at {_package}")
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["dorad"] = _module
    _spec.loader.exec_module(_module)

# Modules leave no garbage, and to look for it would take a tenth of the time to import them.
if _collects := gc.isenabled():
    gc.disable()
try:
    from dorad import API_VERSION
    from dorad.node.node import Node as Node
    from dorad.node.runtime.status import DoraStatus as DoraStatus
finally:
    if _collects:
        gc.enable()

__all__ = ["DoraStatus", "Node", "__author__", "__version__", "build", "run", "start_runtime"]

__author__ = "the dorad authors"
__version__ = API_VERSION

_IMPORT_SYSTEM = ("importlib._bootstrap", "_frozen_importlib")


def run(
    dataflow_path: str | os.PathLike[str],
    uv: bool | None = None,
    stop_after: float | None = None,
) -> None:
    """Run a dataflow to its end as `dora run` does; `stop_after` in seconds.

    Raises:
        RuntimeError: it could not start, or a node failed; stderr has the details.
    """
    from dorad.cli import inprocess

    inprocess.run(dataflow_path, uv, stop_after)


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
        NotImplementedError: a coordinator was named, and `force_local` is not set.
    """
    from dorad.cli import inprocess

    inprocess.build(dataflow_path, uv, coordinator_addr, coordinator_port, force_local)


def start_runtime() -> None:
    """Run the operators of this process's node; return when all have ended.

    Raises:
        RuntimeError: the process was not started for an operator node.
    """
    from dorad.node.runtime import main

    main.run()


def __getattr__(name: str) -> NoReturn:
    if name.startswith("Ros2"):
        text = f"dora.{name} is missing: this distribution has no ROS 2 bridge for Python yet"
    else:
        raise AttributeError(f"module 'dora' has no attribute {name!r}")
    # `from dora import X` would replace the text of an AttributeError.
    importing = sys._getframe(1).f_globals.get("__name__") in _IMPORT_SYSTEM
    raise (ImportError if importing else AttributeError)(text)
