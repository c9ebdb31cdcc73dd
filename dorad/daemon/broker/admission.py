"""Which processes may attach as which node."""

import logging
import os
from enum import Enum
from typing import Protocol

from dorad.control.peer import Peer, has_ended
from dorad.daemon.broker.connection import Connection
from dorad.daemon.runmodel import RunServices
from dorad.dataflow.model import NodeSpec

_log = logging.getLogger(__name__)


class Verdict(Enum):
    """The decision about a process that says hello as a node."""

    ADMITTED = "admitted"
    UNKNOWN = "unknown"
    """A process of the node is being started; decide again when the start has finished."""
    FOREIGN = "foreign"


class Started(Protocol):
    """A process of a node, and its descendants."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""

    @property
    def uid(self) -> int:
        """The user it runs as."""

    def owns(self, pid: int) -> bool:
        """Return True if `pid` is this process or a descendant."""


class OwnUser:
    """Admits every process of the daemon's user and of root: the rule of `dora run`."""

    has_others = False

    def admits(self, peer: Peer) -> bool:
        """Return False: no other user's process may connect."""
        del peer
        return False

    def verdict(self, node: NodeSpec, connection: Connection) -> Verdict:
        """Return the decision about a process that says hello as `node`."""
        del node
        return _verdict(connection.peer.uid in (0, os.getuid()))


class Admission:
    """Admits to a node the processes that were started for it, and their descendants.

    A process from outside attaches as a dynamic node if its user may use the dataflow.
    """

    def __init__(self, services: RunServices) -> None:
        self.has_others = services.has_others
        self.admits = services.admits
        self._may_use = services.may_use
        self._starting: dict[str, int] = {}
        self._processes: dict[str, list[Started]] = {}

    def begin(self, node_id: str) -> None:
        """Record that a process of a node is being started."""
        self._starting[node_id] = self._starting.get(node_id, 0) + 1

    def end(self, node_id: str, process: Started | None) -> None:
        """Record that a start has finished; None means that it failed."""
        self._starting[node_id] -= 1
        if process is not None:
            self.add(node_id, process)

    def add(self, node_id: str, process: Started) -> None:
        """Record a process of a node."""
        running = [each for each in self._processes.get(node_id, ()) if not each.ended]
        self._processes[node_id] = [*running, process]

    def verdict(self, node: NodeSpec, connection: Connection) -> Verdict:
        """Return the decision about a process that says hello as `node`."""
        peer = connection.peer
        try:
            pidfd = connection.pidfd()
        except OSError as error:
            _log.debug("process %d has ended before it was checked: %s", peer.pid, error)
            return Verdict.FOREIGN
        try:
            decision = self._decide(node, peer)
            # Checked last: if the process still runs, its pid was not reused during the checks.
            if has_ended(pidfd) or not connection.is_original():
                decision = Verdict.FOREIGN
        finally:
            os.close(pidfd)
        _log.debug("process %d of user %d as %s: %s", peer.pid, peer.uid, node.id, decision.value)
        return decision

    def _decide(self, node: NodeSpec, peer: Peer) -> Verdict:
        if node.id.startswith("."):
            # An observer has a reserved connection, which needs no verdict.
            return Verdict.FOREIGN
        if node.is_dynamic:
            return _verdict(self._may_use(node, peer))
        for process in self._processes.get(node.id, ()):
            if peer.uid in (0, process.uid) and process.owns(peer.pid):
                return Verdict.ADMITTED
        return Verdict.UNKNOWN if self._starting.get(node.id) else Verdict.FOREIGN


def _verdict(admitted: bool) -> Verdict:
    return Verdict.ADMITTED if admitted else Verdict.FOREIGN
