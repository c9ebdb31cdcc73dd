"""A private D-Bus daemon with a fake systemd on it, and connections of untrusted users."""

import queue
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jeepney import HeaderFields, MessageType, new_error, new_method_return, new_signal
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.low_level import parse_signature
from jeepney.wrappers import DBusAddress

from dorad.launch.systemd.bus import MANAGER, MANAGER_PATH, PROPERTIES, SYSTEMD
from dorad.launch.systemd.messages import BusError, marshallable
from tests.launch.fakesystemd import Systemd

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="max_replies_per_connection">{replies}</limit>
</busconfig>
"""
SIGNATURES = {
    "GetUnitByPID": "o",
    "ListUnitsByPatterns": "a(ssss)",
    "StartTransientUnit": "o",
    "GetUnit": "o",
    "StopUnit": "o",
}
KINDS = {str: "s", int: "t", bool: "b"}


class PrivateBus:
    """A D-Bus daemon without any policy: only checks of dorad protect it."""

    def __init__(self, folder: Path, *, replies: int = 128) -> None:
        self.folder = folder
        self.socket = folder / "system_bus_socket"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIG.format(socket=self.socket, replies=replies))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:path={self.socket}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        words = ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile"]
        self._process = subprocess.Popen(
            [*words, "--nosyslog", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        # Printed once it listens.
        assert self._process.stdout.readline().startswith(b"unix:")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def stranger(self) -> DBusConnection:
        return open_dbus_connection(self.address, enable_fds=True)


class SystemdOnBus(Systemd):
    """The fake systemd on the bus: under its name, from its own thread."""

    def __init__(self, bus: PrivateBus) -> None:
        super().__init__(bus.folder / "environments")
        self.on_signal = self._emit
        self.clients: list[str] = []
        """Unique names of those who have subscribed."""
        self.unanswered: set[str] = set()
        """Methods that get no answer."""
        self.waiting = 0
        """Received calls without an answer."""
        self.most_waiting = 0
        self._later: list[Callable[[], None]] = []
        self.soon = self._later.append
        self._bus = bus
        self._work: queue.Queue[Callable[[], None]] = queue.Queue()
        self._stopped = False
        self._connect()

    def _connect(self) -> None:
        self._connection = open_dbus_connection(self._bus.address, enable_fds=True)
        self._connection.send_and_get_reply(message_bus.RequestName(SYSTEMD))
        self._thread = threading.Thread(target=self._serve, args=(self._connection,))
        self._thread.start()

    @property
    def name(self) -> str:
        return str(self._connection.unique_name)

    def do(self, work: Callable[[], None]) -> None:
        """Run a function in the thread."""
        self._work.put(work)

    def reexec(self) -> None:
        """Do as `systemctl daemon-reexec`: leave the bus, and return with another unique name."""
        self.close()
        self._stopped = False
        self._connect()

    def close(self) -> None:
        self._stopped = True
        self._thread.join()
        self._connection.close()

    def _serve(self, connection: DBusConnection) -> None:
        while not self._stopped:
            while not self._work.empty():
                self._work.get()()
            try:
                message = connection.receive(timeout=0.01)
            except TimeoutError:
                continue
            except (OSError, EOFError):
                return
            if message.header.message_type is MessageType.method_call:
                self._reply(message)

    def _reply(self, message: Any) -> None:
        fields = message.header.fields
        member = fields[HeaderFields.member]
        if member == "Subscribe":
            self.clients.append(fields[HeaderFields.sender])
            self._connection.send(new_method_return(message))
            return
        if member in self.unanswered:
            self.waiting += 1
            self.most_waiting = max(self.waiting, self.most_waiting)
            return
        for fd in self._descriptors(message):
            fd.close()
        body = list(message.body)
        try:
            values = self.answer(fields[HeaderFields.path], member, body)
        except BusError as error:
            self._connection.send(new_error(message, error.name, "s", (str(error),)))
            return
        signature, values = _typed(member, values)
        self._connection.send(new_method_return(message, signature, values))
        while self._later:
            self._later.pop(0)()

    def _descriptors(self, message: Any) -> list[Any]:
        if message.header.fields[HeaderFields.member] != "StartTransientUnit":
            return []
        return [value for _, (kind, value) in message.body[2] if kind == "h"]

    def _emit(self, path: str, member: str, values: list[Any]) -> None:
        interface = PROPERTIES if path != MANAGER_PATH else MANAGER
        signature = {
            "PropertiesChanged": "sa{sv}as",
            "JobRemoved": "uoss",
            "UnitRemoved": "so",
            "Reloading": "b",
        }[member]
        self._connection.send(changed(path, interface, member, signature, values))


def changed(path: str, interface: str, member: str, signature: str, values: list[Any]) -> Any:
    """Return a signal; plain dictionaries become dictionaries of variants."""
    typed = [
        {k: (KINDS[type(v)], v) for k, v in each.items()} if isinstance(each, dict) else each
        for each in values
    ]
    shape = parse_signature(list(f"({signature})"))
    address = DBusAddress(path, interface=interface)
    return new_signal(address, member, signature, marshallable(shape, typed))


def addressed(message: Any, to: str) -> Any:
    """Return the message, addressed to one connection."""
    message.header.fields[HeaderFields.destination] = to
    return message


def _typed(member: str, values: list[Any]) -> tuple[str, Any]:
    if member == "Get":
        (value,) = values
        return "v", ((KINDS.get(type(value), "aay"), value),)
    signature = SIGNATURES.get(member, "")
    if not signature:
        return "", ()
    return signature, marshallable(parse_signature(list(f"({signature})")), values)
