"""Connect to a server in bounded time, even if it hangs."""

from __future__ import annotations

import logging
import os
import pwd
import socket
import struct
import threading
import time
from collections import deque
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Self, TypeVar

from dorad import procinfo
from dorad.control import faults
from dorad.control.errors import ControlError, NoDaemonError
from dorad.control.limits import MAX_REPLY
from dorad.control.peer import peer_of
from dorad.control.standby import why_silent
from dorad.control.target import FAR, NEAR, Tcp, Timing, UnixSocket, is_here, is_loopback
from dorad.shm import rendezvous

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from dorad.control.faults import Server
    from dorad.control.messages import ErrorCode

_log = logging.getLogger(__name__)

MAX_BUSY_S: Final = 20.0
"""How long a daemon that computes, or waits for a processor, may leave a client unanswered."""
_SILENCE: Final = frozenset({"unavailable", "deadline"})
"""Codes of errors of a server that did not answer."""

STAGGER_S: Final = 0.3
"""How long a coordinator may take to answer before the next one is tried, too."""
_MORE_S: Final = 0.5
"""By how much its deadline is postponed each time."""

OPTIONS: Final[dict[str, Any]] = {
    "compression": None,
    "max_size": MAX_REPLY,
    "close_timeout": 0.3,
    # The client pings while it waits, see `Timing`. While it is busy, silence means nothing.
    "ping_interval": None,
    # Few, because a slow reader should get recent messages, and large ones fill the memory.
    "max_queue": 2,
    "user_agent_header": None,
    # Variables such as `http_proxy` are for the web, not for servers of the user's own.
    "proxy": None,
}
"""Arguments for `connect` of the `websockets` library."""


class Opened(NamedTuple):
    """A connected socket, and the data for the handshake on it."""

    sock: socket.socket
    server: Server
    timing: Timing
    host: str
    """Name and port of the server, for the HTTP request."""
    headers: Mapping[str, str]
    """For the same request."""
    tls: ssl.SSLContext | None


class Deadline:
    """The time by which a server must answer. A daemon on a busy machine gets more of it."""

    def __init__(self, server: Server, seconds: float) -> None:
        """Give `server` this many `seconds`, and up to MAX_BUSY_S while its process is busy."""
        self._pid = server.pid
        self._end = time.monotonic() + seconds
        self._last = self._end - seconds + max(seconds, MAX_BUSY_S)

    def left(self) -> float:
        """Return the seconds until the deadline; negative after it."""
        return self._end - time.monotonic()

    def extended(self) -> bool:
        """Postpone a deadline that has passed; False if it is final."""
        if self._pid is None or self._pid == os.getpid() or self._end >= self._last:
            return False
        if not procinfo.is_busy(self._pid):
            return False
        _log.debug("process %d has not answered yet, but is busy", self._pid)
        self._end = min(time.monotonic() + _MORE_S, self._last)
        return True


T = TypeVar("T")
SERVICE = Path("/usr/lib/systemd/system/dorad.service")
"""Where the package has put its unit, on a robot."""


class Attempts:
    """The servers that a client tries one after another, until one has answered its hello."""

    def __init__(self, targets: Sequence[UnixSocket | Tcp]) -> None:
        """`targets` are in the order in which they are tried."""
        self._targets = targets
        self._silent: set[UnixSocket | Tcp] = set()
        """Where nothing listens."""
        self._errors: list[tuple[UnixSocket | Tcp, ControlError]] = []

    def failed(self, target: UnixSocket | Tcp, error: ControlError | None) -> None:
        """Keep why a server did not answer, None if nothing listens there.

        Raises:
            ControlError: no other server may answer instead. A daemon that hangs is an error,
                independently of other tasks; of several coordinators another one may lead.
        """
        if error is None:
            _log.debug("nothing listens at %s", target)
            self._silent.add(target)
            return
        if isinstance(target, UnixSocket):
            raise error
        _log.debug("%s does not answer: %s", target, error)
        self._errors.append((target, error))

    def skipped(self, answered: UnixSocket | Tcp) -> tuple[str, ...]:
        """Return why coordinators before the one that has answered did not, one text for each."""
        before = self._targets[: self._targets.index(answered)]
        return tuple(self._why(each) for each in before if isinstance(each, Tcp))

    def error(self) -> ControlError:
        """Return the error for a client that no server has answered."""
        if not self._errors:
            return _not_running(self._targets)
        # A refusal says more than silence: the coordinator that leads has refused this client.
        refusals = [error for _, error in self._errors if error.code not in _SILENCE]
        coordinators = [each for each in self._targets if isinstance(each, Tcp)]
        if refusals or len(coordinators) == 1:
            return (refusals or [error for _, error in self._errors])[0]
        # Of a machine that does not answer it is not known whether a coordinator runs there.
        code: ErrorCode = "unavailable"
        if any(error.code == "deadline" for _, error in self._errors):
            code = "deadline"
        hint = "check the network, and each one with `systemctl status dorafleet` there; after the "
        hint += "leader is lost, another one leads within 10 s"
        message = f"none of the coordinators answers: {'; '.join(map(self._why, coordinators))}"
        return ControlError(code, message, hint)

    def _why(self, target: Tcp) -> str:
        for other, error in self._errors:
            if other == target:
                return error.message
        if target in self._silent:
            return f"nothing listens at {target}"
        return f"{faults.coordinator_at(target).name} has not answered yet"


