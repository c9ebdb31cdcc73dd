"""The Zenoh session of a link process: how it is opened, listened to and closed.

Keys, all below `dorad/<dataflow>`:

    alive/<machine>/<incarnation>   a liveliness token of each link process
    to/<machine>/<from>/hello       greetings
    to/<machine>/<from>/data        frames of channels; their order is kept
    to/<machine>/<from>/ack         acknowledgements, with a higher priority
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple

import zenoh

from dorad.link.access import root_of
from dorad.link.direct import keep_thread_state
from dorad.link.gate import Gate, GateError
from dorad.link.settings import zenoh_config
from dorad.link.silence import Silence, why_silent
from dorad.link.sockets import End, SocketState, end_of, socket_states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dorad.link.config import LinkConfig
    from dorad.link.direct import Put, TakeSample

_log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
ROUTER_RETRY_S = 0.2
CLOSE_TIMEOUT_S = 2.0
"""Closing waits ten seconds for a peer that has stopped; the process does not wait that long."""

MAX_QUEUED = 16_384
"""Samples that wait to be handled. Peers within their credit never come near it."""

_SOURCE_PLACE = re.compile(r" +at \S+\.rs:\d+\.")
"""A place in the source of Zenoh, which its errors end with."""

_NO_ANSWER = "Unable to connect to any of"
"""How Zenoh says that a client has no router, whatever the reason."""


class LinkError(RuntimeError):
    """The session cannot be opened."""


def reason_of(error: Exception) -> str:
    """Return the message of an error of Zenoh, without the places in Zenoh's source."""
    return _SOURCE_PLACE.sub("", str(error))


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


class Publisher:
    """Sends one kind of frames to one machine, once the session is open."""

    def __init__(self, declare: Callable[[], zenoh.Publisher]) -> None:
        self._declare = declare
        self.put: Put = self._put_first
        """Sends a frame. Raises ZError if it was not sent."""

    def _put_first(self, data: bytes) -> None:
        self.put = self._declare().put
        self.put(data)


