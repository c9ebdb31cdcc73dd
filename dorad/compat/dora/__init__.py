"""The drop-in `dora` module: nodes written for dora run unmodified.

It comes first in the module search path of every node, even if the dora-rs wheel is installed. It
loads the `dorad` package that it is a part of, so the node's environment need not contain it.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from dorad.ros2.api import Ros2ActionClient as Ros2ActionClient
    from dorad.ros2.api import Ros2ActionServer as Ros2ActionServer
    from dorad.ros2.api import Ros2Context as Ros2Context
    from dorad.ros2.api import Ros2Durability as Ros2Durability
    from dorad.ros2.api import Ros2Liveliness as Ros2Liveliness
    from dorad.ros2.api import Ros2Node as Ros2Node
    from dorad.ros2.api import Ros2NodeOptions as Ros2NodeOptions
    from dorad.ros2.api import Ros2Publisher as Ros2Publisher
    from dorad.ros2.api import Ros2QosPolicies as Ros2QosPolicies
    from dorad.ros2.api import Ros2ServiceClient as Ros2ServiceClient
    from dorad.ros2.api import Ros2ServiceServer as Ros2ServiceServer
    from dorad.ros2.api import Ros2Subscription as Ros2Subscription
    from dorad.ros2.api import Ros2Topic as Ros2Topic
    from dorad.ros2.api import Ros2Transport as Ros2Transport


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


def __getattr__(name: str) -> Any:
    if name.startswith("Ros2"):
        from dorad.ros2 import api  # most nodes use none of its classes

        if hasattr(api, name):
            return getattr(api, name)
    raise AttributeError(f"module 'dora' has no attribute {name!r}")
