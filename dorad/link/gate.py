"""The gate at a link's port: strangers' connections are closed before they can harm Zenoh.

Zenoh counts every socket that connects as a peer to be, without a bound, and accepts only ten
connections a second once handshakes fail. So the gate accepts them. One whose TLS greeting is
complete gets one of Zenoh's listening sockets (`handover`) to itself until Zenoh knows the machine;
`admission` decides which, and which are closed. The gate runs in a thread. It knows no keys: the
handshake is Zenoh's.
"""

import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import NamedTuple

from dorad.hosts import host_of
from dorad.link import handover
from dorad.link.access import MAX_COMMON_NAME
from dorad.link.admission import MAX_GREETING, Admission, Refusal, greeting_size
from dorad.link.handover import Backend, Handed

_log = logging.getLogger(__name__)

PLACES = 32
"""Handshakes at a time. Zenoh rests for 0.1 s after a failed one, so 250 a second may fail."""

BACKLOG = 4096
BATCH = 64
"""Connections that are accepted in one turn."""
REST_S = 0.01
"""The pause after a full turn: a flood must not take the processor from the link."""

CHECK_S = 0.02
"""How often handshakes are checked while there are some."""

MAX_CONNECTIONS = 4
"""Connections of one machine that Zenoh has: that of a killed process lives on for a while."""

MAX_FAILURES = 5
"""Successive connections that Zenoh does not accept, after which it has stopped to work."""

REPORT_S = 10.0
RECENT_S = 60.0
MAX_HOSTS = 1000
"""Hosts whose refusals are counted one by one between two reports."""

_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class GateError(OSError):
    """The gate cannot listen."""


class Refusals:
    """The connections that were closed, as they are reported: once in `REPORT_S`, by host."""

    def __init__(self) -> None:
        self.total = 0
        self._due_s = 0.0
        self._last = ""
        """The last report."""
        self._hosts: Counter[str] = Counter()
        self._reasons: Counter[Refusal] = Counter()

    def add(self, host: str, reason: Refusal) -> None:
        """Count a connection that was closed."""
        self.total += 1
        self._reasons[reason] += 1
        if host in self._hosts or len(self._hosts) < MAX_HOSTS:
            self._hosts[host] += 1

    def wait_s(self, now_s: float) -> float | None:
        """Return how long there is nothing to report; None if nothing was closed."""
        return max(0.0, self._due_s - now_s) if self._reasons else None

    def report(self, now_s: float) -> str:
        """Return what was closed since the last report; empty if nothing was, or it is too soon."""
        if not self._reasons or now_s < self._due_s:
            return ""
        self._due_s = now_s + REPORT_S
        count, (host, _) = self._reasons.total(), self._hosts.most_common(1)[0]
        reasons = ", ".join(f"{n} {reason.value}" for reason, n in self._reasons.most_common())
        others = len(self._hosts) - 1
        hosts = f"{host} and {others} more" if others else host
        self._hosts.clear()
        self._reasons.clear()
        self._last = f"connections of strangers that were closed: {count}, from {hosts} ({reasons})"
        return self._last

    def recent(self, now_s: float) -> str:
        """Return the last report, unless it is too old; any thread may call this."""
        return self._last if now_s < self._due_s + RECENT_S else ""


