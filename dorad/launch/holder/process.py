"""The program of a process holder: it starts, signals and reaps the processes of its client.

A private holder (of `dora run`) has one client, over a socket pair. When that connection ends,
because the client closed it or died, it kills every descendant and ends.

A shared holder (of a daemon) has a listening socket, and one client after the other. It also keeps
duplicates of the daemon's descriptors under names, and the exits of processes until the daemon has
stored them. When a daemon's connection ends, it keeps everything and waits for the next daemon,
without a time limit.
It ends on request, and every node with it. If it is killed, the kernel kills the nodes.

Both run in their own session, so that a terminal's Ctrl-C reaches neither them nor the nodes.

Few imports, because no node starts before they are done: no json, no asyncio, no subprocess.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket

from dorad.launch.holder import wire
from dorad.launch.holder.children import Child, Children
from dorad.launch.holder.execute import IGNORED
from dorad.launch.prctl import set_subreaper
from dorad.launch.transport import SendQueue, close_all
from dorad.procinfo import peer_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_FINAL_SEND_SECONDS = 5.0
_RESERVED_FDS = 64
"""Descriptors that are not used to hold others, so that a daemon can always connect and spawn."""


def serve_client(fd: int) -> None:
    """Run a private holder for the client at the other end of the SOCK_SEQPACKET socket `fd`."""
    os.set_inheritable(fd, False)
    holder = ProcessHolder()
    holder.connect(socket.socket(fileno=fd))
    holder.serve()
    os._exit(0)  # the client waits, and has nothing to gain from an orderly end of the interpreter


def serve_daemons(fd: int, path: str) -> None:
    """Run a shared holder for daemons that connect to the listening socket `fd` at `path`.

    Returns at once in the process that was started. The holder is its child, and becomes a child
    of init when that process exits.
    """
    if os.fork():
        return
    os.set_inheritable(fd, False)
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with socket.socket(fileno=fd) as listener:
        listener.listen(16)  # again, so that SO_PEERCRED reports this process
        listener.setblocking(False)
        ProcessHolder(listener, path, limit - _RESERVED_FDS).serve()


class ProcessHolder:
    """Serves its client until `end` is requested, or the client of a private holder hangs up.

    Never blocks on the client: while packets to it are queued, it reads no requests.
    """

    def __init__(
        self, listener: socket.socket | None = None, path: str = "", max_kept: int = 0
    ) -> None:
        """Make a private holder or, with a listening socket at `path`, a shared one.

        A shared one keeps at most `max_kept` descriptors.
        """
        set_subreaper(True)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._listener = listener
        self._path = path
        self._max_kept = max_kept
        self._ending = False
        self._children = Children(self._on_exit)
        self._kept: dict[bytes, list[int]] = {}
        self._exited: list[tuple[Child, int]] = []
        """Children that have ended, with wait status, until the daemon forgets them."""
        self._client: socket.socket | None = None
        self._client_pid = 0
        self._outgoing: SendQueue | None = None
        self._poll = select.poll()

    def connect(self, client: socket.socket) -> None:
        """Serve `client` from now on."""
        client.setblocking(False)
        self._client = client
        # Kept descriptors stay open while they are queued; there may be none left to duplicate.
        self._outgoing = SendQueue(
            client,
            lambda begins: self._poll.modify(client, select.POLLOUT if begins else select.POLLIN),
            duplicates=False,
        )
        self._poll.register(client, select.POLLIN)

    def serve(self) -> None:
        """Work until the end; then kill every descendant, and report their exits."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._poll.register(wake_read, select.POLLIN)
        if self._listener is not None:
            self._poll.register(self._listener, select.POLLIN)
        try:
            while not self._ending:
                ready = {fd for fd, _ in self._poll.poll()}
                if wake_read in ready:
                    os.read(wake_read, 4096)
                    self._children.reap()
                if self._client is not None and self._client.fileno() in ready:
                    self._on_ready(self._client)
                if self._listener is not None and self._listener.fileno() in ready:
                    self._accept(self._listener)
        finally:
            self._children.end()
            if self._path:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)  # noqa: PTH108 - pathlib is slow to import
            self._close_client()

    def _accept(self, listener: socket.socket) -> None:
        try:
            visitor, _ = listener.accept()
        except OSError:
            # It has disconnected, or no descriptor is left; in that case accept is tried again.
            return
        pid, uid, _ = peer_credentials(visitor)
        if uid not in (os.getuid(), 0):
            visitor.close()
            return
        # Carry out the last requests of a dead daemon before the next one gets the list.
        self._drain()
        if self._client is not None:
            visitor.setblocking(False)
            try:
                visitor.send(b"busy %d" % self._client_pid)
            except ConnectionError:
                return
            finally:
                visitor.close()
            return
        self._client_pid = pid
        self.connect(visitor)
        self._greet()

    def _greet(self) -> None:
        """Send everything that is held to a new daemon."""
        self._send(b"hello", wire.VERSION, os.getpid())
        for name, fds in self._kept.items():
            self._send(b"entry", name, fds=fds)
        for child in self._children.running.values():
            self._send(b"process", child.pid, child.started, b"-", child.tag)
        for child, status in self._exited:
            self._send(b"process", child.pid, child.started, status, child.tag)
        self._send(b"ready")

    def _drain(self) -> None:
        """Handle all requests that have arrived, up to the end of the connection."""
        while self._client is not None and not self._ending:
            poll = select.poll()
            poll.register(self._client, select.POLLIN)
            if not poll.poll(0):
                return
            self._on_ready(self._client)
            if self._outgoing is not None and self._outgoing.has_backlog:
                return

    def _send(self, *words: bytes | int, fds: Sequence[int] = ()) -> None:
        """Send the client a packet, now or as soon as it has read earlier ones."""
        if self._outgoing is None:
            return
        packet = b" ".join(b"%d" % w if isinstance(w, int) else w for w in words)
        # A client that has died gets nothing more, but its last requests are still read.
        with contextlib.suppress(ConnectionError):
            self._outgoing.send(packet, fds)

    def _on_ready(self, client: socket.socket) -> None:
        if self._outgoing is not None and self._outgoing.has_backlog:
            try:
                self._outgoing.flush()
            except ConnectionError:
                self._outgoing.clear()
        else:
            self._receive(client)

    def _receive(self, client: socket.socket) -> None:
        try:
            packet, fds = wire.receive(client)
        except (BlockingIOError, ConnectionResetError):
            # Reset: the client died without reading everything; its last requests come next.
            return
        if not packet:
            self._on_hangup()
            return
        try:
            keeps = self._handle(packet.split(), fds)
        except ValueError:
            # This is not one of dora's clients. No packet may harm the nodes.
            keeps = False
        if not keeps:
            close_all(fds)

    def _on_hangup(self) -> None:
        if self._listener is None:
            self._ending = True
        elif self._client is not None:
            self._poll.unregister(self._client)
            self._client.close()
            self._client = self._outgoing = None

    def _handle(self, words: list[bytes], fds: list[int]) -> bool:
        """Handle a request; return True if it keeps `fds`. Raises ValueError for nonsense."""
        match words:
            case [b"spawn", number, tag]:
                self._spawn(number, tag, fds)
            case [b"signal", pid, number]:
                self._children.signal(int(pid), signal.Signals(int(number)))
            case [b"store", name, count]:
                return self._store(name, int(count), fds)
            case [b"drop", name]:
                self._drop(name)
            case [b"forget", pid]:
                self._forget(int(pid))
            case [b"end"]:
                self._ending = True
            case _:
                raise ValueError(words)
        return False

    def _spawn(self, number: bytes, tag: bytes, fds: list[int]) -> None:
        try:
            child = self._children.start(tag, fds)
        except wire.SpawnFailedError as failure:
            self._send(b"failed", number, failure.stage.encode(), failure.number)
            return
        skipped = wire.join_numbers(child.skipped)
        self._send(b"spawned", number, child.pid, child.started, skipped, child.refused)

    def _store(self, name: bytes, count: int, fds: list[int]) -> bool:
        self._drop(name)
        room = self._max_kept - sum(map(len, self._kept.values()))
        if 0 < len(fds) == count <= room:
            self._kept[name] = fds
            return True
        self._send(b"refused", name)
        return False

    def _drop(self, name: bytes) -> None:
        close_all(self._kept.pop(name, ()))

    def _forget(self, pid: int) -> None:
        for index, (child, _) in enumerate(self._exited):
            if child.pid == pid:
                del self._exited[index]
                return
        if pid in self._children.running:
            self._children.running[pid].forgotten = True

    def _on_exit(self, child: Child, status: int) -> None:
        if self._listener is not None and not child.forgotten:
            self._exited.append((child, status))
        self._send(b"exited", child.pid, status)

    def _close_client(self) -> None:
        """Give the client some time to read queued packets, then close its socket."""
        if self._client is None or self._outgoing is None:
            return
        self._client.settimeout(_FINAL_SEND_SECONDS)
        try:
            self._outgoing.flush()
        except OSError:
            # The client has died or hangs. All processes have ended anyway.
            return
        finally:
            self._client.close()
