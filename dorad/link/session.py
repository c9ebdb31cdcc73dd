"""The Zenoh session of a link process: how it is configured, opened, listened to and closed.

Keys, all below `dorad/<dataflow>`:

    alive/<machine>/<incarnation>   a liveliness token of each link process
    to/<machine>/<from>/hello       greetings
    to/<machine>/<from>/data        frames of channels; their order is kept
    to/<machine>/<from>/ack         acknowledgements, with a higher priority
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections import deque
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple

import zenoh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dorad.link.config import LinkConfig, Tls

_log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
"""Closing waits ten seconds for a peer that has stopped; the process does not wait that long."""

RETRY = {"period_init_ms": 200, "period_max_ms": 500, "period_increase_factor": 2}
LEASE_MS = 3000

SEND_TIMEOUT_MS = 2000
"""How long the kernel waits for an acknowledgement of sent bytes. Less than the lease: see
`limit_sending`."""

MAX_DESCRIPTOR = 512
"""Connections have lower descriptors."""

BATCHES = 16
"""Batches of data that Zenoh queues for one machine before a `put` waits."""
BATCH_BYTES = 65_535

MAX_QUEUED = 16_384
"""Samples that wait to be handled. Peers within their credit never come near it."""


class LinkError(RuntimeError):
    """The session cannot be opened."""


class Received(NamedTuple):
    """One sample: from which machine, which kind, and the payload."""

    machine: str
    kind: str
    """`hello`, `data` or `ack`."""
    payload: zenoh.ZBytes


class Seen(NamedTuple):
    """The link process of a machine has appeared or vanished."""

    machine: str
    incarnation: int
    alive: bool


def zenoh_config(config: LinkConfig) -> zenoh.Config:
    """Return the configuration of the session: these addresses, and nothing found by itself."""
    settings: dict[str, Any] = {
        "mode": "peer",
        "listen/endpoints": config.listen,
        "listen/exit_on_failure": True,
        "connect/endpoints": config.connect,
        "connect/exit_on_failure": False,
        "connect/retry": RETRY,
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/link/tx/lease": LEASE_MS,
        "transport/link/tx/keep_alive": 4,
        "transport/link/tx/queue/size/data": BATCHES,
    }
    if config.tls is not None:
        settings["transport/link/tls"] = _tls_settings(config.tls)
        # A plain connection must be impossible, not only unused.
        settings["transport/link/protocols"] = ["tls"]
    found = zenoh.Config()
    for key, value in settings.items():
        found.insert_json5(key, json.dumps(value))
    return found


def _tls_settings(tls: Tls) -> dict[str, Any]:
    """Return the settings for mutual TLS."""
    return {
        "root_ca_certificate_base64": tls.ca,
        "listen_certificate_base64": tls.certificate,
        "listen_private_key_base64": tls.key,
        "connect_certificate_base64": tls.certificate,
        "connect_private_key_base64": tls.key,
        "enable_mtls": True,
        "verify_name_on_connect": tls.verify_name,
    }


class Session:
    """An open session. Callbacks of Zenoh append to `data`, `control` and `seen`.

    They then call `arrived` with True if there are new data, with False if there is something else.
    """

    def __init__(
        self,
        config: LinkConfig,
        incarnation: int,
        arrived: Callable[[bool], None],
    ) -> None:
        """Open the session and begin to listen.

        Raises:
            LinkError: it cannot listen, or the certificates cannot be read.
        """
        self.data: deque[Received] = deque()
        self.control: deque[Received] = deque()
        self.seen: deque[Seen] = deque()
        self.dropped = 0
        """Samples beyond `MAX_QUEUED`."""
        self._arrived = arrived
        self._root = f"dorad/{config.dataflow}"
        self._machine = config.machine
        self._known: frozenset[str] = frozenset()
        opened = _in_thread(lambda: zenoh.open(zenoh_config(config)), OPEN_TIMEOUT_S)
        if isinstance(opened, Exception):
            raise LinkError(f"the link cannot be opened: {opened}") from opened
        if opened is None:
            raise LinkError(f"the link could not be opened within {OPEN_TIMEOUT_S:g} s")
        self._session: zenoh.Session = opened
        self.know(config.peers)
        self._token = self._session.liveliness().declare_token(
            f"{self._root}/alive/{config.machine}/{incarnation:016x}"
        )

    @property
    def waiting(self) -> bool:
        """Whether something has come that was not handled."""
        return bool(self.data or self.control or self.seen)

    def know(self, machines: Iterable[str]) -> None:
        """Exchange messages with these machines, too, from now on."""
        new = frozenset(machines) - self._known
        self._known |= new
        for machine in sorted(new):
            for kind in ("hello", "ack", "data"):
                self._session.declare_subscriber(
                    f"{self._root}/to/{self._machine}/{machine}/{kind}",
                    zenoh.handlers.Callback(partial(self._take, machine, kind), indirect=False),
                )
            # Also of a link process that is there already.
            self._session.liveliness().declare_subscriber(
                f"{self._root}/alive/{machine}/*",
                zenoh.handlers.Callback(partial(self._see, machine), indirect=False),
                history=True,
            )

    def publisher(self, machine: str, kind: str, priority: zenoh.Priority) -> zenoh.Publisher:
        """Return a publisher of one kind of frames to a machine."""
        return self._session.declare_publisher(
            f"{self._root}/to/{machine}/{self._machine}/{kind}",
            congestion_control=zenoh.CongestionControl.BLOCK,
            priority=priority,
            express=True,
            reliability=zenoh.Reliability.RELIABLE,
        )

    def close(self) -> None:
        """Close the session; give up after `CLOSE_TIMEOUT_S`."""
        close = methodcaller("close")  # Zenoh does not declare its type
        if _in_thread(lambda: (close(self._session),), CLOSE_TIMEOUT_S) is None:
            _log.debug("the session was not closed in time")

    def _take(self, machine: str, kind: str, sample: zenoh.Sample) -> None:
        is_data = kind == "data"
        queue = self.data if is_data else self.control
        if len(queue) >= MAX_QUEUED:
            self.dropped += 1
            return
        queue.append(Received(machine, kind, sample.payload))
        self._arrived(is_data)

    def _see(self, machine: str, sample: zenoh.Sample) -> None:
        incarnation = str(sample.key_expr).rpartition("/")[2]
        if len(self.seen) >= MAX_QUEUED:
            return
        try:
            number = int(incarnation, 16)
        except ValueError:
            return  # not a token of a link process
        self.seen.append(Seen(machine, number, sample.kind == zenoh.SampleKind.PUT))
        self._arrived(False)


def limit_sending() -> None:
    """Let TCP connections of this process end when the other end does not acknowledge for long.

    Zenoh, whose connections these are, cannot be told to. If it is sending when a cable is cut, it
    keeps the connection until it may send again, then closes it, and with it forgets what the same
    machine has declared on its new connection: all messages to it would vanish.
    """
    for descriptor in range(3, MAX_DESCRIPTOR):
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            continue
        try:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT_MS)
        except OSError as error:
            _log.debug("descriptor %d has no limit: %s", descriptor, error)
        finally:
            sock.detach()


def _in_thread(act: Callable[[], Any], timeout_s: float) -> Any:
    """Return what `act` returns or the error it raises; None if that takes too long."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(act())
        except (zenoh.ZError, OSError, ValueError) as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return done[0] if done else None
