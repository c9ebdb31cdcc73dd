"""A node's connection to its daemon: packets from the daemon, notices and requests to it.

The connection outlives the daemon if a host keeps the other end of the socket open. Then requests
wait until the next daemon sends `adopted`, and are sent again.
"""

from __future__ import annotations

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
from dorad.node.peers import Peers, Segments
from dorad.node.requests import ANSWERS, PendingRequests, segment_handler, segment_of
from dorad.node.welcome import say_hello
from dorad.shm import doorbell
from dorad.shm.fence import STRONG_ORDER, release
from dorad.shm.layout import BOX_ASLEEP, BOX_MAIL, BOX_PULSE, BOX_SEEN
from dorad.shm.steps import twin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.shm.mapping import Mapping
    from dorad.shm.outlet import Peer

_log = logging.getLogger(__name__)

SEGMENT_TIMEOUT_S = 5.0
"""How long to wait for the packet `segment` of a segment that an entry names."""

BEAT_S = 0.1
"""Maximum time between two heartbeats while a call waits for the daemon."""


@twin
class ConnectionState:
    """The fields of a connection that sending and receiving look at each time."""

    __slots__ = ("bell", "lost", "mail", "outlets", "packets_handled")


class DaemonConnection(ConnectionState):
    """The connection of one attached node. Receiving and sending threads both read its packets.

    `mail` is the value of BOX_MAIL when the socket was last read empty. `packets_received` counts
    packets before their effect, `packets_handled` after it: a thread that compares them knows
    whether another thread is still handling one. `on_packet` is called after each packet.
    """

    def __init__(
        self, path: str | os.PathLike[str] | socket.socket, node_id: str, *, dynamic: bool
    ) -> None:
        """Connect, send `hello` and map the node's mailbox. `path` may be a connected socket.

        Raises:
            DaemonAwayError: no daemon answers at `path`, or it hangs up before its answer.
            RuntimeError: `path` cannot be connected to, or the daemon refuses the node.
        """
        self._socket, welcome = say_hello(path, node_id, dynamic=dynamic)
        self.box, self.bell, self.space, self.config = welcome
        self._lock = threading.RLock()
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self.mail = 0
        self.packets_handled = 0
        self.packets_received = 0
        self.on_packet: Callable[[], None] | None = None
        self.on_link: Callable[[dict[str, Any]], None] | None = None
        """Called with a changed configuration; only the link process sets it."""
        self.segments = Segments(self._wait_for_segment)
        self._peers = Peers(self.segments)
        self.outlets = self._peers.outlets
        self.receivers = self._peers.receivers
        self.spaces = self._peers.spaces
        self.late_outputs = self._peers.late_outputs
        self.catch_up: Callable[[], bool] = lambda: True
        """Sends the last messages of `late_outputs`; returns False if it must be called again."""
        self._requests = PendingRequests()
        self._ended: list[str] = []
        self._draining = False
        self.lost = False
        self._segment_timeout_s = SEGMENT_TIMEOUT_S
        self.epoch_ns: int | None = None
        self.watched = bool(self.config.get("watched"))
        self.params = Params(self.config.get("params", {}), self.refresh)
        self.daemon_events = DaemonEvents(self.config["inputs"], self.params)

    @property
    def descriptor(self) -> int:
        """The socket's descriptor: readable when the daemon has sent a packet."""
        return self._socket.fileno()

    def has_mail(self) -> bool:
        """Return True if the daemon has sent a packet, without a system call."""
        return bool(self.box.words[BOX_MAIL] != self.mail)

    def beat(self) -> None:
        """Count a heartbeat, if the daemon watches this node for hangs."""
        if self.watched:
            self.box.words[BOX_PULSE] += 1

    def wait_for_start(self) -> int:
        """Send `ready` and wait until the start barrier opens.

        Return the start of the dataflow on CLOCK_MONOTONIC, in ns.

        Raises:
            RuntimeError: the dataflow could not start, or the connection was closed.
        """
        with self._lock:
            self.ready()
            while self.epoch_ns is None:
                if self.lost:
                    raise RuntimeError(
                        "the daemon closed the connection before the dataflow started"
                    )
                self._wait(BEAT_S)
        self.beat()
        _log.debug("the start barrier is open")
        return self.epoch_ns

    def ready(self) -> None:
        """Notify the daemon that this node can receive; do not wait for the start barrier."""
        self._send("ready", {})

    def refresh(self) -> None:
        """Handle the packets from the daemon, if there are new ones."""
        if self.has_mail():
            self.read_mail()

    def read_mail(self) -> None:
        """Handle all packets that the daemon has sent; never blocks.

        A thread that already reads, or waits for an answer, handles them instead.
        """
        if self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        if self._draining:
            # A signal handler has interrupted this method, which will read the rest.
            return
        self._draining = True
        try:
            self._read_all()
        finally:
            self._draining = False

    def _read_all(self) -> None:
        words = self.box.words
        # Read the word before the socket: a later packet is read now or changes the word again.
        mail = words[BOX_MAIL]
        while not self.lost:
            try:
                packet = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            self._handle(packet)
        self.mail = mail
        if not STRONG_ORDER:
            release()  # a stepper that sees this must see that the node is awake
        # Count packets instead of copying the word: the daemon counts a packet after sending it.
        words[BOX_SEEN] = self.packets_handled + 1  # and the welcome

    def _wait(self, seconds: float) -> None:
        """Wait up to `seconds` for packets and handle them. The caller holds the lock."""
        self._readable.poll(seconds * 1000)
        self._drain()

    def _receive(self, flags: int = 0) -> protocol.Packet | None:
        """Return the next packet, None if the daemon has closed the connection."""
        try:
            return protocol.receive_any(self._socket, flags)
        except ConnectionResetError:
            # The daemon has not read everything. Its last packets, such as the reason, come next.
            return protocol.receive_any(self._socket, flags)

    def _handle(self, packet: protocol.Packet | None) -> None:
        self.packets_received += 1
        if packet is None:
            _log.debug("the daemon has closed the connection")
            self.lost = True
            self.daemon_events.lose_daemon()
        else:
            _log.debug("packet %s", packet.kind)
            self._dispatch(packet)
        self.packets_handled += 1
        if self.box.words[BOX_ASLEEP]:
            # Another thread sleeps on the socket, which is empty before that thread wakes up.
            doorbell.ring(self.bell)
        if self.on_packet is not None:
            self.on_packet()

    def _dispatch(self, packet: protocol.Packet) -> None:
        kind = packet.kind
        if kind in daemonevents.KINDS:
            self.daemon_events.handle(packet)
        elif kind in peers.KINDS:
            self._peers.handle(packet)
        elif kind in ANSWERS:
            self._take_answer(packet)
        elif kind == "start":
            self.epoch_ns = packet.number("epoch_ns")
        elif kind == "adopted":
            self._repeat_requests()
        elif kind == "refused":
            raise RuntimeError(packet.text("error"))
        elif kind == "link" and self.on_link is not None:
            self.on_link(packet.fields)
        elif kind == "ping":
            # Wakes a sender that waits for room. `_handle` wakes a receiver.
            doorbell.ring(self.space)
        else:
            packet.close()
            raise RuntimeError(f"the daemon sent the unknown packet {kind!r}")

    def peer(self, node_id: str) -> Peer | None:
        """Return the mailbox of a node that this one sends to, None if it is unknown."""
        return self._peers.peer(node_id)

    def _wait_for_segment(self, number: int) -> None:
        """Wait until a segment is mapped, or retired.

        The daemon announces a segment before its owner can use it, so a wait is rare. After one
        timeout later calls do not wait, so that invented numbers cannot stall the node.
        """
        self.read_mail()
        deadline = time.monotonic() + self._segment_timeout_s
        while number not in self.segments and number not in self._peers.retired:
            left = deadline - time.monotonic()
            if self.lost or left <= 0:
                _log.debug("segment %d was never announced", number)
                self._segment_timeout_s = 0.0
                return
            # A thread that holds the lock handles the packets meanwhile.
            if self._lock.acquire(timeout=min(left, BEAT_S)):
                try:
                    self._wait(min(left, BEAT_S))
                finally:
                    self._lock.release()
        self._segment_timeout_s = SEGMENT_TIMEOUT_S

    def grow(self, size: int) -> tuple[int, Mapping]:
        """Request a new segment; the daemon announces it to all subscribers first.

        Raises:
            OSError: /dev/shm is full (the text gives the requested and the free size), or the
                connection was closed.
        """
        return segment_of(self.ask("grow", {"size": size}))

    def grow_ahead(self, size: int, arrived: Callable[[tuple[int, Mapping] | None], None]) -> bool:
        """Request a new segment without waiting for it; return False if that is not possible now.

        Whichever thread reads the answer calls `arrived`, with None if there is no segment.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._draining or self.lost:
                return False
            self._begin_request("grow", {"size": size}, (), segment_handler(arrived))
        except ConnectionError as error:
            # Messages that have a sample already can still be sent.
            _log.debug("no segment ahead of need: %s", error)
            return False
        finally:
            self._lock.release()
        return True

    def ask(self, kind: str, fields: dict[str, Any], fds: Sequence[int] = ()) -> protocol.Packet:
        """Send a request and wait for its answer, without a time limit.

        The descriptors must stay open until then, because a new daemon gets the request again.

        Raises:
            OSError: the connection was closed.
            ProtocolError: the packet would be too large.
        """
        with self._lock:
            if self._draining:
                raise OSError(
                    "this was called in a signal handler that has interrupted the node while it "
                    "was reading packets of its daemon; set a flag there, and do it later"
                )
            number = self._begin_request(kind, fields, fds)
            try:
                while (answer := self._requests.answer(number)) is None:
                    if self.lost:
                        raise ConnectionError("the daemon has closed the connection")
                    self.beat()
                    self._wait(BEAT_S)
            finally:
                self._requests.drop(number)
            return answer

    def _begin_request(
        self,
        kind: str,
        fields: dict[str, Any],
        fds: Sequence[int],
        handler: Callable[[protocol.Packet], None] | None = None,
    ) -> int:
        """Send a request, and return its number. The caller holds the lock.

        `handler` gets the answer; without one, `_requests` keeps it.

        Raises:
            ConnectionError: the connection was closed.
            ProtocolError: the packet would be too large.
        """
        number, request = self._requests.add(kind, fields, fds, handler)
        try:
            protocol.send(self._socket, *request)
        except BaseException as error:
            self._requests.drop(number)
            if isinstance(error, BrokenPipeError | ConnectionResetError):
                raise ConnectionError("the daemon has closed the connection") from None
            raise
        return number

    def _take_answer(self, packet: protocol.Packet) -> None:
        if self._requests.take(packet):
            return
        # Two daemons have answered the same request.
        _log.debug("a second answer %s to one request", packet.kind)
        packet.close()
        if packet.kind == "grown":
            self.retire(packet.number("segment"))

    def _repeat_requests(self) -> None:
        """Repeat to a new daemon what the previous one may not have read."""
        _log.debug("a new daemon has taken over: %d requests again", len(self._requests))
        if self.epoch_ns is None:
            self.ready()
        for operator in self._ended:
            self._send("ended", {"operator": operator})
        for request in self._requests.all():
            self._send(*request)

    def note(self, text: str) -> None:
        """Send a line about this node, which the daemon shows to the user."""
        self._send("note", {"text": text})

    def idle(self, lease: int) -> None:
        """Notify the daemon that a lease has ended."""
        self._send("idle", {"lease": lease})

    def offer(self, kind: str, fields: dict[str, Any]) -> bool:
        """Send a notice if its socket has room; return False if it has none, or is closed.

        Raises:
            ProtocolError: the packet would be too large.
        """
        try:
            protocol.send(self._socket, kind, fields, [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self.lost = True
            return False
        return True

    def retire(self, segment: int) -> None:
        """Notify the daemon that the node no longer uses one of its own segments."""
        self._send("retire", {"segment": segment})

    def ended(self, operator: str) -> None:
        """Notify the daemon, and each next one, that one operator of this node has ended."""
        self._ended.append(operator)
        self._send("ended", {"operator": operator})

    def done(self) -> None:
        """Notify the daemon that this node sends no more messages, and close the connection."""
        if self.descriptor >= 0:
            self._send("done", {})
            self.hang_up()

    def hang_up(self) -> None:
        """Close all descriptors."""
        self._socket.close()
        os.close(self.bell)
        os.close(self.space)
        self._peers.hang_up()

    def _send(self, kind: str, fields: dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            protocol.send(self._socket, kind, fields, list(fds))
        except (BrokenPipeError, ConnectionResetError):
            # The daemon has closed the connection and needs no notice.
            self.lost = True