class Session:
    """A session. Callbacks of Zenoh append to `data`, `control` and `seen`.

    They then call `arrived` with True if there are new data, with False if there is something else.
    """

    def __init__(
        self,
        config: LinkConfig,
        incarnation: int,
        arrived: Callable[[bool], None],
        direct: Callable[[str, deque[Received], TakeSample], TakeSample],
    ) -> None:
        """Open the session and begin to listen. A router is waited for in a thread.

        `direct` is called with a machine, `data`, and what queues a sample there; it returns what
        takes the data of that machine.

        Raises:
            LinkError: it cannot listen, or the certificates cannot be read.
        """
        self.data: deque[Received] = deque()
        self.control: deque[Received] = deque()
        self.seen: deque[Seen] = deque()
        self.dropped = 0
        """Samples beyond `MAX_QUEUED`."""
        _check_addresses(config)
        self._router = ", ".join(config.connect) if config.router else ""
        self.unopened = ""
        """Why the session with the router is not open yet; empty if it is, or without a router."""
        self.silence = Silence(config)
        self._arrived = arrived
        self._direct = direct
        self._root = root_of(config.dataflow)
        self._machine = config.machine
        self._lock = threading.Lock()
        """Held while `_known` and what is declared for it change."""
        self._known = frozenset(config.peers)
        self._session: zenoh.Session | None = None
        self._closed = threading.Event()
        self._gate: Gate | None = None
        self._ends: Mapping[str, End] = {}
        """The other ends of Zenoh's links, by locator; it is replaced as a whole."""
        self._ends_lock = threading.Lock()
        self._token_key = f"{self._root}/alive/{config.machine}/{incarnation:016x}"
        if config.router:
            self.unopened = f"connecting to the router {self._router}"
            threading.Thread(target=self._wait_for_router, args=(config,), daemon=True).start()
            return
        self._begin(self._open(config))

    def _open(self, config: LinkConfig) -> zenoh.Session:
        """Open the session, behind a gate if strangers can be told from machines of the fleet.

        Raises:
            LinkError: that is not possible.
        """
        listen = config.listen
        try:
            if config.tls is not None and listen:
                self._gate = Gate(listen, config.peers, partial(self._arrived, False))
                listen = self._gate.endpoints
            opened = _in_thread(lambda: zenoh.open(zenoh_config(config, listen)), OPEN_TIMEOUT_S)
            if opened is None:
                raise LinkError(f"the link could not be opened within {OPEN_TIMEOUT_S:g} s")
            if isinstance(opened, Exception):
                raise LinkError(f"the link cannot be opened: {reason_of(opened)}") from opened
            if self._gate is not None:
                self._gate.start()
        except GateError as error:
            raise LinkError(f"the link cannot be opened: {error}") from error
        session: zenoh.Session = opened
        return session

    def _wait_for_router(self, config: LinkConfig) -> None:
        """Open the session as soon as the router can be reached."""
        while not self._closed.is_set():
            try:
                opened = zenoh.open(zenoh_config(config, ()))
            except zenoh.ZError as error:
                why = reason_of(error)
                if why.startswith(_NO_ANSWER):
                    why = why_silent(config.connect[0], config.tls)
                reason = f"the router {self._router} cannot be reached: {why}"
                if reason != self.unopened:
                    _log.info("%s", reason)
                    self.unopened = reason
                    self._arrived(False)
                self._closed.wait(ROUTER_RETRY_S)
                continue
            self._begin(opened)
            self.unopened = ""
            self._arrived(False)
            if self._closed.is_set():
                self.close()
            return

    def _begin(self, session: zenoh.Session) -> None:
        with self._lock:
            self._session = session
            session.info.declare_link_events_listener(
                zenoh.handlers.Callback(self._link_changed, indirect=False), history=True
            )
            self._listen_to(session, self._known)
            self._token = session.liveliness().declare_token(self._token_key)

    def router_problem(self) -> str:
        """Return why there is no connection to the router; empty if there is one, or no router."""
        if self.unopened or not self._router or self._session is None:
            return self.unopened
        # A peer passes messages on, too.
        if self._session.info.routers_zid() or self._session.info.peers_zid():
            return ""
        return f"the connection to the router {self._router} was lost; it is tried again and again"

    def _link_changed(self, event: zenoh.LinkEvent) -> None:
        """Handle that Zenoh has a connection more, or one less."""
        locator, up = event.link.dst, event.kind == zenoh.SampleKind.PUT
        _log.debug("%s %s", locator, f"is {event.link.auth_identifier}" if up else "has ended")
        host, _, port = locator.partition("/")[2].rpartition(":")
        with self._ends_lock:
            ends = {name: end for name, end in self._ends.items() if name != locator}
            if up:
                ends[locator] = end_of(host.strip("[]"), int(port))
            self._ends = ends
        if self._gate is not None and up:
            self._gate.linked(locator, event.link.auth_identifier or "")
        elif self._gate is not None:
            self._gate.unlinked(locator)

    def connections(self) -> dict[int, SocketState]:
        """Return what has come over the connections to other machines, by inode."""
        inodes = frozenset() if self._gate is None else self._gate.inodes
        return socket_states(inodes, frozenset(self._ends.values()))

    def strangers(self, now_s: float) -> str:
        """Return what the gate has closed lately; empty if nothing."""
        return "" if self._gate is None else self._gate.refusals.recent(now_s)

    @property
    def fault(self) -> str:
        """Why no connection is accepted any longer; empty if they are."""
        return "" if self._gate is None else self._gate.fault

    @property
    def waiting(self) -> bool:
        """Whether something has come that was not handled."""
        return bool(self.data or self.control or self.seen)

    def know(self, machines: Iterable[str]) -> None:
        """Exchange messages with these machines, too, from now on."""
        with self._lock:
            new = frozenset(machines) - self._known
            self._known |= new
            if self._session is not None:
                self._listen_to(self._session, new)

    def _listen_to(self, session: zenoh.Session, machines: Iterable[str]) -> None:
        for machine in sorted(machines):
            for kind in ("hello", "ack", "data"):
                take: TakeSample = partial(self._take, machine, kind)
                if kind == "data":
                    take = self._direct(machine, self.data, take)
                session.declare_subscriber(
                    f"{self._root}/to/{self._machine}/{machine}/{kind}",
                    zenoh.handlers.Callback(take, indirect=False),
                )
            # Also of a link process that is there already.
            session.liveliness().declare_subscriber(
                f"{self._root}/alive/{machine}/*",
                zenoh.handlers.Callback(partial(self._see, machine), indirect=False),
                history=True,
            )

    def publisher(self, machine: str, kind: str, priority: zenoh.Priority) -> Publisher:
        """Return a publisher of one kind of frames to a machine."""
        return Publisher(partial(self._declare_publisher, machine, kind, priority))

    def _declare_publisher(
        self, machine: str, kind: str, priority: zenoh.Priority
    ) -> zenoh.Publisher:
        if self._session is None:
            raise zenoh.ZError(self.unopened)
        return self._session.declare_publisher(
            f"{self._root}/to/{machine}/{self._machine}/{kind}",
            congestion_control=zenoh.CongestionControl.BLOCK,
            priority=priority,
            express=True,
            reliability=zenoh.Reliability.RELIABLE,
        )

    def close(self) -> None:
        """Close the session; give up after `CLOSE_TIMEOUT_S`."""
        self._closed.set()
        if self._gate is not None:
            self._gate.close()
        session = self._session
        if session is None:
            return
        close = methodcaller("close")  # Zenoh does not declare its type
        if _in_thread(lambda: (close(session),), CLOSE_TIMEOUT_S) is None:
            _log.debug("the session was not closed in time")
        if self._gate is not None:
            self._gate.cut_all()

    def _take(self, machine: str, kind: str, sample: zenoh.Sample) -> None:
        keep_thread_state()
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


def _check_addresses(config: LinkConfig) -> None:
    """Refuse addresses that Zenoh cannot use with certificates.

    Raises:
        LinkError: there is one.
    """
    for endpoint in config.connect:
        if config.tls is not None and "%" in endpoint:
            raise LinkError(
                f"the link cannot be opened: the address {endpoint} has a zone, which links with "
                "certificates cannot use; give the machine an address of its network"
            )


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
