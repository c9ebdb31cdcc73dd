"""The parent of all nodes: what the guard and the keeper have in common.

It starts processes, signals them and reaps what ends, for a peer at the other end of a
SOCK_SEQPACKET socket (see `wire`). The guard has one peer and ends with it; the keeper has one
peer after the other and keeps the processes in between.

Few imports, because no node starts before they are done: no json, no asyncio, no subprocess.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections import deque

from dorad.launch import wire
from dorad.launch.descendants import end_descendants
from dorad.launch.execute import IGNORED, Pinned, execute
from dorad.launch.prctl import set_subreaper
from dorad.procinfo import start_time
from dorad.realtime.schedule import Schedule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LAST_WORDS_SECONDS = 5.0


class Child:
    """A process that was asked for; other children are adopted orphans."""

    __slots__ = ("forgotten", "pid", "started", "tag")

    def __init__(self, pid: int, started: int, tag: bytes) -> None:
        self.pid = pid
        self.started = started
        self.tag = tag
        self.forgotten = False
        """Nobody wants to know how it ends."""


class Parent:
    """Serves its peer until `over`. Never blocks on it: what it does not read is queued, and no
    more is done for it until it does."""

    def __init__(self) -> None:
        set_subreaper(True)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self.over = False
        self.running: dict[int, Child] = {}
        self.peer: socket.socket | None = None
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._poll = select.poll()

    # What guard and keeper do each in its own way.

    def hung_up(self) -> None:
        """Do what is due when the peer has ended its connection."""
        raise NotImplementedError

    def request(self, words: list[bytes], fds: list[int]) -> bool:
        """Do what is asked for besides starting and signalling; tell whether `fds` are kept."""
        raise ValueError(words)

    def visit(self) -> None:
        """Accept a connection on the listening socket, if there is one."""

    def record(self, child: Child, status: int) -> None:
        """Take note of a child's end before the peer is told."""

    def emptied(self) -> None:
        """Do what is due at the very end, before the peer learns of it."""

    # What they share.

    def join(self, peer: socket.socket) -> None:
        """Serve `peer` from now on."""
        peer.setblocking(False)
        self.peer = peer
        self._poll.register(peer, select.POLLIN)

    def part(self) -> None:
        """Serve this peer no more; what it was not told yet, it will never be."""
        if self.peer is not None:
            self._poll.unregister(self.peer)
            self.peer.close()
            self.peer = None
            self._outgoing.clear()

    def serve(self, listener: socket.socket | None = None) -> None:
        """Work until `over`; then end every descendant, and tell the peer how they ended."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._poll.register(wake_read, select.POLLIN)
        if listener is not None:
            self._poll.register(listener, select.POLLIN)
        try:
            while not self.over:
                ready = {fd for fd, _ in self._poll.poll()}
                if wake_read in ready:
                    os.read(wake_read, 4096)
                    self._reap()
                if self.peer is not None and self.peer.fileno() in ready:
                    self._attend(self.peer)
                if listener is not None and listener.fileno() in ready:
                    self.visit()
        finally:
            end_descendants(self._ended)
            self.emptied()
            self._say_the_rest()

    def drain(self) -> None:
        """Do at once all that the peer has asked for already, up to the end of its connection."""
        while self.peer is not None and not self.over:
            poll = select.poll()
            poll.register(self.peer, select.POLLIN)
            if not poll.poll(0):
                return
            self._attend(self.peer)
            if self._outgoing:
                return

    def tell(self, *words: bytes | int, fds: Sequence[int] = ()) -> None:
        """Send the peer a packet, now or as soon as it has read what was sent before.

        The descriptors have to stay open until then.
        """
        if self.peer is None:
            return
        self._outgoing.append(
            (b" ".join(b"%d" % w if isinstance(w, int) else w for w in words), fds)
        )
        if len(self._outgoing) == 1:
            self._flush(self.peer)

    def _attend(self, peer: socket.socket) -> None:
        if self._outgoing:
            self._flush(peer)
        else:
            self._receive(peer)

    def _flush(self, peer: socket.socket) -> None:
        while self._outgoing:
            packet, fds = self._outgoing[0]
            try:
                socket.send_fds(peer, [packet], fds)
            except ConnectionError:
                # Nobody is left to tell; but what it asked for before it went is still read.
                self._outgoing.clear()
                break
            except OSError as error:
                if error.errno not in wire.LATER:
                    raise
                self._poll.modify(peer, select.POLLOUT)
                return
            self._outgoing.popleft()
        self._poll.modify(peer, select.POLLIN)

    def _receive(self, peer: socket.socket) -> None:
        try:
            packet, fds = wire.receive(peer)
        except (BlockingIOError, ConnectionResetError):
            # Reset: the peer ended without having read all; its own last packets come after this.
            return
        if not packet:
            self.hung_up()
            return
        try:
            keeps = self._do(packet.split(), fds)
        except ValueError:
            # Not from a daemon of ours: nothing it may say must harm the nodes.
            keeps = False
        if not keeps:
            for fd in fds:
                os.close(fd)

    def _do(self, words: list[bytes], fds: list[int]) -> bool:
        """Do what is asked; whether the descriptors are kept. ValueError: it is nonsense."""
        match words:
            case [b"spawn", number, tag]:
                self._spawn(number, tag, fds)
            case [b"signal", pid, number]:
                self._signal(int(pid), signal.Signals(int(number)))
            case _:
                return self.request(words, fds)
        return False

    def _spawn(self, number: bytes, tag: bytes, fds: list[int]) -> None:
        stage = wire.STAGE_EXECUTE
        try:
            if len(fds) != 3:  # the kernel had none left to give
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            command, stdout, stderr = fds
            data = os.pread(command, os.fstat(command).st_size, 0)
            argv, cwd, env, cores, schedule = wire.unpack_command(data)
            stage = wire.STAGE_FOLDER
            # Nothing else runs here, so the folder and cores to inherit may be our own.
            os.chdir(cwd)
            stage = wire.STAGE_EXECUTE
            with Pinned(cores) as pinned:
                wanted = Schedule(*schedule) if schedule else None
                pid, refused = execute(argv, env, stdout, stderr, wanted)
        except OSError as error:
            self.tell(b"failed", number, stage.encode(), error.errno or 0)
            return
        finally:
            os.chdir("/")
        # Not reaped yet, so it is in /proc even if it has ended.
        started = start_time(pid) or 0
        self.running[pid] = Child(pid, started, tag)
        self.tell(b"spawned", number, pid, started, wire.join_numbers(pinned.skipped), refused)

    def _signal(self, pid: int, number: int) -> None:
        # Only what is not reaped yet is running: its number cannot belong to anything else.
        if pid in self.running:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # it has joined another group
                os.kill(pid, number)
            except PermissionError:
                # All of the group runs as another user now; nothing here can end it.
                return

    def _reap(self) -> None:
        """Collect every child that has ended; what is left of a node's group ends with it."""
        options = os.WEXITED | os.WNOHANG
        while True:
            try:
                # Looked at first and reaped after the kill: until then the group keeps its number.
                ended = os.waitid(os.P_ALL, 0, options | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._signal(ended.si_pid, signal.SIGKILL)
            self._ended(*os.waitpid(ended.si_pid, 0))

    def _ended(self, pid: int, status: int) -> None:
        child = self.running.pop(pid, None)
        if child is not None:
            self.record(child, status)
            self.tell(b"exited", pid, status)

    def _say_the_rest(self) -> None:
        """Give the peer some time to read what it was not told yet, then close its socket."""
        if self.peer is not None:
            self.peer.settimeout(_LAST_WORDS_SECONDS)
            try:
                for packet, fds in self._outgoing:
                    socket.send_fds(self.peer, [packet], fds)
            except OSError:
                # It is gone or hangs; everything has ended, and that it can find out by itself.
                return
            finally:
                self.peer.close()
