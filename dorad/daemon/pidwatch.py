"""Watches processes that are not children of the daemon, by pidfd."""

import asyncio
import logging
import os
from collections.abc import Callable

_log = logging.getLogger(__name__)


class PidWatch:
    """Calls `on_exit(pid, node_id)` when a watched process exits. Belongs to one event loop."""

    def __init__(self, on_exit: Callable[[int, str], None]) -> None:
        self._on_exit = on_exit
        self._watched: dict[int, tuple[int, str]] = {}
        """Pidfd to pid and node."""

    def __contains__(self, node_id: str) -> bool:
        """Return True while a watched process of this node is alive."""
        return any(node == node_id for _, node in self._watched.values())

    def add(self, pid: int, node_id: str) -> None:
        """Watch a process of a node. If it has exited already, `on_exit` is called soon."""
        if (pid, node_id) in self._watched.values():
            return
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            _log.debug("process %d of node %s has exited already", pid, node_id)
            loop.call_soon(self._on_exit, pid, node_id)
            return
        self._watched[pidfd] = (pid, node_id)
        loop.add_reader(pidfd, self._exited, pidfd)

    def _exited(self, pidfd: int) -> None:
        pid, node_id = self._watched[pidfd]
        _log.debug("process %d of node %s has exited", pid, node_id)
        self._forget(pidfd)
        self._on_exit(pid, node_id)

    def _forget(self, pidfd: int) -> None:
        del self._watched[pidfd]
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)

    def close(self) -> None:
        """Stop watching all processes."""
        for pidfd in list(self._watched):
            self._forget(pidfd)