class _Visitor:
    """A connection that Zenoh does not have yet."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.sock = sock
        self.host = host
        sock.setblocking(False)
        self.want(greeting_size(b"") or 1)

    def want(self, size: int) -> None:
        """Be readable when so many bytes have come, or the other end has closed."""
        self.wanted = size
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def close(self, selector: selectors.BaseSelector) -> None:
        """Close the connection."""
        if self.sock in selector.get_map():
            selector.unregister(self.sock)
        self.sock.close()


class _Link(NamedTuple):
    """A connection that Zenoh has, and of which machine; empty while it is not known."""

    handed: Handed
    host: str
    machine: str


class Gate:
    """Accepts connections at the addresses of a link, in a thread, until it is closed."""

    def __init__(
        self, endpoints: Collection[str], machines: Collection[str], failed: Callable[[], None]
    ) -> None:
        """Listen at endpoints such as `tls/0.0.0.0:5456`; `failed` is called if `fault` is set.

        Raises:
            GateError: that is not possible.
        """
        self.endpoints = ["tls/127.0.0.1:0"] * PLACES
        """Where Zenoh listens instead."""
        self.fault = ""
        """Why the gate has ended by itself; empty if it has not."""
        self.refusals = Refusals()
        self.inodes: frozenset[int] = frozenset()
        """The sockets of machines of the dataflow, which Zenoh has."""
        self._names = frozenset(name[:MAX_COMMON_NAME] for name in machines)
        self._failed = failed
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._closing = False
        self._lock = threading.Lock()
        """Held while `_closing` changes, and while the bell is rung."""
        self._thread: threading.Thread | None = None
        self._backends: list[Backend] = []
        self._earlier: Collection[int] = ()
        """The inodes of sockets that listened before those of Zenoh."""
        self._admission = Admission(PLACES)
        self._visitors: dict[int, _Visitor] = {}
        """By the number of the connection; `_shaking` the ones that have a place."""
        self._shaking: dict[int, _Link] = {}
        self._links: dict[str, _Link] = {}
        """By locator: the connections that Zenoh has, from the handover on."""
        self._news: deque[tuple[str, str | None]] = deque()
        """What Zenoh says of links: locator and machine, None if the link has ended."""
        self._next_key = 0
        self._failures = 0
        self._check_s = 0.0
        self._ports: list[socket.socket] = []
        try:
            for endpoint in endpoints:
                self._ports.append(_listen(endpoint))
            self._earlier = handover.listeners().keys()
        except GateError:
            self.close()
            raise

    def start(self) -> None:
        """Let connections in. Zenoh listens by now.

        Raises:
            GateError: it does not.
        """
        lock = handover.Lock()
        for inode, descriptor in handover.listeners().items():
            if inode not in self._earlier:
                duplicate = socket.socket(fileno=os.dup(descriptor))
                self._backends.append(handover.Backend(duplicate, lock))
        if len(self._backends) != PLACES:
            raise GateError(f"Zenoh listens at {len(self._backends)} of {PLACES} addresses")
        if not all(each.locked for each in self._backends):
            _log.warning(
                "this kernel has no keys for connections (CONFIG_TCP_MD5SIG): programs of this "
                "machine can reach Zenoh without the gate, and delay handshakes"
            )
        for port in self._ports:
            self._selector.register(port, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop to listen, and close the connections that Zenoh does not have."""
        with self._lock:
            self._closing = True
            os.eventfd_write(self._bell, 1)
        if self._thread is not None:
            self._thread.join()
        for sock in (*self._ports, *(each.sock for each in self._visitors.values())):
            sock.close()
        for backend in self._backends:
            backend.close()
        self._selector.close()
        os.close(self._bell)

    def cut_all(self) -> None:
        """End the connections that Zenoh still has. The gate, and Zenoh's session, are closed.

        One that was handed over while the session closed stays open otherwise: its machine would
        believe that it is connected, and not come again.
        """
        for link in self._links.values():
            if handover.cut(link.handed):
                _log.debug("Zenoh has kept the connection of %s", link.host)

    def linked(self, locator: str, machine: str) -> None:
        """Handle that Zenoh has a link at this locator, to the machine of its certificate."""
        self._tell(locator, machine)

    def unlinked(self, locator: str) -> None:
        """Handle that a link has ended."""
        self._tell(locator, None)

    def _tell(self, locator: str, machine: str | None) -> None:
        self._news.append((locator, machine))
        with self._lock:
            # A link may change after `close`, when the bell is closed.
            if not self._closing:
                os.eventfd_write(self._bell, 1)

    # In the thread.

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except Exception as error:  # noqa: BLE001 - a bug ends the process, which is restarted
            _log.exception("the gate has failed")
            self.fault = f"the gate of the link has failed: {error}"
            self._failed()

    def _turn(self) -> None:
        wait_s = CHECK_S if self._admission else self.refusals.wait_s(time.monotonic())
        full = False
        for key, _ in self._selector.select(wait_s):
            if key.fd == self._bell:
                os.eventfd_read(self._bell)
            elif key.data is None:
                full |= self._accept(key.fileobj)  # type: ignore[arg-type]
            elif key.data in self._visitors:
                self._examine(key.data)
        while self._news:
            self._hear(*self._news.popleft())
        now_s = time.monotonic()
        if now_s >= self._check_s:
            self._check_s = now_s + CHECK_S
            self._check(now_s)
        while (key_place := self._admission.next(now_s)) is not None:
            self._hand_over(*key_place)
        while (displaced := self._admission.displaced(now_s)) is not None:
            self._refuse(displaced, Refusal.CROWDED)
        if report := self.refusals.report(now_s):
            _log.warning("%s", report)
        if full:
            time.sleep(REST_S)

    def _accept(self, port: socket.socket) -> bool:
        """Accept what waits, up to a bound; return True if there may be more."""
        for _ in range(BATCH):
            try:
                sock, address = port.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                # Such as a connection that was reset meanwhile; or no descriptor is left.
                _log.debug("a connection is not accepted: %s", error)
                if error.errno in _NO_DESCRIPTORS:
                    return self._make_room()
                continue
            key, host = self._next_key, host_of(address[0])
            self._next_key += 1
            self._visitors[key] = _Visitor(sock, host)
            self._selector.register(sock, selectors.EVENT_READ, key)
            over = self._admission.arrive(key, host, time.monotonic())
            if over is not None:
                self._refuse(over, Refusal.CROWDED)
        return True

    def _make_room(self) -> bool:
        """Close a waiting connection, because no descriptor is left for another one."""
        over = self._admission.most_waiting()
        if over is not None:
            self._refuse(over, Refusal.CROWDED)
        return True

    def _examine(self, key: int) -> None:
        """Look at the greeting of a connection, which stays in the kernel for Zenoh."""
        visitor = self._visitors[key]
        try:
            data = visitor.sock.recv(MAX_GREETING, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            _log.debug("%s: %s", visitor.host, error)
            data = b""
        size = greeting_size(data)
        if size is None:
            self._refuse(key, Refusal.NOT_TLS)
        elif len(data) >= size:
            self._selector.unregister(visitor.sock)
            visitor.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._admission.complete(key, time.monotonic())
        elif size == visitor.wanted:
            # Fewer bytes wake this thread only when the other end has closed.
            self._refuse(key, Refusal.SLOW)
        else:
            visitor.want(size)

    def _hand_over(self, key: int, place: int) -> None:
        """Give Zenoh a connection that has got a place."""
        visitor = self._visitors[key]
        known = {each.handed.inode for each in self._links.values()}
        try:
            handed = self._backends[place].hand_over(visitor.sock, key, known)
        except OSError as error:
            _log.warning("Zenoh has not taken a connection of %s: %s", visitor.host, error)
            self._failures += 1
            self._refuse(key, Refusal.CROWDED)
            if self._failures >= MAX_FAILURES:
                raise
            return
        self._failures = 0
        del self._visitors[key]
        visitor.sock.close()
        _log.debug("a connection of %s is %s for Zenoh", visitor.host, handed.locator)
        self._shaking[key] = self._links[handed.locator] = _Link(handed, visitor.host, "")

    def _hear(self, locator: str, machine: str | None) -> None:
        """Handle that Zenoh has, or no longer has, a link."""
        link = self._links.get(locator)
        if link is None:
            return  # one that this machine has opened
        key = next((key for key, each in self._shaking.items() if each is link), None)
        if key is not None:
            del self._shaking[key]
            self._admission.leave(key, time.monotonic(), failed=machine is None)
        if machine is None:
            del self._links[locator]
        elif machine not in self._names:
            _log.debug("%s has a certificate of %s", link.host, machine)
            self._refuse_link(locator, Refusal.UNKNOWN)
        else:
            self._links[locator] = link._replace(machine=machine)
            own = [name for name, each in self._links.items() if each.machine == machine]
            if len(own) > MAX_CONNECTIONS:
                self._refuse_link(own[0], Refusal.REPEATED)
            _log.debug("%s is linked from %s", machine, link.host)
        self.inodes = frozenset(each.handed.inode for each in self._links.values() if each.machine)

    def _check(self, now_s: float) -> None:
        """Close what has taken too long, and notice the handshakes that have failed."""
        for key, link in list(self._shaking.items()):
            if not handover.is_open(link.handed):
                self._refuse(key, Refusal.FAILED)
        for key, reason in self._admission.overdue(now_s):
            self._refuse(key, reason)

    def _refuse(self, key: int, reason: Refusal) -> None:
        """Close a connection that is not known."""
        self._admission.leave(key, time.monotonic(), failed=True)
        visitor = self._visitors.pop(key, None)
        if visitor is None:
            self._refuse_link(self._shaking.pop(key).handed.locator, reason)
            return
        _log.debug("a connection of %s is closed: %s", visitor.host, reason.value)
        self.refusals.add(visitor.host, reason)
        visitor.close(self._selector)

    def _refuse_link(self, locator: str, reason: Refusal) -> None:
        """Close a connection that Zenoh has."""
        link = self._links.pop(locator)
        _log.debug("the connection of %s is closed: %s", link.host, reason.value)
        self.refusals.add(link.host, reason)
        handover.cut(link.handed)


def _listen(endpoint: str) -> socket.socket:
    """Return a socket that listens at an endpoint.

    Raises:
        GateError: that is not possible.
    """
    host, _, port = endpoint.partition("/")[2].rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    except (OSError, ValueError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise GateError(f"it cannot listen at {endpoint}: {why}") from error
    sock.setblocking(False)
    return sock
