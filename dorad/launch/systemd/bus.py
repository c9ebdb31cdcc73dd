"""systemd on the system's D-Bus: calls to it, its signals, and coming back to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Protocol

from jeepney.bus import get_bus

from dorad.launch.systemd.connection import DRIVER, Connection
from dorad.launch.systemd.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.launch.systemd.connection import Signal

    OnSignal = Callable[[str, str, list[Any]], None]

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
SERVICE = f"{SYSTEMD}.Service"
UNIT = f"{SYSTEMD}.Unit"
PROPERTIES = "org.freedesktop.DBus.Properties"

OWN_NAME = "org.dorad"
"""Only root may send messages to whoever has this name: see units/dbus-1/org.dorad.conf."""
MAX_CALLS = 16
"""Calls that wait for an answer at the same time; the bus allows a connection 128."""

_DRIVER_PATH = "/org/freedesktop/DBus"
_OF_MANAGER = f"type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}'"
_OF_UNITS = (
    f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{MANAGER_PATH}/unit',arg0='{SERVICE}'"
)
_OF_OWNER = f"type='signal',sender='{DRIVER}',member='NameOwnerChanged',arg0='{SYSTEMD}'"
_PASSING = frozenset(
    (
        "no-bus",
        "org.freedesktop.DBus.Error.Disconnected",
        "org.freedesktop.DBus.Error.LimitsExceeded",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
        "org.freedesktop.DBus.Error.NoReply",
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.Timeout",
    )
)
"""Errors of the bus, not of systemd's, that a later call may be spared."""
_TRIES = 6
_AGAIN_SECONDS = 0.1
"""Until the second try; the pause doubles from one to the next."""
_ANSWER_SECONDS = 30.0
_RETRY_SECONDS = 0.1
_log = logging.getLogger(__name__)


class Bus(Protocol):
    """What the host needs of D-Bus."""

    on_signal: OnSignal
    """Called with path, member and values of each signal of systemd's."""
    on_back: Callable[[], None]
    """Called when signals may have been missed: the connection was lost and is there again."""

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
    ) -> list[Any]:
        """Call a method of systemd's and return what it returns. Variants are unwrapped.

        A variant of `body` is a tuple of its signature and its value; a descriptor stays the
        caller's. A call that failed for a passing reason is made again, so the method may be called
        twice.

        Raises:
            BusError: systemd refuses, or does not answer.
        """

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""


class SystemBus:
    """The real one. Made by `connect`.

    Signals are those of the process that owns systemd's name, which only the bus itself says.
    """

    def __init__(self) -> None:
        self.on_signal: OnSignal = lambda path, member, values: None
        self.on_back: Callable[[], None] = lambda: None
        self._connection: Connection | None = None
        self._systemd = ""
        """The unique name that owns systemd's; empty while nobody does."""
        self._there = asyncio.Event()
        self._turns = asyncio.Semaphore(MAX_CALLS)
        self._keeping: asyncio.Task[None] | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def connect(cls) -> SystemBus:
        """Connect, and subscribe to systemd's signals before anything is asked of it.

        Raises:
            BusError: there is no D-Bus, or no systemd on it.
        """
        bus = cls()
        connection = await bus._connect()
        bus._keeping = asyncio.create_task(bus._keep(connection), name="connection to D-Bus")
        return bus

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
    ) -> list[Any]:
        """Call a method; waits for its turn, and for a connection that is being made anew."""
        pause = _AGAIN_SECONDS
        async with self._turns:
            for _ in range(_TRIES - 1):
                try:
                    return await self._call(path, interface, member, signature, body)
                except BusError as error:
                    if error.name not in _PASSING or self._closed:
                        raise
                    _log.debug("%s of %s again in %g s: %s", member, path, pause, error)
                await asyncio.sleep(pause)
                pause *= 2
            return await self._call(path, interface, member, signature, body)

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._closed = True
        for task in (self._keeping, self._subscribing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _call(
        self, path: str, interface: str, member: str, signature: str, body: Sequence[Any]
    ) -> list[Any]:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._there.wait()
                if self._connection is None:
                    raise BusError("no-bus", "the connection to D-Bus is closed")
                return await self._connection.call(
                    self._systemd, path, interface, member, signature, body
                )
        except TimeoutError:
            raise BusError("timeout", "it does not answer") from None

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = await Connection.open(get_bus("SYSTEM"), self._on_signal)
                self._connection = connection
                try:
                    await self._subscribe(connection)
                except BaseException:
                    connection.close()
                    raise
        except (OSError, TimeoutError, RuntimeError) as error:
            raise BusError("no-bus", str(error) or type(error).__name__) from error
        if self._systemd:
            self._there.set()
        return connection

    async def _subscribe(self, connection: Connection) -> None:
        for rule in (_OF_OWNER, _OF_MANAGER, _OF_UNITS):
            await _ask(connection, "AddMatch", "s", [rule])
        (owner,) = await _ask(connection, "GetNameOwner", "s", [SYSTEMD])
        self._trust(connection, owner)
        await connection.call(owner, MANAGER_PATH, MANAGER, "Subscribe")
        try:
            await _ask(connection, "RequestName", "su", [OWN_NAME, 0])
        except BusError as error:
            # Strangers can reach us, which costs time and does no harm.
            _log.debug("no name on D-Bus: %s", error)

    def _trust(self, connection: Connection, owner: str) -> None:
        _log.debug("systemd is %r on D-Bus", owner)
        self._systemd = owner
        connection.trusted = {DRIVER, owner}

    async def _keep(self, connection: Connection) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            await connection.lost()
            self._there.clear()
            _log.warning("the connection to D-Bus is lost; nodes go on")
            while not self._there.is_set():
                try:
                    connection = await self._connect()
                except BusError as error:
                    _log.debug("no D-Bus: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)
            _log.info("the connection to D-Bus is there again")
            self.on_back()

    def _on_signal(self, signal: Signal) -> None:
        if signal.sender == DRIVER:
            if signal.member == "NameOwnerChanged" and signal.values[:1] == [SYSTEMD]:
                self._on_owner(signal.values[2])
        elif signal.sender == self._systemd:
            self.on_signal(signal.path, signal.member, signal.values)

    def _on_owner(self, owner: str) -> None:
        """Go on with another systemd: it has executed itself anew (`daemon-reexec`)."""
        connection = self._connection
        if connection is None or owner == self._systemd:
            return
        self._trust(connection, owner)
        if not owner:
            self._there.clear()
            return
        if self._subscribing is not None:
            self._subscribing.cancel()
        self._subscribing = asyncio.create_task(
            self._subscribe_again(connection, owner), name="subscription to systemd"
        )

    async def _subscribe_again(self, connection: Connection, owner: str) -> None:
        try:
            await connection.call(owner, MANAGER_PATH, MANAGER, "Subscribe")
        except BusError as error:
            _log.debug("systemd on D-Bus: %s", error)
            if error.name == "no-bus":
                return
        if self._systemd == owner:
            self._there.set()
            self.on_back()


async def _ask(
    connection: Connection, member: str, signature: str, body: Sequence[Any]
) -> list[Any]:
    """Call a method of the bus itself."""
    return await connection.call(DRIVER, _DRIVER_PATH, DRIVER, member, signature, body)
