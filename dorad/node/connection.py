"""A node's connection to its daemon: what it is told, and what it asks.

It outlives the daemon: if somebody keeps the other end of the socket open, a daemon that is gone is
one that does not answer yet, and the next one says `adopted`.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from dorad.node import daemonevents, peers, protocol
from dorad.node.daemonevents import DaemonEvents
from dorad.node.params import Params
from dorad.node.payload import unpack
from dorad.node.peers import Peers
from dorad.shm import doorbell
from dorad.shm.layout import BOX_ASLEEP, BOX_MAGIC, BOX_MAIL, BOX_PULSE, BOX_SEEN, MAGIC
from dorad.shm.mapping import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.shm.ring import Peer

_log = logging.getLogger(__name__)

MAX_CONFIG = 1 << 26

SEGMENT_TIMEOUT_S = 5.0
"""How long to wait for the announcement of a segment that an entry names."""

LOOK_S = 0.1
"""Whoever waits for the daemon looks at its words, and shows that it does, at least this often."""

ANSWERS = frozenset({"grown", "full", "ext_done", "ext_refused"})


class DaemonAwayError(RuntimeError):
    """Nobody answers at the daemon's socket just now; somebody may soon."""


class DaemonConnection:
    """One attached node. Both the receiving and the sending side read its packets.

    `mail` is what BOX_MAIL said when last all was read. `packets` grows after what a packet says is
    in place, for a thread that waits while another one reads; `begun` grows before. `heard` is
    called after each packet.
    """

    def __init__(
        self, path: str | os.PathLike[str] | socket.socket, node_id: str, *, dynamic: bool
    ) -> None:
        """Connect, introduce the node and map its mailbox. `path` may be a connected socket.

        Raises:
            DaemonAwayError: nobody answers at `path`, or hangs up before the answer.
            RuntimeError: there is no daemon at `path`, or it refuses the node.
        """
        if isinstance(path, socket.socket):
            self._socket = path
        else:
            kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
            self._socket = socket.socket(socket.AF_UNIX, kind)
        self._lock = threading.RLock()
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self.mail = 0
        self.packets = 0
        self.begun = 0
        self.heard: Callable[[], None] | None = None
        self._peers = Peers()
        self.outlets = self._peers.outlets
        self.receivers = self._peers.receivers
        self.spaces = self._peers.spaces
        self.late = self._peers.late
        self.catch_up: Callable[[], bool] = lambda: True
        """Sends those of `late` what they lack; False if that has to be tried once more."""
        self._questions: dict[int, tuple[str, dict[str, Any], list[int]]] = {}
        self._answers: dict[int, protocol.Packet] = {}
        self._asked = 0
        self._draining = False
        self.lost = False
        self._segment_timeout_s = SEGMENT_TIMEOUT_S
        self.epoch_ns: int | None = None
        try:
            if not isinstance(path, socket.socket):
                self._socket.connect(os.fspath(path))
            hello = {"node": node_id, "dynamic": dynamic, "pid": os.getpid()}
            protocol.send(self._socket, "hello", hello | {"version": protocol.VERSION}, [])
            self._welcome()
        except OSError as error:
            self._socket.close()
            away = isinstance(error, ConnectionError)
            raise (DaemonAwayError if away else RuntimeError)(
                f"no daemon answers at {path} ({error.strerror}); is the dataflow still running?"
            ) from error
        except BaseException:
            self._socket.close()
            raise

    def _welcome(self) -> None:
        packet = self._receive()
        if packet is None:
            raise DaemonAwayError("the daemon closed the connection before it answered")
        if packet.kind == "refused":
            raise RuntimeError(packet.text("error"))
        if packet.kind != "welcome":
            raise RuntimeError(f"the daemon answered {packet.kind!r} where 'welcome' was due")
        memory, self.bell, self.space, config = packet.take(4)
        try:
            self.box = Mapping(memory)
            self.config: dict[str, Any] = json.loads(unpack(config, MAX_CONFIG))
        finally:
            os.close(memory)
            os.close(config)
        words = self.box.words
        if words[BOX_MAGIC] != MAGIC:
            raise RuntimeError("the daemon's mailbox is of another version; restart the daemon")
        words[BOX_SEEN] = 0
        self.watched = bool(self.config.get("watched"))
        self.params = Params(self.config.get("params", {}), self.refresh)
        self.daemon_events = DaemonEvents(self.config["inputs"], self.params)

    @property
    def descriptor(self) -> int:
        """The socket's descriptor: readable when the daemon has said something."""
        return self._socket.fileno()

    def has_mail(self) -> bool:
        """Tell, without a system call, whether the daemon has sent something new."""
        return bool(self.box.words[BOX_MAIL] != self.mail)

    def beat(self) -> None:
        """Show the daemon, if it watches the node, that it is in the API."""
        if self.watched:
            self.box.words[BOX_PULSE] += 1

    # -- what the daemon says ----------------------------------------------------------------

    def wait_for_start(self) -> int:
        """Say that the node can receive, and block until the barrier opens.

        Returns the dataflow's start on CLOCK_MONOTONIC, ns.

        Raises:
            RuntimeError: the dataflow could not start, or the daemon is gone.
        """
        with self._lock:
            self._tell("ready", {})
            while self.epoch_ns is None:
                if self.lost:
                    raise RuntimeError("the daemon went away before the dataflow started")
                self._wait(LOOK_S)
        self.beat()
        return self.epoch_ns

    def refresh(self) -> None:
        """Take in what the daemon has sent, if it has."""
        if self.has_mail():
            self.read_mail()

    def read_mail(self) -> None:
        """Take in everything the daemon has sent; never blocks.

        While another thread reads or waits for an answer, it is left to that one.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        if self._draining:
            # In a signal's handler: what it has interrupted takes in the rest.
            return
        self._draining = True
        try:
            self._take_all_in()
        finally:
            self._draining = False

    def _take_all_in(self) -> None:
        words = self.box.words
        # Noted first: what comes meanwhile is read now, or moves the word later.
        mail = words[BOX_MAIL]
        while not self.lost:
            try:
                packet = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            self._take_in(packet)
        self.mail = mail
        # Not the word of before: a packet may be read before its sender has counted it there.
        words[BOX_SEEN] = self.packets + 1  # and the welcome

    def _wait(self, seconds: float) -> None:
        """Take in what comes within `seconds`, once something has come. The caller has the lock."""
        self._readable.poll(seconds * 1000)
        self._drain()

    def _receive(self, flags: int = 0) -> protocol.Packet | None:
        """Return the next packet, or None when the daemon is gone."""
        try:
            return protocol.receive_any(self._socket, flags)
        except ConnectionResetError:
            # It hung up before it had read all that this node said.
            return None

    def _take_in(self, packet: protocol.Packet | None) -> None:
        self.begun += 1
        if packet is None:
            self.lost = True
            self.daemon_events.lose_daemon()
        else:
            self._dispatch(packet)
        self.packets += 1
        if self.box.words[BOX_ASLEEP]:
            # Another thread of this node sleeps, and the socket is empty before it has looked.
            doorbell.ring(self.bell)
        if self.heard is not None:
            self.heard()

    def _dispatch(self, packet: protocol.Packet) -> None:
        kind = packet.kind
        if kind in daemonevents.KINDS:
            self.daemon_events.take_in(packet)
        elif kind in peers.KINDS:
            self._peers.take_in(packet)
        elif kind in ANSWERS:
            self._take_answer(packet)
        elif kind == "start":
            self.epoch_ns = packet.number("epoch_ns")
        elif kind == "adopted":
            self._ask_again()
        elif kind == "refused":
            raise RuntimeError(packet.text("error"))
        elif kind == "ping":
            # Whoever waits looks around. A receiver is woken below; this is for a sender.
            doorbell.ring(self.space)
        else:
            packet.close()
            raise RuntimeError(f"the daemon sent the unknown packet {kind!r}")

    def peer(self, node_id: str) -> Peer | None:
        """Return the mailbox of a node that this one sends to, if it was introduced."""
        return self._peers.peer(node_id)

    def segment(self, number: int) -> Mapping | None:
        """Return a mapped segment; None if it was never announced, or its owner has given it back.

        The daemon announces a segment before its owner can use it, so there is hardly ever a wait.
        After one in vain there are no more, or made-up numbers would stop the node.
        """
        segments = self._peers.segments
        mapping = segments.get(number)
        if mapping is not None:
            return mapping
        self.read_mail()
        deadline = time.monotonic() + self._segment_timeout_s
        while number not in segments and number not in self._peers.retired:
            left = deadline - time.monotonic()
            if self.lost or left <= 0:
                _log.debug("segment %d was never announced", number)
                self._segment_timeout_s = 0.0
                return None
            # Another thread that waits for an answer takes everything in.
            if self._lock.acquire(timeout=min(left, LOOK_S)):
                try:
                    self._wait(min(left, LOOK_S))
                finally:
                    self._lock.release()
        self._segment_timeout_s = SEGMENT_TIMEOUT_S
        return segments.get(number)

    # -- what the node says ------------------------------------------------------------------

    def grow(self, size: int) -> tuple[int, Mapping]:
        """Ask for a new segment that all subscribers know.

        Raises:
            OSError: /dev/shm is full (the text says how much was asked and free), or the daemon
                is gone.
        """
        answer = self.ask("grow", {"size": size})
        if answer.kind == "full":
            raise OSError(answer.text("error"))
        (memory,) = answer.take(1)
        mapping = Mapping(memory)
        os.close(memory)
        return answer.number("segment"), mapping

    def ask(self, kind: str, fields: dict[str, Any], fds: Sequence[int] = ()) -> protocol.Packet:
        """Send a packet that is answered, and return the answer, however long that takes.

        The descriptors must stay open until then: another daemon may have to be asked again.

        Raises:
            OSError: the daemon is gone.
            ProtocolError: the packet would be too large.
        """
        with self._lock:
            if self._draining:
                raise OSError(
                    "this was called in a signal handler that has interrupted the node while it "
                    "listens to its daemon; set a flag there, and do it later"
                )
            # A signal's handler may ask while this waits: each finds its own answer.
            self._asked += 1
            number = self._asked
            question = (kind, {**fields, "ask": number}, list(fds))
            self._questions[number] = question
            try:
                try:
                    protocol.send(self._socket, *question)
                except (BrokenPipeError, ConnectionResetError):
                    raise ConnectionError("the daemon is gone") from None
                while number not in self._answers:
                    if self.lost:
                        raise ConnectionError("the daemon is gone")
                    self.beat()
                    self._wait(LOOK_S)
            finally:
                self._questions.pop(number, None)
            return self._answers.pop(number)

    def _take_answer(self, packet: protocol.Packet) -> None:
        number = packet.fields.get("ask") or self._asked
        if self._questions.pop(number, None) is not None:
            self._answers[number] = packet
            return
        # Two daemons have answered the same question.
        packet.close()
        if packet.kind == "grown":
            self.retire(packet.number("segment"))

    def _ask_again(self) -> None:
        """Say to a new daemon what the last one may not have heard."""
        if self.epoch_ns is None:
            self._tell("ready", {})
        for question in list(self._questions.values()):
            self._tell(*question)

    def note(self, text: str) -> None:
        """Let the daemon tell the user something about this node, in one line."""
        self._tell("note", {"text": text})

    def retire(self, segment: int) -> None:
        """Tell the daemon that one of the node's own segments is not used any more."""
        self._tell("retire", {"segment": segment})

    def ended(self, operator: str) -> None:
        """Tell the daemon that an operator has ended, while others of this node go on."""
        self._tell("ended", {"operator": operator})

    def done(self) -> None:
        """Tell the daemon that this node sends nothing any more, and hang up."""
        if self.descriptor >= 0:
            self._tell("done", {})
            self.hang_up()

    def hang_up(self) -> None:
        """Close all descriptors."""
        self._socket.close()
        os.close(self.bell)
        os.close(self.space)
        self._peers.hang_up()

    def _tell(self, kind: str, fields: dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            protocol.send(self._socket, kind, fields, list(fds))
        except (BrokenPipeError, ConnectionResetError):
            # The daemon is gone; it has nothing left to keep straight.
            self.lost = True
