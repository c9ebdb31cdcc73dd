"""Find the dataflow of a node: from its environment, by name, or a substitute such as a file."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from dorad.node.connection import DaemonConnection
from dorad.node.protocol import CONFIG
from dorad.node.welcome import DaemonAwayError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

TEST_INPUTS = "DORA_TEST_WITH_INPUTS"
WRITE_EVENTS = "DORA_WRITE_EVENTS_TO"

CONNECT_TIMEOUT_S = 30.0
"""How long a spawned node tries to reach its daemon, which may be restarting."""

_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 1.0


class Spawned(NamedTuple):
    """The daemon that started this node listens at `socket`."""

    node_id: str
    socket: str | os.PathLike[str]


class Connected(NamedTuple):
    """The process inherited a connection to its daemon, made for this node alone."""

    node_id: str
    descriptor: int


class Dynamic(NamedTuple):
    """The node was started by hand and looks for a dataflow that declares it."""

    node_id: str
    port: int


class FromFile(NamedTuple):
    """The node reads its inputs from a file; there is no dataflow."""

    inputs: Path


class OnTerminal(NamedTuple):
    """The user types the node's inputs at a terminal; there is no dataflow."""


def decide(
    node_id: str | None,
    daemon_port: int | None,
    environ: Mapping[str, str],
    *,
    terminal: bool = False,
) -> Spawned | Connected | Dynamic | FromFile | OnTerminal:
    """Return where the node's dataflow is, or what replaces it.

    `daemon_port` forces the search by name. Without it, the environment wins over a name. With
    `terminal`, the last resort is to ask the user for inputs.

    Raises:
        RuntimeError: no argument and no variable names a dataflow.
    """
    if daemon_port is not None:
        if node_id is None:
            raise RuntimeError("Node(daemon_port=...) needs a node_id too")
        return Dynamic(node_id, daemon_port)
    config = environ.get(CONFIG)
    if config:
        return _spawned(config)
    if node_id is not None:
        # Imported here because most nodes are spawned and never need it.
        from dorad.shm import rendezvous

        return Dynamic(node_id, rendezvous.port())
    inputs = environ.get(TEST_INPUTS)
    if inputs:
        from pathlib import Path

        return FromFile(Path(inputs))
    if terminal:
        return OnTerminal()
    raise RuntimeError(
        "this process is not part of a dataflow: start it with `dora run`, give Node() the id of a "
        f"node declared with `path: dynamic`, or set {TEST_INPUTS} to a file of test inputs"
    )


def connected(node_id: str, descriptor: int) -> str:
    """Return the value of DORA_NODE_CONFIG for a process that is `Connected`."""
    return json.dumps({"node_id": node_id, "daemon_descriptor": descriptor})


def _spawned(config: str) -> Spawned | Connected:
    try:
        content = json.loads(config)
        node_id = content["node_id"]
        descriptor = content.get("daemon_descriptor")
        if isinstance(node_id, str) and isinstance(descriptor, int):
            return Connected(node_id, descriptor)
        path = content["daemon_socket"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RuntimeError(f"{CONFIG} is not a valid node configuration: {error}") from error
    if not isinstance(node_id, str) or not isinstance(path, str):
        raise RuntimeError(
            f"{CONFIG} is not a valid node configuration: its values must be strings"
        )
    return Spawned(node_id, path)


def connect(place: Spawned | Connected | Dynamic) -> DaemonConnection:
    """Connect the node to its dataflow.

    Raises:
        RuntimeError: no running dataflow declares this node, or several do.
    """
    _log.debug("connecting: %s", place)
    if isinstance(place, Spawned):
        return _reach(place, time.monotonic() + CONNECT_TIMEOUT_S)
    if isinstance(place, Connected):
        return DaemonConnection(
            socket.socket(fileno=place.descriptor), place.node_id, dynamic=False
        )
    from dorad.shm import rendezvous

    connections: list[DaemonConnection] = []
    refusals: list[str] = []
    try:
        paths = rendezvous.sockets(place.port)
        looked = " and ".join(map(str, rendezvous.folders()))
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no daemon can be searched for: {error}") from error
    for path in paths:
        try:
            connections.append(DaemonConnection(path, place.node_id, dynamic=True))
        except RuntimeError as error:
            refusals.append(str(error))
    if len(connections) == 1:
        return connections[0]
    for connection in connections:
        connection.done()
    if connections:
        raise RuntimeError(f"{len(connections)} running dataflows have a node {place.node_id!r}")
    if refusals:
        raise RuntimeError("; ".join(refusals))
    raise RuntimeError(
        f"no daemon is running on port {place.port} (looked in {looked}); "
        "start the dataflow first, with `dora run`"
    )


def _reach(place: Spawned, deadline: float) -> DaemonConnection:
    """Connect to the daemon that spawned this process, or to its successor.

    Raises:
        RuntimeError: no daemon answers before the deadline, or it refuses the node.
    """
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return DaemonConnection(place.socket, place.node_id, dynamic=False)
        except DaemonAwayError as error:
            _log.debug("no daemon yet, next attempt in %g s: %s", pause, error)
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE_S)
