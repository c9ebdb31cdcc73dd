"""`Ros2Context`: the beginning of dora's classes for ROS 2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dorad.ros2.api.node import Ros2Node, Ros2NodeOptions
from dorad.ros2.api.runtime import ZENOH, Runtime
from dorad.ros2.definitions import Definitions

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DOMAIN = 232
"""Ports of a higher domain would be above 65535."""
_COMPATIBILITY = ("humble", "rep2016")
_CONFIG = "ZENOH_SESSION_CONFIG_URI"


class Ros2Transport:
    """The middleware of a context, from `dds()` or `zenoh(…)`."""

    def __init__(self, kind: str, config_uri: str | None = None) -> None:
        self.kind = kind
        self.config_uri = config_uri

    @staticmethod
    def dds() -> Ros2Transport:
        """Return the middleware that ROS 2 is set up with."""
        return Ros2Transport("dds")

    @staticmethod
    def zenoh(
        compatibility: str, config_uri: str | os.PathLike[str] | None = None
    ) -> Ros2Transport:
        """Return the installed rmw_zenoh, with the file `config_uri` as its configuration.

        `compatibility` is checked, but has no effect: the protocol is that of the installation.

        Raises:
            ValueError: `compatibility` is neither humble nor rep2016, or `config_uri` is empty.
        """
        if compatibility not in _COMPATIBILITY:
            raise ValueError("compatibility must be `humble` or `rep2016`")
        uri = None if config_uri is None else os.fspath(config_uri)
        if uri == "":
            raise ValueError("config_uri must not be empty")
        return Ros2Transport("zenoh", uri)


class Ros2Context:
    """Access to ROS 2 from the process of a node, through rclpy.

    `ros_paths` are the prefixes of the packages with the message definitions, by default those of
    AMENT_PREFIX_PATH. The domain is `domain_id`, else that of ROS_DOMAIN_ID, else 0.

    Raises:
        RuntimeError: rclpy cannot be imported here, or the domain is invalid.
        TypeError: an argument has another type.
    """

    def __init__(
        self,
        ros_paths: Sequence[str | os.PathLike[str]] | None = None,
        transport: Ros2Transport | None = None,
        domain_id: int | None = None,
    ) -> None:
        if isinstance(ros_paths, str):
            raise TypeError("ros_paths must be a list of paths, got str")
        if transport is not None and not isinstance(transport, Ros2Transport):
            raise TypeError(f"transport must be a Ros2Transport, got {type(transport).__name__}")
        self._transport = transport or Ros2Transport.dds()
        if self._transport.config_uri is not None:
            os.environ[_CONFIG] = self._transport.config_uri
        is_zenoh = self._transport.kind == "zenoh"
        self._runtime = Runtime(_domain(domain_id), ZENOH if is_zenoh else None)
        if ros_paths is None:
            self._definitions = Definitions.of(os.environ)
        else:
            self._definitions = Definitions([Path(each) for each in ros_paths])

    @property
    def transport_kind(self) -> str:
        """`dds` or `zenoh`."""
        return self._transport.kind

    def new_node(
        self,
        name: str,
        namespace: str,
        options: Ros2NodeOptions,
        parameters: dict[str, Any] | None = None,
    ) -> Ros2Node:
        """Create a node of ROS 2, with its parameters and their first values.

        Raises:
            RuntimeError: a name is invalid, or a parameter; see `Ros2Node.set_parameter`.
            TypeError: an argument has another type.
        """
        return Ros2Node(self._runtime, self._definitions, name, namespace, options, parameters)


def _domain(given: int | None) -> int | None:
    """Return the domain, None for that of the environment. Raises RuntimeError."""
    text = str(given) if given is not None else os.environ.get("ROS_DOMAIN_ID", "").strip()
    if not text:
        return given
    name = "domain_id" if given is not None else "ROS_DOMAIN_ID"
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_DOMAIN:
        raise RuntimeError(f"{name} is {text!r}: it is a number from 0 to {MAX_DOMAIN}")
    return int(text)
