"""A fake daemon: it serves one node in this process, and the test controls every packet."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dorad.node import protocol
from dorad.node.attach import Spawned, connect
from dorad.node.attachment import Attachment
from dorad.node.connection import DaemonConnection
from dorad.node.payload import pack
from dorad.shm import doorbell, layout
from dorad.shm.arrow import UINT8_CODE
from dorad.shm.fence import fence
from dorad.shm.inlet import Inlet
from dorad.shm.mapping import Mapping
from dorad.shm.outlet import Outlet, Peer
from tests.harness.waiting import DEADLINE_S

ROOM = 1 << 20


class Box:
    """The mailbox of the node under test, or of a node it sends to."""

    def __init__(self, queue_sizes: Sequence[int]) -> None:
        plan = layout.plan(queue_sizes)
        self.memory = os.memfd_create("dorad-test", os.MFD_CLOEXEC)
        os.ftruncate(self.memory, plan.size + ROOM)
        os.posix_fallocate(self.memory, 0, plan.size + ROOM // 2)
        self.bell = doorbell.create()
        self.space = doorbell.create()
        self.mapping = Mapping(self.memory)
        self.words = self.mapping.words
        self.words[layout.BOX_MAGIC] = layout.MAGIC
        self.words[layout.BOX_VERSION] = layout.PROTOCOL_VERSION
        self.rings: list[layout.RingPlan] = []
        for ring in plan.rings:
            self._begin(ring)

    def _begin(self, ring: layout.RingPlan) -> layout.RingPlan:
        self.words[ring.base + layout.RING_CAPACITY] = ring.capacity
        self.words[ring.base + layout.RING_QUEUE_SIZE] = ring.queue_size
        self.words[ring.base + layout.RING_STATE] = layout.STATE_ATTACHED
        self.rings.append(ring)
        return ring

    def add_ring(self, queue_size: int) -> layout.RingPlan:
        """Add a ring while nodes run."""
        end = self.rings[-1].end if self.rings else layout.BOX_WORDS * layout.WORD
        return self._begin(layout.plan_ring(end, queue_size))

    def outlet(self, ring: layout.RingPlan, *, blocking: bool = False) -> Outlet:
        """Return a producer's end."""
        return Outlet(Peer(self.mapping, self.bell), ring, blocking=blocking)

    def inlet(self, ring: layout.RingPlan) -> Inlet:
        """Return a consumer's end; inline payloads only."""
        return Inlet(self.mapping, ring, {}, None)

    def close(self) -> None:
        for descriptor in (self.memory, self.bell, self.space):
            os.close(descriptor)
        # A mapping duplicates the descriptor, and pytest keeps references to us.
        del self.mapping, self.words


def push(outlet: Outlet, payload: bytes) -> None:
    """Send bytes, as a UInt8 array, and wake the receiver."""
    size = len(payload)
    stamp = time.time_ns()
    entry = layout.ENTRY.pack(stamp, size, 0, size, 0, 0, 0, 0, 0, UINT8_CODE, 0, 0)
    outlet.push(entry + payload, size, stamp)
    fence()
    outlet.peer.wake()


@dataclass
class FakeDaemon:
    """Listens at `path` for one node, `n`, with the inputs `inputs`: id -> queue size."""

    folder: Path
    inputs: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    name: str = "daemon.sock"

    def __post_init__(self) -> None:
        self.path = self.folder / self.name
        self.box = Box(list(self.inputs.values()))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(os.fspath(self.path))
        self.listener.listen()
        self.listener.settimeout(DEADLINE_S)
        self.socket: socket.socket | None = None
        self.others: list[Box] = []

    def ring(self, input_id: str) -> layout.RingPlan:
        return self.box.rings[list(self.inputs).index(input_id)]

    def outlet(self, input_id: str) -> Outlet:
        return self.box.outlet(self.ring(input_id))

    def other(self, queue_size: int) -> Box:
        """Announce a node that the tested node sends to."""
        self.others.append(Box([queue_size]))
        return self.others[-1]

    def accept(self) -> None:
        """Accept a connection and read its hello."""
        self.socket, _ = self.listener.accept()
        self.receive("hello")

    def welcome(self) -> None:
        content = {
            "node_id": "n",
            "dataflow_id": "f",
            "descriptor": {"nodes": []},
            "run_config": {},
            "inputs": [
                {"id": item, "ring": ring.base, "interval_ns": None, "source": "s"}
                | {"blocking": False}
                for item, ring in zip(self.inputs, self.box.rings, strict=False)
            ],
            "outputs": ["out"],
            "dynamic": False,
            "restart_count": 0,
            "spin_us": 0,
            "keep_bytes": None,
        }
        config = pack(json.dumps(content | self.config).encode())
        self.send("welcome", fds=[self.box.memory, self.box.bell, self.box.space, config])
        os.close(config)

    def start(self) -> None:
        """Accept a node and open the barrier for it."""
        self.accept()
        self.welcome()
        self.receive("ready")
        self.send("start", epoch_ns=time.monotonic_ns())

    def send(self, kind: str, fds: Sequence[int] = (), **fields: Any) -> None:
        assert self.socket is not None
        protocol.send(self.socket, kind, fields, list(fds))
        self.box.words[layout.BOX_MAIL] += 1

    def receive(self, kind: str) -> protocol.Packet:
        """Return the node's next packet, which must be of this kind."""
        assert self.socket is not None
        self.socket.settimeout(DEADLINE_S)
        packet = protocol.receive(self.socket)
        assert packet is not None
        assert packet.kind == kind
        return packet

    def introduce(self, box: Box, *, blocking: bool, node: str = "c") -> None:
        """Connect a receiver to the output of the tested node."""
        self.send("peer", [box.memory, box.bell], node=node)
        self.send("edges", output="out", to=[[node, box.rings[0].base, blocking]])

    def read(self) -> bool:
        """Return True if the node has read all packets."""
        words = self.box.words
        return bool(words[layout.BOX_SEEN] == words[layout.BOX_MAIL])

    def disconnect(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def close(self) -> None:
        self.disconnect()
        self.listener.close()
        for box in (self.box, *self.others):
            box.close()


@contextlib.contextmanager
def in_thread(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Run a function in a thread; the yielded function waits for its result."""
    result: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> Any:
        thread.join(DEADLINE_S)
        if thread.is_alive():
            frame = sys._current_frames()[thread.ident or 0]
            raise AssertionError("it did not end: " + "".join(traceback.format_stack(frame)))
        if failure:
            raise failure[0]
        return result[0]

    yield wait
    thread.join(DEADLINE_S)


@contextlib.contextmanager
def attached(daemon: FakeDaemon) -> Iterator[Attachment]:
    """Yield the started node."""
    with in_thread(daemon.start) as started:
        connection = connect(Spawned("n", daemon.path))
        attachment = Attachment(connection)
        started()
        kept = [attachment]
        del attachment
    try:
        yield kept.pop()
    finally:
        # Close the descriptors here, even if references to the attachment are left.
        connection.done()


def connection_to(daemon: FakeDaemon) -> DaemonConnection:
    """Return a connection that is welcomed but not started."""

    def serve() -> None:
        daemon.accept()
        daemon.welcome()

    with in_thread(serve) as served:
        connection = connect(Spawned("n", daemon.path))
        served()
    return connection


def daemon_of(inputs: dict[str, int], config: dict[str, Any] | None = None) -> Any:
    """Return a fixture: a daemon of a node with these inputs and this configuration."""

    @pytest.fixture
    def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
        server = FakeDaemon(tmp_path, dict(inputs), dict(config or {}))
        yield server
        server.close()

    return daemon
