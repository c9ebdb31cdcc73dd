"""Robots behind OpenSSH's sshd, on which `dorad-agent` runs for real, and a network between."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from dorad.release.signature import Signers
from dorad.release.trees import Trees
from dorafleet.inventory.model import Machine
from tests.harness.ports import free_port
from tests.harness.waiting import DEADLINE_S, wait_until

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin:/usr/bin")

CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
ForceCommand {folder}/shell
"""

SHELL = """\
#!/bin/sh
# What a login on the robot runs: its own dorad-agent, and a sudo that changes nothing.
PATH={folder}/bin:$PATH
export PATH
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
AGENT = """\
#!/bin/sh
exec {python} -m dorad.agent.main --state-dir {folder}/state "$@"
"""
SUDO = """\
#!/bin/sh
shift
exec "$@"
"""


@dataclass
class Host:
    """A robot: its sshd, its folder, and how to reach it."""

    folder: Path
    id: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def trees(self) -> Trees:
        return Trees(self.state / "releases", Signers(self.state / "signers"))

    def machine(self, port: int | None = None) -> Machine:
        return Machine(self.id, "127.0.0.1", port=port or self.port)

    def trust(self, line: str) -> None:
        folder = self.state / "signers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "allowed_signers").write_text(f"ada@example.org {line}\n")

    def known_in(self, home: Path, operator: asyncssh.SSHKey) -> None:
        """Make a home from which OpenSSH's files let `operator` reach this robot."""
        ssh = home / ".ssh"
        ssh.mkdir(parents=True, mode=0o700)
        operator.write_private_key(ssh / "id_ed25519")
        (ssh / "id_ed25519").chmod(0o600)
        line = (self.folder / "host_key.pub").read_text()
        (ssh / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {line}")

    def start(self, key: asyncssh.SSHKey, client: asyncssh.SSHKey) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "host_key").touch(0o600)
        key.write_private_key(self.folder / "host_key")
        key.write_public_key(self.folder / "host_key.pub")
        client.write_public_key(self.folder / "authorized_keys")
        self.script("shell", SHELL)
        (self.folder / "bin").mkdir()
        self.script("bin/dorad-agent", AGENT)
        self.script("bin/sudo", SUDO)
        self.port = free_port()
        config = self.folder / "config"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder))
        Path("/run/sshd").mkdir(exist_ok=True)
        assert SSHD is not None
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stderr=log
            )

        def answers() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            return False

        wait_until(answers, why=lambda: (self.folder / "log").read_text())

    def script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text.format(python=sys.executable, folder=self.folder))
        path.chmod(0o755)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)


@dataclass
class Network:
    """A way to a port that breaks each of its first connections after some bytes, or hangs."""

    target: int
    cuts: int = 0
    """So many connections are broken."""
    after: int = 0
    """Bytes from the client that a connection passes before it breaks."""
    back: bool = False
    """They break after bytes to the client instead, and pass exactly so many."""
    hangs: bool = False
    """Accepts connections, and passes nothing, until `hang_up`."""
    passed: int = 0
    connections: int = 0
    port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def __enter__(self) -> Network:
        self._hung_up = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._forward, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(DEADLINE_S)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            server.close()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0)  # they are closed in the next turn

        server = self._server
        asyncio.run_coroutine_threadsafe(end(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def hang_up(self) -> None:
        """End the connections that hang, and each one after them."""
        self._loop.call_soon_threadsafe(self._hung_up.set)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        breaks = self.connections <= self.cuts
        limit = self.after if breaks and not self.back else None
        if self.hangs:
            await self._hung_up.wait()
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.append(far_writer)
        left = self.after if breaks and self.back else None
        back = asyncio.create_task(_copy(far_reader, writer, left))
        with suppress(OSError):
            while data := await reader.read(1 << 14):
                self.passed += len(data)
                far_writer.write(data)
                await far_writer.drain()
                if limit is not None:
                    # Slow enough for the robot to take what it gets.
                    await asyncio.sleep(0.01)
                    limit -= len(data)
                    if limit <= 0:
                        break
        back.cancel()
        # The robot reads what it has got.
        far_writer.close()
        writer.transport.abort()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None = None
) -> None:
    """Copy bytes, no more than `left`; then the connection breaks."""
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data if left is None else data[:left])
            await writer.drain()
            if left is not None:
                left -= len(data)
                if left <= 0:
                    await asyncio.sleep(0.05)  # the client takes what it gets
                    break
        writer.close()
