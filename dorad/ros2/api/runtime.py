"""rclpy in the process of a node: whether it can be there, its context, its executor's thread."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dorad.ros2.arrowtypes import ConversionError
from dorad.ros2.counts import Count
from dorad.ros2.definitions import PREFIX_PATH, DefinitionError
from dorad.ros2.environment import DISTRIBUTIONS, Setup, SetupError, enter, use_profile
from dorad.ros2.lastsent import Settling, settle
from dorad.ros2.leftovers import remove_leftovers
from dorad.ros2.names import SIM_TIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger(__name__)

RMW = "RMW_IMPLEMENTATION"
ZENOH = "rmw_zenoh_cpp"
_END_TIMEOUT_S = 5.0
_OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


class Endpoint(Settling, Protocol):
    """A topic, service or action of a node."""

    def close(self) -> None:
        """Report the counts, and leave the graph."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise what goes wrong in rclpy or with a definition as a RuntimeError of one line."""
    try:
        yield
    except (ConversionError, DefinitionError, SetupError) as error:
        raise RuntimeError(str(error)) from None
    except (TypeError, AssertionError):
        raise
    except Exception as error:
        # rclpy has exceptions of its own for each kind of name, which are ValueErrors.
        raise RuntimeError(str(error).partition("\n")[0]) from error


def import_rclpy() -> Any:
    """Return rclpy. Raises RuntimeError with what is missing, and what helps."""
    try:
        import rclpy
    except ImportError as error:
        _log.debug("no rclpy", exc_info=error)
        raise RuntimeError(why_not(error, os.environ)) from None
    if not os.environ.get(PREFIX_PATH):
        # Wheels lie in a virtual environment, which nobody sources: prefix/lib/python3.X/….
        os.environ[PREFIX_PATH] = str(Path(rclpy.__file__).parents[4])
    return rclpy


def why_not(
    error: ImportError, environ: Mapping[str, str], distributions: Path = DISTRIBUTIONS
) -> str:
    """Return why rclpy cannot be imported into this process, and what helps."""
    if not environ.get(PREFIX_PATH):
        files = sorted(distributions.glob("*/setup.bash"))
        if files:
            return f"rclpy cannot be imported: `source {files[-1]}` before the dataflow starts"
        return (
            "rclpy cannot be imported: there is no ROS 2 on this machine:"
            " install one (apt install ros-jazzy-ros-base)"
        )
    try:
        version = enter(Setup(), environ).version
    except SetupError as problem:
        return f"rclpy cannot be imported: {problem}"
    if version != _OWN:
        return (
            f"rclpy is for Python {version}, and this node runs in {_OWN}:"
            f" run it with `path: python{version}` and its file in `args`"
        )
    reason = str(error).partition("\n")[0]
    return f"rclpy cannot be imported: {reason} (source the setup.bash of ROS 2 before)"


class Runtime:
    """A context of rclpy, and the thread whose executor serves its nodes until the process ends."""

    def __init__(self, domain_id: int | None, rmw: str | None) -> None:
        """Join a domain, None for that of the environment; `rmw` is the middleware, None for any.

        Raises:
            RuntimeError: rclpy cannot be imported, or has another middleware already.
        """
        rclpy = import_rclpy()
        if rmw is not None:
            os.environ[RMW] = rmw  # has an effect if rclpy has not loaded one yet
        use_profile(os.environ)
        remove_leftovers()
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from rclpy.task import Future

        self._rclpy = rclpy
        self.context = Context()
        with plain_errors():
            # SIGTERM and Ctrl-C end the process as they end any node.
            rclpy.init(
                args=[],
                context=self.context,
                domain_id=domain_id,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            loaded = rclpy.get_rmw_implementation_identifier()
        if rmw is not None and loaded != rmw:
            rclpy.shutdown(context=self.context)
            raise RuntimeError(f"this process uses {loaded} already, so it cannot use {rmw}")
        _log.debug("rclpy runs in this process, with %s", loaded)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._end = Future()
        self._failed = Count("requests or events of ROS 2 failed")
        self._endpoints: list[Endpoint] = []
        self._thread = threading.Thread(target=self._spin, name="rclpy", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def create_node(self, name: str, namespace: str, *, rosout: bool, sim_time: bool) -> Any:
        """Return a new node of rclpy, which the executor serves."""
        from rclpy.parameter import Parameter

        ros = self._rclpy.create_node(
            name,
            context=self.context,
            namespace=namespace,
            enable_rosout=rosout,
            parameter_overrides=[Parameter(SIM_TIME, value=sim_time)],
        )
        self._executor.add_node(ros)
        return ros

    def at_end(self, endpoint: Endpoint) -> None:
        """Let an endpoint settle and close it when the runtime ends."""
        self._endpoints.append(endpoint)

    def _spin(self) -> None:
        while not self._end.done():
            try:
                self._executor.spin_until_future_complete(self._end)
            except Exception as error:  # noqa: BLE001 - a malformed request must not end it
                self._failed.add(1, f"{error}".partition("\n")[0])

    def close(self) -> None:
        """Leave the domain once the peers have what was sent; nothing comes afterwards."""
        if self._end.done():
            return
        settle(self._endpoints, time.sleep)
        self._end.set_result(None)
        self._executor.wake()
        self._thread.join(_END_TIMEOUT_S)
        if self._thread.is_alive():
            _log.warning("the executor of rclpy does not end")
            return
        for each in self._endpoints:
            each.close()
        self._failed.close()
        nodes = self._executor.get_nodes()
        self._executor.shutdown()
        for node in nodes:
            node.destroy_node()
        self._rclpy.shutdown(context=self.context)
        remove_leftovers()
