"""An operator's machine with a fleet: commands, the coordinator that they start, its end."""

import json
import os
import signal
from contextlib import suppress

from dorad.control.client import Client
from dorad.control.target import Tcp, TlsFiles
from dorafleet.cli.main import run_command
from tests.fleet.fakerobot import DEADLINE_S
from tests.harness.commands import run_command as run_program
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

UNSET = ("DORA_SOCKET", "DORA_COORDINATOR_ADDR", "DORA_COORDINATOR_PORT", "XDG_CONFIG_HOME")


class Site:
    """A machine of an operator, and robots."""

    def __init__(self, fleet, folder, capsys):
        self.fleet = fleet
        self.state = folder / "dorafleet"
        self.port = free_port()
        self._capsys = capsys

    def file(self):
        return str(self.fleet.file(self.port))

    def run(self, *words):
        """Run a command; return its code and what it prints."""
        if words[0] == "up":  # the process that starts a coordinator is its parent
            done = run_program("dorafleet", words, timeout=2 * DEADLINE_S)
            return done.returncode, done.stdout, done.stderr
        code = run_command(words)
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err

    def client(self):
        tls = TlsFiles(self.state / "authority.pem")
        target = Tcp("127.0.0.1", self.port, self.state / "token", tls)
        return Client(target)

    def kill(self):
        """End what a test has left."""
        with suppress(Exception), self.client() as client:
            os.kill(client.status().pid, signal.SIGKILL)

    def until(self, *words, holds):
        """Repeat a command until its JSON is as expected; return it."""
        code, out, _ = wait_until(
            lambda: self.run(*words), lambda seen: seen[1] and holds(json.loads(seen[1]))
        )
        return code, json.loads(out)
