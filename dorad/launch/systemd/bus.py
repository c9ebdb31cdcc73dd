"""systemd on the system's D-Bus: calls, signals, and reconnecting."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from jeepney.bus import get_bus

from dorad.launch.systemd.connection import DRIVER, Connection, Signal
from dorad.launch.systemd.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    OnSignal = Callable[[str, str, list[Any]], None]

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
SERVICE = f"{SYSTEMD}.Service"
UNIT = f"{SYSTEMD}.Unit"
PROPERTIES = "org.freedesktop.DBus.Properties"

OWN_NAME = "org.dorad"
"""Only root may send messages to the owner of this name: see units/dbus-1/org.dorad.conf."""
MAX_CALLS = 16
"""Maximum number of calls that wait for an answer; the bus allows a connection 128."""

_DRIVER_PATH = "/org/freedesktop/DBus"
_OF_MANAGER = f"type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}'"
_OF_UNITS = (
    f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{MANAGER_PATH}/unit',arg0='{SERVICE}'"
)
_OF_OWNER = f"type='signal',sender='{DRIVER}',member='NameOwnerChanged',arg0='{SYSTEMD}'"
_TRANSIENT = frozenset(
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
"""Errors of the bus, not of systemd, after which another try may succeed."""
_TRIES = 6
_FIRST_PAUSE_SECONDS = 0.1
"""Pause before the second try; it doubles for each further one."""
_ANSWER_SECONDS = 30.0
_RECONNECT_SECONDS = 0.1
_log = logging.getLogger(__name__)


class SystemBus:
    """The system's message bus. Made by `connect`.

    Accepts signals only from the owner of systemd's name, which the bus itself reports.
    """

    def __init__(self) -> None:
        self.on_signal: OnSignal = lambda path, member, values: None
        """Called with path, member and values of each signal of systemd's."""
        self.on_reconnect: Callable[[], None] = lambda: None
        """Called when signals may have been missed: the connection was lost and is back."""
        self._connection: Connection | None = None
        self._systemd = ""
        """The unique name that owns systemd's name; empty while it has no owner."""
        self._ready = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._reconnecting: asyncio.Task[None] | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def connect(cls) -> SystemBus:
        """Connect, and subscribe to systemd's signals before the first call.

        Raises:
            BusError: D-Bus cannot be reached, or has no systemd.
        """
        bus = cls()
        connection = await bus._connect()
        bus._reconnecting = asyncio.create_task(
            bus._reconnect(connection), name="connection to D-Bus"
        )
        return bus

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
    ) -> list[Any]:
        """Call a method of systemd's and return its results. Variants are unwrapped.

        A variant of `body` is a tuple of its signature and its value; a descriptor stays the
        caller's. Waits for a free slot, and for a lost connection. A call that failed for a
        transient reason is repeated, so the method may run twice.

        Raises:
            BusError: systemd refuses, or does not answer.
        """
        pause = _FIRST_PAUSE_SECONDS
        async with self._slots:
            for _ in range(_TRIES - 1):
                try:
                    return await self._call(path, interface, member, signature, body)
                except BusError as error:
                    if error.name not in _TRANSIENT or self._closed:
                        raise
                    _log.debug("%s of %s is repeated in %g s: %s", member, path, pause, error)
                await asyncio.sleep(pause)
                pause *= 2
            return await self._call(path, interface, member, signature, body)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._closed = True
        for task in (self._reconnecting, self._subscribing):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _call(
        self, path: str, interface: str, member: str, signature: str, body: Sequence[Any]
    ) -> list[Any]:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._ready.wait()
                if self._connection is None:
                    raise BusError("no-bus", "the connection to D-Bus is closed")
                return await self._connection.call(
                    self._systemd, path, interface, member, signature, body
                )
        except TimeoutError:
            raise BusError("timeout", "systemd does not answer") from None

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
            self._ready.set()
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
            # Now any user may send messages to this connection, which only costs time.
            _log.debug("the name %s is refused: %s", OWN_NAME, error)

    def _trust(self, connection: Connection, owner: str) -> None:
        _log.debug("systemd's name on D-Bus belongs to %r", owner)
        self._systemd = owner
        connection.trusted = {DRIVER, owner}

    async def _reconnect(self, connection: Connection) -> None:
        """Connect again each time the connection is lost."""
        while True:
            await connection.lost()
            self._ready.clear()
            _log.warning("the connection to D-Bus is lost; nodes keep running")
            while not self._ready.is_set():
                try:
                    connection = await self._connect()
                except BusError as error:
                    _log.debug("D-Bus cannot be reached: %s", error)
                    await asyncio.sleep(_RECONNECT_SECONDS)
            _log.info("connected to D-Bus again")
            self.on_reconnect()

    def _on_signal(self, signal: Signal) -> None:
        if signal.sender == DRIVER:
            if signal.member == "NameOwnerChanged" and signal.values[:1] == [SYSTEMD]:
                self._on_owner(signal.values[2])
        elif signal.sender == self._systemd:
            self.on_signal(signal.path, signal.member, signal.values)

    def _on_owner(self, owner: str) -> None:
        """Follow systemd to its new name: it has executed itself again (`daemon-reexec`)."""
        connection = self._connection
        if connection is None or owner == self._systemd:
            return
        self._trust(connection, owner)
        if not owner:
            self._ready.clear()
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
            _log.debug("systemd refuses the subscription: %s", error)
            if error.name == "no-bus":
                return
        if self._systemd == owner:
            self._ready.set()
            self.on_reconnect()


async def _ask(
    connection: Connection, member: str, signature: str, body: Sequence[Any]
) -> list[Any]:
    """Call a method of the bus itself."""
    return await connection.call(DRIVER, _DRIVER_PATH, DRIVER, member, signature, body)
