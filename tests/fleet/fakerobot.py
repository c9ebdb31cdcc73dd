"""Robots behind a real SSH server on loopback: facts in, commands out, no shell behind it."""

import asyncio
import hashlib
import json
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from tests.harness.waiting import DEADLINE_S, wait_until

MSG_CHANNEL_CLOSE = 97
"""Of RFC 4254."""
RUNNING = {"coordinator": {"status": "running"}, "active_dataflows": 1}
FLOW = {"uuid": "u-1", "name": "arm", "status": "Running", "nodes": 3}


@dataclass
class FakeRobot:
    """The state of a robot, and the commands that it received. Tests set fields as they need."""

    uid: int = 0
    architecture: str = "arm64"
    version: str | None = None
    service: str = "inactive"
    enabled: bool = False
    offered: str = "1.0.0"
    """The version of the package that is copied here."""
    sudo: bool = True
    apt_fails: str = ""
    starts: bool = True
    disk_full: bool = False
    dataflows: list[dict[str, object]] = field(default_factory=lambda: [FLOW])
    hanging: set[str] = field(default_factory=set)
    """First words of commands that never end."""
    dropping: set[str] = field(default_factory=set)
    """First words of commands that break the connection."""
    flooding: set[str] = field(default_factory=set)
    """First words of commands that print without end."""
    dripping: set[str] = field(default_factory=set)
    """First words of commands that print a byte now and then without end."""
    never_closing: bool = False
    """True if it ignores that a command is closed."""
    answers: dict[str, tuple[int, str | bytes, str]] = field(default_factory=dict)
    """Replaced answers by first words: exit code, output, errors."""
    programs: dict[str, Callable[[list[str], bytes], tuple[int, bytes, bytes]]] = field(
        default_factory=dict
    )
    """Programs by their first word: arguments and input to exit code, output, errors."""
    commands: list[list[str]] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    """Sent to commands, such as `TERM`."""
    files: dict[str, bytes] = field(default_factory=dict)
    connections: int = 0

    def all_signals(self, count: int) -> list[str]:
        """Return `signals` once there are so many: they arrive after the command has ended here."""
        return wait_until(lambda: self.signals, lambda seen: len(seen) >= count)

    def ran(self, *words: str) -> bool:
        """Return True if a command contained these words in sequence."""
        return any(
            list(words) == command[at : at + len(words)]
            for command in self.commands
            for at in range(len(command))
        )

    def program(
        self, words: list[str]
    ) -> tuple[Callable[[list[str], bytes], tuple[int, bytes, bytes]] | None, list[str]]:
        """Return the program that a command calls, and its arguments."""
        if words[:2] == ["sudo", "-n"] and self.sudo:
            words = words[2:]
        if words[0] == "env":
            words = words[2:]
        return self.programs.get(words[0]), words[1:]

    def answer(self, words: list[str]) -> tuple[int, str | bytes, str]:
        if words[:2] == ["sudo", "-n"]:
            if not self.sudo:
                return 1, "", "sudo: a password is required\n"
            words = words[2:]
        if words[0] == "env":
            words = words[3:] if words[2].startswith("DORA_SOCKET=") else words[2:]
        for first in (" ".join(words[:2]), words[0]):
            if first in self.answers:
                return self.answers[first]
        match words:
            case ["true"] | ["rm", *_] | ["journalctl", "--sync"]:
                return 0, "", ""
            case ["id", "-u"]:
                return 0, f"{self.uid}\n", ""
            case ["dpkg", "--print-architecture"]:
                return 0, f"{self.architecture}\n", ""
            case ["dpkg-query", *_]:
                if self.version is None:
                    return 1, "", "dpkg-query: no packages found matching dorad\n"
                return 0, f"installed {self.version}", ""
            case ["systemctl", "is-active", _]:
                return (0 if self.service == "active" else 3), f"{self.service}\n", ""
            case ["systemctl", "is-enabled", _]:
                return int(not self.enabled), "enabled\n" if self.enabled else "disabled\n", ""
            case ["systemctl", "enable", "--now", _]:
                self.enabled = True
                self.service = "active" if self.starts else "failed"
                return 0, "", "Created symlink\n"
            case ["mktemp", *_]:
                return 0, "/var/tmp/dorafleet.abc\n", ""
            case ["sha256sum", "--", path]:
                return 0, f"{hashlib.sha256(self.files[path]).hexdigest()}  {path}\n", ""
            case ["systemd-run", *_]:
                if self.apt_fails:
                    return 100, "", ""
                self.version = self.offered
                return 0, "", ""
            case ["journalctl", *_]:
                return 0, self.apt_fails, ""
            case ["dora", *_] if self.version is None:
                return 127, "", "sh: dora: not found\n"
            case ["dora", "status", *_]:
                if self.service != "active":
                    return 1, json.dumps({"daemon": {"status": "not running"}, "error": "off"}), ""
                daemon = {"status": "running", "version": self.version}
                return 0, json.dumps(RUNNING | {"daemon": daemon}), ""
            case ["dora", "list", *_]:
                return 0, "".join(f"{json.dumps(flow)}\n" for flow in self.dataflows), ""
        return 127, "", f"sh: {words[0]}: not found\n"


