"""`dorafleet console HOST`: the console of one robot, over a real SSH connection."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX

import asyncssh
import pytest

from dorad.control.errors import ControlError
from dorafleet.console.app import ConsoleApp
from dorafleet.console.link.server import Server
from dorafleet.console.link.tunnel import FIND, Tunnel
from dorafleet.console.options import ConsoleOptions
from tests.fleet.sshd import SSHD, Host

from .driving import Driven
from .fakefleet import FakeFleet

pytestmark = pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt install openssh-server")
SHELL = """\
#!/bin/sh
XDG_RUNTIME_DIR={folder}
export XDG_RUNTIME_DIR
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""


@contextmanager
def robot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Run a robot that the operator's ~/.ssh/config calls arm017."""
    operator = asyncssh.generate_private_key("ssh-ed25519")
    with tempfile.TemporaryDirectory(prefix="dora-test-") as text:  # a socket's path is short
        host = Host(Path(text) / "r", "arm017")
        host.start(asyncssh.generate_private_key("ssh-ed25519"), operator)
        try:
            host.script("shell", SHELL)
            home = Path(text) / "home"
            host.known_in(home, operator)
            entry = f"Host arm017\n  HostName 127.0.0.1\n  Port {host.port}\n"
            (home / ".ssh" / "config").write_text(entry)
            monkeypatch.setenv("HOME", str(home))
            monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
            yield host
        finally:
            host.stop()


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give folders away")
@pytest.mark.parametrize("whose", ["ours", "a stranger's", "a link to ours"])
def test_a_folder_that_a_stranger_has_made_on_a_robot_is_passed_over(whose: str) -> None:
    with tempfile.TemporaryDirectory(prefix="dora-test-") as text, socket.socket(AF_UNIX) as ours:
        folder = Path(text, "dora")
        made = Path(text, "other") if whose == "a link to ours" else folder
        made.mkdir()
        ours.bind(str(made / "control.sock"))
        if whose == "a link to ours":
            folder.symlink_to(made)
        if whose == "a stranger's":
            os.chown(folder, 65534, 65534)
        found = subprocess.run(
            FIND, env={**os.environ, "XDG_RUNTIME_DIR": text}, capture_output=True, check=False
        )
        assert (found.stdout.decode() == f"{folder}/control.sock") == (whose == "ours")


async def test_the_console_of_a_robot_shows_its_dorad_and_copies_commands_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with robot(monkeypatch) as host:
        tunnel = Tunnel("arm017")
        with pytest.raises(ControlError, match="`arm017` has no running dorad"):
            await tunnel.open()
        (host.folder / "dora").mkdir()
        fleet = FakeFleet(2)
        await fleet.serve(host.folder / "dora" / "control.sock")
        app = ConsoleApp(Server(tunnel.open, tunnel.close, host="arm017"), ConsoleOptions())
        try:
            async with app.run_test(size=(160, 45)) as pilot:
                driven = Driven(app, pilot)
                text = await driven.until("2 of 2")
                assert text.startswith(" arm017  live")
                await driven.press("y")
                await driven.until("$ ssh arm017 'dorafleet robots --order worst'")
                await driven.until("it needs dorafleet on arm017")
        finally:
            await fleet.close()
