"""The connection between a replayer and the `dora replay` that has started it: lines of text.

to the replayer      pause  resume  toggle  step  speed X  faster  slower  quiet N  restless N
from the replayer    report TEXT  quiet N     (asks for an answer when all nodes sleep)
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUIET_TIMEOUT_S = 30.0


class RestlessError(RuntimeError):
    """Some node does not go to sleep."""


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

    @property
    def connected(self) -> bool:
        """Whether there is a command at the other end."""
        return self._socket is not None

    def report(self, text: str) -> None:
        """Show a line to the user."""
        if not self._send(f"report {text}"):
            print(text, flush=True)

    def commands(self) -> Iterator[str]:
        """Yield the orders that have come."""
        self._read(0)
        while self._commands:
            yield self._commands.pop(0)

    def wait_until_quiet(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Wait until no message is queued and all nodes sleep; call `meanwhile` in between.

        Raises:
            RestlessError: a node does not go to sleep.
        """
        self._asked += 1
        number = str(self._asked)
        if not self._send(f"quiet {number}"):
            raise RestlessError("only `dora replay` can tell when the nodes have finished")
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        while number not in self._answers:
            self._read(0.0 if meanwhile is not None else 1.0)
            if meanwhile is not None:
                meanwhile()
            if self._socket is None or time.monotonic() > deadline:
                raise RestlessError("the nodes do not go to sleep; --step needs that they wait")
        self._answers.discard(number)

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
                raise RestlessError(f"these nodes do not go to sleep: {rest}; --step needs it")
            else:
                self._commands.append(line.decode("utf-8", "replace"))