class Opening(Generic[T]):
    """Tries several servers: yields each with what became of it, as soon as that is known.

    That is what `attempt` returned, an error, or None if nothing listens there. A server is tried
    when the one before it has failed, or has not answered for a moment: one whose network drops
    everything, or that hangs, does not hold up the others. Close it in the end.
    """

    def __init__(
        self,
        targets: Sequence[UnixSocket | Tcp],
        attempt: Callable[[UnixSocket | Tcp], T | None],
        discard: Callable[[T], object],
    ) -> None:
        """`targets` are in the order in which they are tried.

        `attempt` tries one, in any thread, and `discard` closes what it returned too late.
        """
        self._left = deque(targets)
        self._attempt = attempt
        self._discard = discard
        self._only_one = len(targets) == 1
        self._pending = 0
        self._lock = threading.Lock()
        self._closed = False
        self._outcomes: SimpleQueue[tuple[UnixSocket | Tcp, T | ControlError | None] | None] = (
            SimpleQueue()
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[UnixSocket | Tcp, T | ControlError | None]:
        while not self._closed and (self._left or self._pending):
            if self._left:
                target = self._left.popleft()
                if isinstance(target, UnixSocket) or self._only_one:
                    return target, self._outcome(target)
                name = f"connect to {target}"
                threading.Thread(target=self._try, args=(target,), name=name, daemon=True).start()
                self._pending += 1
            try:
                outcome = self._outcomes.get(timeout=STAGGER_S if self._left else None)
            except Empty:
                _log.debug("no answer for %g s, the next server is tried, too", STAGGER_S)
                continue
            if outcome is not None:
                self._pending -= 1
                return outcome
        raise StopIteration

    def close(self) -> None:
        """Close the connections that come too late."""
        with self._lock:
            self._closed = True
            while not self._outcomes.empty():
                outcome = self._outcomes.get()
                self._drop(None if outcome is None else outcome[1])
            self._outcomes.put(None)  # wakes a thread that waits

    def _try(self, target: Tcp) -> None:
        outcome = self._outcome(target)
        with self._lock:
            if not self._closed:
                self._outcomes.put((target, outcome))
                return
        self._drop(outcome)

    def _outcome(self, target: UnixSocket | Tcp) -> T | ControlError | None:
        try:
            return self._attempt(target)
        except ControlError as error:
            return error
        except Exception as error:  # noqa: BLE001  # it is told where it is waited for
            return ControlError("internal", f"{target} cannot be connected to: {error!r}")

    def _drop(self, outcome: T | ControlError | None) -> None:
        if outcome is not None and not isinstance(outcome, ControlError):
            self._discard(outcome)


def open_socket(target: UnixSocket | Tcp) -> Opened | None:
    """Connect to a server; return None if nothing listens there.

    Raises:
        ControlError: with code `unavailable`, `refused`, or `deadline` for a server that does not
            accept its pending connections.
    """
    opened = _open_unix(target) if isinstance(target, UnixSocket) else _open_tcp(target)
    if opened is not None:
        _log.debug("connected to %s", opened.server.place)
    return opened


def open_failed(opened: Opened, error: Exception, body: bytes) -> ControlError:
    """Return the error for a connected socket on which no WebSocket could be opened."""
    if opened.tls is not None and not body:
        from dorad.control.tlstransport import tls_failed

        return tls_failed(opened.server, error)
    return faults.connect_failed(opened.server, error, body)


def _open_unix(target: UnixSocket) -> Opened | None:
    path = target.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A full backlog blocks `connect` for as long as the send timeout. Python's own timeout
        # makes the socket non-blocking, which fails at once instead.
        _limit_sending(sock, NEAR.connect)
        sock.connect(str(path))
        _limit_sending(sock, NEAR.call)
        if target.machine:
            return Opened(sock, faults.dorad_on(target.machine), FAR, "localhost", {}, None)
        server = faults.dorad_at(path, peer_of(sock).pid)
        return Opened(sock, server, NEAR, "localhost", {}, None)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BlockingIOError:
        sock.close()
        raise faults.not_responding(faults.dorad_at(path, None), NEAR.connect) from None
    except OSError as error:
        sock.close()
        hint = "check the path of the socket"
        if isinstance(error, PermissionError):
            hint = "use the account that started that dorad; for the machine's own dorad, join the "
            hint += "group `dorad`"
        message = f"{path} cannot be opened: {error.strerror or error}"
        raise ControlError("refused", message, hint) from None


def _open_tcp(target: Tcp) -> Opened | None:
    server = faults.coordinator_at(target)
    unencrypted = target.tls is None and not is_loopback(target.host)
    # At an address of this machine it may only not run yet.
    if unencrypted and not is_here(target.host):
        raise _needs_tls(f"{server.name} is on another machine, so it")
    try:
        sock = socket.create_connection((target.host, target.port), FAR.connect)
    except ConnectionRefusedError:
        return None
    except TimeoutError:
        raise faults.not_responding(server, FAR.connect) from None
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        reason = getattr(error, "strerror", None) or "that is not a host's name"
        message = f"{server.name} cannot be reached: {reason}"
        raise ControlError("unavailable", message, "check the address and the network") from None
    if unencrypted:
        sock.close()
        raise _needs_tls(server.name)
    try:
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _limit_sending(sock, FAR.call)
        context = _context(target, sock)
        host = f"[{target.host}]" if ":" in target.host else target.host
        return Opened(sock, server, FAR, f"{host}:{target.port}", _authorization(target), context)
    except BaseException:
        sock.close()
        raise


def _needs_tls(subject: str) -> ControlError:
    return ControlError(
        "refused",
        f"{subject} needs TLS, and no `ca` is set",
        "set `coordinator: {ca: FILE}` in ~/.config/dora/config.yml to the authority of its fleet",
    )


def _context(target: Tcp, sock: socket.socket) -> ssl.SSLContext | None:
    """Return the context for TLS; without TLS, check who listens, which TLS does otherwise."""
    if target.tls is not None:
        from dorad.control.privatefile import check_private
        from dorad.control.tls import client_context

        context = client_context(target.tls.ca, target.tls.certificate, target.tls.key)
        if target.tls.certificate is not None:
            check_private(target.tls.key or target.tls.certificate)
        return context
    if target.token is not None:
        from dorad.control.loopback import check_listener

        # For root that is the user of the coordinator's service, for others themselves.
        check_listener(sock.getpeername()[0], target.port, _owner_of(target.token))
    return None


def _owner_of(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:  # reported when it is read
        return os.geteuid()


def _authorization(target: Tcp) -> dict[str, str]:
    if target.token is None:
        return {}
    from dorad.control.token import read_token

    return {"Authorization": f"Bearer {read_token(target.token)}"}


def _not_running(targets: Sequence[UnixSocket | Tcp]) -> ControlError:
    """Return the error for a client that found none of these servers."""
    paths = [target.path for target in targets if isinstance(target, UnixSocket)]
    others = [target for target in targets if isinstance(target, Tcp)]
    at = " or ".join(map(str, others))
    if not paths:
        for target in others:
            why = why_silent(target.token.parent) if target.token and is_here(target.host) else ""
            if why:
                hint = "if the fleet has several coordinators, set DORA_COORDINATOR_ADDR=A,B"
                message = f"the coordinator at {target} does not answer: {why}"
                return ControlError("unavailable", message, hint)
        hint = "start one there with `dorafleet up cluster.yml` or `sudo systemctl start dorafleet`"
        return ControlError("unavailable", f"no coordinator is running at {at}", hint)
    name = paths[0].parent.name
    command = f"dora up --coordinator-port {name}" if name.isdecimal() else "dora up"
    message = f"no dorad is running at {' or '.join(map(str, paths))}"
    if others:
        message += f", and no coordinator at {at}"
    hint = f"start one with `{command}`"
    if any(path.parent == rendezvous.SYSTEM_DIR for path in paths) and SERVICE.exists():
        hint = f"`sudo systemctl enable --now dorad` starts the machine's, `{command}` your own"
    if owner := _other_owner():
        hint += f"; the user {owner} runs one, which commands of that user reach"
    if rendezvous.run_sockets(paths[0].parent):
        hint += "; what `dora run` runs is seen by `dora trace` and `dora graph --live` alone"
    if not others and _has_coordinator():
        hint += "; the fleet of this machine's coordinator is at `--coordinator-addr 127.0.0.1`"
    return NoDaemonError("unavailable", message, hint)


def _other_owner() -> str:
    """Return the user whose daemon runs on this machine; empty if only this user has one."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            owner, words = folder.stat().st_uid, (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is hidden
            continue
        if owner != os.geteuid() and b"dorad.daemon.main" in words:
            try:
                return pwd.getpwuid(owner).pw_name
            except KeyError:
                return str(owner)
    return ""


def _has_coordinator() -> bool:
    """Return True if this user may use the coordinator of this machine, if that runs."""
    from dorad.control.choosing import coordinator_folder, token_file

    return os.access(token_file(coordinator_folder()), os.R_OK)


def _limit_sending(sock: socket.socket, seconds: float) -> None:
    timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
