"""Which processes may attach as which node."""

from __future__ import annotations

import logging
import os
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from dorad.control.peer import has_ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.control.peer import Peer
    from dorad.daemon.broker.connection import Connection
    from dorad.dataflow.model import NodeSpec

_log = logging.getLogger(__name__)


class Verdict(Enum):
    """What becomes of a process that says it is a node."""

    ADMITTED = "admitted"
    UNKNOWN = "unknown"
    """A process of the node is being started; whether it is that one is known when it has been."""
    FOREIGN = "foreign"


class Started(Protocol):
    """A process of a node, and what it has started."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""

    @property
    def uid(self) -> int:
        """The user it runs as."""

    def owns(self, pid: int) -> bool:
        """Tell whether process `pid` is it, or part of what it has started."""


class OwnUser:
    """Admits every process of the daemon's user and of root: all there is without a daemon."""

    def verdict(self, node: NodeSpec, connection: Connection) -> Verdict:
        """Return what becomes of a process that says it is `node`."""
        del node
        own = connection.peer.uid in (0, os.getuid())
        return Verdict.ADMITTED if own else Verdict.FOREIGN


class Admission:
    """Admits to a node the processes that were started for it, and what those have started.

    A dynamic node is attached to from outside: by the user that may use the dataflow.
    """

    def __init__(self, may_use: Callable[[NodeSpec, Peer], bool]) -> None:
        """`may_use` tells whether a process may attach as a dynamic node."""
        self.on_started: Callable[[str], None] = lambda _node: None
        """Called with a node's id when a start that was begun has come to its end."""
        self._may_use = may_use
        self._starting: dict[str, int] = {}
        self._processes: dict[str, list[Started]] = {}

    def begin(self, node_id: str) -> None:
        """Take note that a process is being started for a node."""
        self._starting[node_id] = self._starting.get(node_id, 0) + 1

    def end(self, node_id: str, process: Started | None) -> None:
        """Take note that it has been, or that it could not be."""
        self._starting[node_id] -= 1
        if process is not None:
            self.add(node_id, process)
        self.on_started(node_id)

    def add(self, node_id: str, process: Started) -> None:
        """Take note of a node's process."""
        living = [each for each in self._processes.get(node_id, ()) if not each.ended]
        self._processes[node_id] = [*living, process]

    def verdict(self, node: NodeSpec, connection: Connection) -> Verdict:
        """Return what becomes of a process that says it is `node`."""
        peer = connection.peer
        try:
            pidfd = connection.pidfd()
        except OSError as error:
            _log.debug("process %d has ended before it was looked at: %s", peer.pid, error)
            return Verdict.FOREIGN
        try:
            found = self._look(node, peer)
            # Looked at after everything else, so what was looked at is what connected.
            if has_ended(pidfd) or not connection.is_original():
                found = Verdict.FOREIGN
        finally:
            os.close(pidfd)
        _log.debug("process %d of user %d as %s: %s", peer.pid, peer.uid, node.id, found.value)
        return found

    def _look(self, node: NodeSpec, peer: Peer) -> Verdict:
        if node.id.startswith("."):
            # An observer has a connection of its own, which needs no verdict.
            return Verdict.FOREIGN
        if node.is_dynamic:
            return _verdict(self._may_use(node, peer))
        for process in self._processes.get(node.id, ()):
            if peer.uid in (0, process.uid) and process.owns(peer.pid):
                return Verdict.ADMITTED
        return Verdict.UNKNOWN if self._starting.get(node.id) else Verdict.FOREIGN


def _verdict(admitted: bool) -> Verdict:
    return Verdict.ADMITTED if admitted else Verdict.FOREIGN
