"""A node's connection to its daemon: its mailbox, its peers, and what the daemon tells it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import events, protocol
from dorad.node.payload import unpack
from dorad.shm.layout import (
    BOX_MAGIC,
    BOX_MAIL,
    MAGIC,
    RING_CAPACITY,
    RING_QUEUE_SIZE,
    RING_WORDS,
    WORD,
    RingPlan,
)
from dorad.shm.mapping import Mapping
from dorad.shm.ring import Outlet, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_CONFIG = 1 << 26

SEGMENT_DEADLINE = 5.0
"""Seconds after which a segment that an entry names must have been announced."""


def ring_at(words: memoryview, base: int) -> RingPlan:
    """Return the plan of the ring whose header starts at word `base`."""
    return RingPlan(
        base=base,
        entries=(base + RING_WORDS) * WORD,
        capacity=words[base + RING_CAPACITY],
        queue_size=words[base + RING_QUEUE_SIZE],
    )


class Session:
    """One attached node. Both the receiving and the sending side read its packets.

    `endings` are events that come after what is queued on their input; `urgent` come first.
    """

    def __init__(self, path: Path, node_id: str, *, dynamic: bool) -> None:
        """Connect, introduce the node and map its mailbox.

        Raises:
            RuntimeError: there is no daemon at `path`, or it refuses the node.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._lock = threading.RLock()
        self.packets = 0
        self._segments: dict[int, Mapping] = {}
        self._retired: set[int] = set()
        self._answer: protocol.Packet | None = None
        self.peers: dict[str, Peer] = {}
        self.spaces: dict[str, int] = {}
        self.outlets: dict[str, tuple[Outlet, ...]] = {}
        self.urgent: deque[events.Event] = deque()
        self.endings: deque[events.Event] = deque()
        self.stopping = False
        self.lost = False
        self.epoch_ns: int | None = None
        try:
            self._socket.connect(os.fspath(path))
            hello = {"node": node_id, "dynamic": dynamic, "pid": os.getpid()}
            protocol.send(self._socket, "hello", hello | {"version": protocol.VERSION}, [])
            self._welcome()
        except OSError as error:
            self._socket.close()
            raise RuntimeError(
                f"no daemon answers at {path} ({error.strerror}); is the dataflow still running?"
            ) from error
        except BaseException:
            self._socket.close()
            raise

    def _welcome(self) -> None:
        packet = self._receive()
        if packet is None:
            raise RuntimeError("the daemon closed the connection before it answered")
        self.packets += 1
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
        if self.box.words[BOX_MAGIC] != MAGIC:
            raise RuntimeError("the daemon's mailbox is of another version; restart the daemon")

    @property
    def descriptor(self) -> int:
        """The socket's descriptor: readable when the daemon has said something."""
        return self._socket.fileno()

    def has_mail(self) -> bool:
        """Tell, without a system call, whether the daemon has sent something new."""
        return bool(self.box.words[BOX_MAIL] != self.packets)

    def wait_for_start(self) -> int:
        """Say that the node can receive, and block until the barrier opens.

        Returns the dataflow's start on CLOCK_MONOTONIC, ns.

        Raises:
            RuntimeError: the dataflow could not start, or the daemon is gone.
        """
        self._tell("ready", {})
        while self.epoch_ns is None:
            packet = self._receive()
            if packet is None:
                raise RuntimeError("the daemon went away before the dataflow started")
            self.packets += 1
            self._dispatch(packet)
        return self.epoch_ns

    def read_mail(self) -> None:
        """Take in everything the daemon has sent; never blocks."""
        with self._lock:
            while not self.lost:
                try:
                    packet = self._receive(socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return
                self._take_in(packet)

    def _receive(self, flags: int = 0) -> protocol.Packet | None:
        """Return the next packet, or None when the daemon is gone."""
        try:
            return protocol.receive(self._socket, flags)
        except ConnectionResetError:
            # It hung up before it had read all that this node said.
            return None

    def _take_in(self, packet: protocol.Packet | None) -> None:
        if packet is None:
            self.lost = True
            self.urgent.append(events.error("the daemon is gone; no more events will come"))
            return
        self.packets += 1
        self._dispatch(packet)

    def _dispatch(self, packet: protocol.Packet) -> None:
        match packet.kind:
            case "peer":
                memory, bell = packet.take(2)
                self.peers[packet.text("node")] = Peer(Mapping(memory), bell)
                os.close(memory)
            case "source":
                (self.spaces[packet.text("node")],) = packet.take(1)
            case "edges":
                self._rewire(packet.text("output"), packet.fields["to"])
            case "segment":
                (memory,) = packet.take(1)
                self._segments[packet.number("segment")] = Mapping(memory, writable=False)
                os.close(memory)
            case "retired":
                self._retired.add(packet.number("segment"))
                self._segments.pop(packet.number("segment"), None)
            case "start":
                self.epoch_ns = packet.number("epoch_ns")
            case "grown" | "full" | "ext_done" | "ext_refused":
                self._answer = packet
            case "closed":
                self.endings.append(events.input_closed(packet.text("input")))
            case "failed":
                self.endings.append(
                    events.node_failed(
                        packet.text("source_node_id"),
                        packet.text("error"),
                        packet.fields["affected_input_ids"],
                    )
                )
            case "stop":
                self._stop(packet.text("reason"))
            case "refused":
                raise RuntimeError(packet.text("error"))
            case unknown:
                packet.close()
                raise RuntimeError(f"the daemon sent the unknown packet {unknown!r}")

    def _stop(self, reason: str) -> None:
        if reason == events.MANUAL:
            self.stopping = True
            self.urgent.append(events.stop(reason))
        else:
            self.endings.append(events.stop(reason))

    def _rewire(self, output: str, to: list[list[Any]]) -> None:
        """Replace the subscribers of an output, keeping the outlets that stay."""
        old = {(id(outlet.peer), outlet.base): outlet for outlet in self.outlets.get(output, ())}
        new = []
        for node, base, blocking in to:
            peer = self.peers[node]
            kept = old.pop((id(peer), base), None)
            new.append(kept or Outlet(peer, ring_at(peer.words, base), blocking=blocking))
        for outlet in old.values():
            outlet.closed = True
        # Those that never block come first, so that none of them waits for one that does.
        self.outlets[output] = tuple(sorted(new, key=lambda outlet: outlet.blocking))

    def segment(self, number: int) -> Mapping | None:
        """Return a mapped segment; None if its owner has given it back.

        Raises:
            LookupError: the daemon never announced it.
        """
        mapping = self._segments.get(number)
        if mapping is not None:
            return mapping
        deadline = time.monotonic() + SEGMENT_DEADLINE
        with self._lock:
            while number not in self._segments and number not in self._retired:
                if self.lost or time.monotonic() > deadline:
                    raise LookupError(f"segment {number} was never shared with this node")
                self._receive_blocking(deadline)
            return self._segments.get(number)

    def _receive_blocking(self, deadline: float) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self._take_in(self._receive())
        except TimeoutError:
            return
        finally:
            self._socket.settimeout(None)

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
        """Send a packet that is answered, and return the answer.

        Raises:
            OSError: the daemon is gone.
            ProtocolError: the packet would be too large.
        """
        with self._lock:
            self._answer = None
            protocol.send(self._socket, kind, fields, list(fds))
            while self._answer is None:
                if self.lost:
                    raise ConnectionError("the daemon is gone")
                self._take_in(self._receive())
            return self._answer

    def retire(self, segment: int) -> None:
        """Tell the daemon that one of the node's own segments is not used any more."""
        self._tell("retire", {"segment": segment})

    def done(self) -> None:
        """Tell the daemon that this node sends nothing any more, and hang up."""
        if self.descriptor >= 0:
            self._tell("done", {})
            self.hang_up()

    def hang_up(self) -> None:
        """Close all descriptors."""
        self._socket.close()
        for descriptor in (
            self.bell,
            self.space,
            *self.spaces.values(),
            *(peer.bell for peer in self.peers.values()),
        ):
            os.close(descriptor)

    def _tell(self, kind: str, fields: dict[str, Any]) -> None:
        try:
            protocol.send(self._socket, kind, fields, [])
        except (BrokenPipeError, ConnectionResetError):
            # The daemon is gone; it has nothing left to keep straight.
            self.lost = True
