"""The connections to a `dora replay`, lines of text: of its replayer, and of its clients.

to the replayer      pause  resume  toggle  step  speed X  faster  slower  quiet N  restless TEXT
from the replayer    replayer (first)  report TEXT  state TEXT (the answer to a command)
                     quiet N (asks for an answer when all nodes sleep)
                     advance N TIME (when nothing is left to do before a time; then it is the time)
from clients         pause  resume  toggle  step  speed X  faster  slower
to clients           the TEXT of the state after each command
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

from dorad.shm.rendezvous import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

QUIET_TIMEOUT_S = 30.0
HELLO = "replayer"
NOT_YET = b"there is no replayer\n"
"""The answer to a command before the replayer has started, or after it has ended."""

_COMMANDS = frozenset(("pause", "resume", "toggle", "step", "faster", "slower"))


def is_command(text: str) -> bool:
    """Return True if a line is a command for a replayer."""
    word, _, number = text.partition(" ")
    if word != "speed":
        return text in _COMMANDS
    try:
        return 0 <= float(number) < float("inf")
    except ValueError:
        return False


def socket_of(pid: int) -> Path:
    """Return the socket of the `dora replay` with a process id. Raises OSError."""
    return runtime_dir() / f"replay-{pid}.sock"


class RestlessError(RuntimeError):
    """Some node does not go to sleep, or sends more than others can have queued."""


class Control:
    """The replayer's end. Without a command, there are no orders and no steps."""

    def __init__(self, path: str) -> None:
        """Connect to the socket at `path`, if it is not empty. Raises OSError."""
        self._socket: socket.socket | None = None
        self._data = b""
        self._commands: list[str] = []
        self._answers: set[str] = set()
        self._asked = 0
        if path:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(path)
            self._send(HELLO)

    @property
    def connected(self) -> bool:
        """Whether there is a command at the other end."""
        return self._socket is not None

    def report(self, text: str) -> None:
        """Show a line to the user."""
        if not self._send(f"report {text}"):
            print(text, flush=True)

    def answer(self, state: str) -> None:
        """Report the state after a command."""
        self._send(f"state {state}")

    def commands(self) -> Iterator[str]:
        """Yield the orders that have come."""
        self._read(0)
        while self._commands:
            yield self._commands.pop(0)

    def wait_until_quiet(self, meanwhile: Callable[[], None]) -> None:
        """Wait until no message is queued and all nodes sleep; call `meanwhile` in between.

        Raises:
            RestlessError: a node does not go to sleep.
        """
        number = self._ask("quiet", "")
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        while not self._is_answered(number, 0.0):
            meanwhile()
            if time.monotonic() > deadline:
                raise RestlessError("the nodes do not go to sleep")

    def advance(self, time_ns: int) -> None:
        """Let stepped nodes run until nothing is left to do before a time, which then is the time.

        Raises:
            RestlessError: they cannot be stepped on.
        """
        number = self._ask("advance", f" {time_ns}")
        while not self._is_answered(number, 1.0):
            pass

    def _ask(self, what: str, more: str) -> str:
        self._asked += 1
        if not self._send(f"{what} {self._asked}{more}"):
            raise RestlessError("only `dora replay` can tell when the nodes have finished")
        return str(self._asked)

    def _is_answered(self, number: str, timeout: float) -> bool:
        self._read(timeout)
        if self._socket is None:
            raise RestlessError("`dora replay` has ended")
        answered = number in self._answers
        self._answers.discard(number)
        return answered

    def _send(self, line: str) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.sendall(line.replace("\n", " ").encode() + b"\n")
        except OSError:
            self._socket = None
            return False
        return True

    def _read(self, timeout: float) -> None:
        if self._socket is None or not select.select([self._socket], [], [], timeout)[0]:
            return
        data = self._socket.recv(65536)
        if not data:
            self._socket = None
            return
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode("utf-8", "replace").partition(" ")
            if word == "quiet":
                self._answers.add(rest)
            elif word == "restless":
                raise RestlessError(rest)
            else:
                self._commands.append(line.decode("utf-8", "replace"))