class Server(asyncssh.SSHServer):
    """Counts connections, and the maximum at once."""

    def __init__(self, robot: FakeRobot, counts: dict[str, int]) -> None:
        self._robot = robot
        self._counts = counts

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._robot.connections += 1
        self._counts["now"] += 1
        self._counts["most"] = max(self._counts["most"], self._counts["now"])

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts["now"] -= 1


class Servers:
    """SSH servers in their own thread, with their own event loop."""

    def __init__(self, authorized: Path) -> None:
        self._authorized = str(authorized)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listeners: list[asyncssh.SSHAcceptor] = []
        self.counts = {"now": 0, "most": 0}

    def start(self, robot: FakeRobot, *host_keys: asyncssh.SSHKey) -> int:
        """Listen for a robot, and return the port."""

        async def listen() -> asyncssh.SSHAcceptor:
            return await asyncssh.listen(
                "127.0.0.1",
                0,
                server_factory=lambda: Server(robot, self.counts),
                server_host_keys=list(host_keys),
                authorized_client_keys=self._authorized,
                process_factory=lambda process: serve(robot, process),
                encoding=None,
            )

        listener = self._call(listen)
        self._listeners.append(listener)
        return listener.get_port()

    def end(self) -> None:
        """End all servers, their hanging commands, and the thread."""

        async def close() -> None:
            for listener in self._listeners:
                listener.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._call(close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def _call(self, function: Callable[[], object]) -> object:
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result(DEADLINE_S)


async def serve(robot: FakeRobot, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Answer one command."""
    assert process.command is not None
    words = shlex.split(process.command)
    robot.commands.append(words)
    vars(process)["signal_received"] = robot.signals.append
    if words[0] in robot.dropping:
        process.channel.get_connection().abort()
        return
    if robot.never_closing:
        channel = process.channel
        ignored = {MSG_CHANNEL_CLOSE: lambda *_: True}
        channel._packet_handlers = {**channel._packet_handlers, **ignored}
    if words[0] in robot.hanging:
        await asyncio.Event().wait()
    while words[0] in robot.flooding or words[0] in robot.dripping:
        piece, pause = (b"y" * 65536, 0.0) if words[0] in robot.flooding else (b"y", 0.02)
        process.stdout.write(piece)
        await process.stdout.drain()
        await asyncio.sleep(pause)
    if words[:2] == ["cat", ">"]:
        if robot.disk_full:
            process.stderr.write(b"cat: write error: No space left on device\n")
            process.exit(1)
            return
        robot.files[words[2]] = await process.stdin.read()
        process.exit(0)
        return
    program, arguments = robot.program(words)
    if program is not None:
        given = await process.stdin.read()
        code, out, errors = await asyncio.to_thread(program, arguments, given)
        process.stdout.write(out)
        process.stderr.write(errors)
        process.exit(code)
        return
    code, stdout, stderr = robot.answer(words)
    process.stdout.write(stdout.encode() if isinstance(stdout, str) else stdout)
    process.stderr.write(stderr.encode())
    process.exit(code)
