"""The system's D-Bus, as far as systemd is asked over it: calls, signals, and coming back to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Protocol

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Signal = Callable[[str, str, list[Any]], None]

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
SERVICE = f"{SYSTEMD}.Service"
UNIT = f"{SYSTEMD}.Unit"
PROPERTIES = "org.freedesktop.DBus.Properties"

_DAEMON = "org.freedesktop.DBus"
_DAEMON_PATH = "/org/freedesktop/DBus"
_OF_MANAGER = f"type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}'"
_OF_UNITS = (
    f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{MANAGER_PATH}/unit',arg0='{SERVICE}'"
)
_ANSWER_SECONDS = 30.0
_RETRY_SECONDS = 0.1
_log = logging.getLogger(__name__)


class BusError(Exception):
    """systemd refuses, or cannot be asked; `str()` is its reason."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class Bus(Protocol):
    """What the host needs of D-Bus."""

    on_signal: Signal
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
        fds: Sequence[int] = (),
    ) -> list[Any]:
        """Call a method of systemd's and return what it returns. Variants are unwrapped.

        Raises:
            BusError: systemd refuses, or does not answer.
        """

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""


class SystemBus:
    """The real one. Made by `connect`."""

    def __init__(self) -> None:
        self.on_signal: Signal = lambda path, member, values: None
        self.on_back: Callable[[], None] = lambda: None
        self._bus: MessageBus | None = None
        self._there = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls) -> SystemBus:
        """Connect, and subscribe to systemd's signals before anything is asked of it.

        Raises:
            BusError: there is no D-Bus, or no systemd on it.
        """
        bus = cls()
        await bus._connect()
        bus._keeping = asyncio.create_task(bus._keep(), name="connection to D-Bus")
        return bus

    async def call(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        fds: Sequence[int] = (),
    ) -> list[Any]:
        """Call a method; waits for a connection that is being made anew."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._there.wait()
                return await self._call(SYSTEMD, path, interface, member, signature, body, fds)
        except TimeoutError:
            raise BusError("timeout", "it does not answer") from None

    async def close(self) -> None:
        """Let go of the connection. Idempotent."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()
        if self._keeping is not None:
            if not self._there.is_set():
                self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None

    async def _connect(self) -> None:
        bus = MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await bus.connect()
                self._bus = bus
                bus.add_message_handler(self._on_message)
                for rule in (_OF_MANAGER, _OF_UNITS):
                    await self._call(_DAEMON, _DAEMON_PATH, _DAEMON, "AddMatch", "s", [rule])
                await self._call(SYSTEMD, MANAGER_PATH, MANAGER, "Subscribe")
        except (OSError, EOFError, TimeoutError, DBusError) as error:
            bus.disconnect()
            raise BusError("no-bus", str(error) or type(error).__name__) from error
        except BaseException:
            bus.disconnect()
            raise
        self._there.set()

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost."""
        while self._bus is not None:
            try:
                await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
            except (EOFError, OSError) as error:
                _log.debug("D-Bus: %r", error)
            if self._bus is None:
                return
            self._there.clear()
            _log.warning("the connection to D-Bus is lost; nodes go on")
            while not self._there.is_set():
                try:
                    await self._connect()
                except BusError:
                    await asyncio.sleep(_RETRY_SECONDS)
            _log.info("the connection to D-Bus is there again")
            self.on_back()

    async def _call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        fds: Sequence[int] = (),
    ) -> list[Any]:
        assert self._bus is not None
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
            unix_fds=list(fds),
        )
        try:
            reply = await self._bus.call(message)
        except (EOFError, OSError) as error:
            raise BusError("no-bus", "the connection to D-Bus was lost") from error
        if reply is None:
            raise BusError("no-bus", "the connection to D-Bus was lost")
        if reply.message_type is MessageType.ERROR:
            raise BusError(reply.error_name or "", str(reply.body[0]) if reply.body else "")
        return [plain(value) for value in reply.body]

    def _on_message(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.path and message.member:
            self.on_signal(message.path, message.member, [plain(value) for value in message.body])


def plain(value: Any) -> Any:
    """Return a value without the variants that are in it."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value
