"""The keeper process: what has to outlive a killed daemon lives on in it.

It is the parent of all nodes of a daemon, keeps duplicates of the daemon's descriptors under
names, and remembers how nodes ended until the daemon has written it down. When the daemon's
connection ends, it keeps everything and waits for the next daemon, for as long as it takes. It ends
when it is told to, and every node with it; by that death the kernel ends the nodes, too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket

from dorad.launch import wire
from dorad.launch.parent import Child, Parent
from dorad.procinfo import peer_credentials

_SPARE_FDS = 64
"""Never used for keeping, so that a daemon can always connect and start something."""


def main(fd: int, path: str) -> None:
    """Serve daemons that connect to the listening socket `fd`, which lies at `path`.

    Returns at once in the process that was started; its child is the keeper, so that it belongs to
    nobody.
    """
    if os.fork():
        return
    os.set_inheritable(fd, False)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.socket(fileno=fd) as listener:
        listener.listen(16)  # again, for daemons to see this process as the one that listens
        listener.setblocking(False)
        _Keeper(listener, path, most - _SPARE_FDS).serve(listener)


class _Keeper(Parent):
    def __init__(self, listener: socket.socket, path: str, most: int) -> None:
        super().__init__()
        self._most = most
        self._listener = listener
        self._path = path
        self._peer_pid = 0
        self._kept: dict[bytes, list[int]] = {}
        self._ended_children: list[tuple[Child, int]] = []
        """With their wait status; the daemon may not have written them down yet."""

    def visit(self) -> None:
        try:
            visitor, _ = self._listener.accept()
        except OSError:
            # It is gone again, or the whole machine has no descriptor left; then it is asked again.
            return
        pid, uid, _ = peer_credentials(visitor)
        if uid not in (os.getuid(), 0):
            visitor.close()
            return
        # What a dead daemon asked for last is done before the next one is told what there is.
        self.drain()
        if self.peer is not None:
            visitor.setblocking(False)
            try:
                visitor.send(b"busy %d" % self._peer_pid)
            except ConnectionError:
                return
            finally:
                visitor.close()
            return
        self._peer_pid = pid
        self.join(visitor)
        self._hand_over()

    def _hand_over(self) -> None:
        self.tell(b"hello", wire.VERSION, os.getpid())
        for name, fds in self._kept.items():
            self.tell(b"entry", name, fds=fds)
        for child in self.running.values():
            self.tell(b"process", child.pid, child.started, b"-", child.tag)
        for child, status in self._ended_children:
            self.tell(b"process", child.pid, child.started, status, child.tag)
        self.tell(b"ready")

    def hung_up(self) -> None:
        self.part()

    def record(self, child: Child, status: int) -> None:
        if not child.forgotten:
            self._ended_children.append((child, status))

    def emptied(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - pathlib is slow to import

    def request(self, words: list[bytes], fds: list[int]) -> bool:
        match words:
            case [b"store", name, count]:
                self._drop(name)
                room = self._most - sum(map(len, self._kept.values()))
                if 0 < len(fds) == int(count) <= room:
                    self._kept[name] = fds
                    return True
                self.tell(b"refused", name)
            case [b"drop", name]:
                self._drop(name)
            case [b"forget", pid]:
                self._forget(int(pid))
            case [b"end"]:
                self.over = True
            case _:
                raise ValueError(words)
        return False

    def _drop(self, name: bytes) -> None:
        for fd in self._kept.pop(name, ()):
            os.close(fd)

    def _forget(self, pid: int) -> None:
        for index, (child, _) in enumerate(self._ended_children):
            if child.pid == pid:
                del self._ended_children[index]
                return
        if pid in self.running:
            self.running[pid].forgotten = True
