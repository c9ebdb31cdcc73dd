"""`ReplayControl`: pause a `dora replay` that runs, send single messages, change its speed."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from dorad.record.replay.control import NOT_YET, is_command, socket_of

if TYPE_CHECKING:
    from typing import Self

TIMEOUT_S = 30.0
POLL_S = 0.05


class ReplayControl:
    """Controls a `dora replay` of the same user on this machine. A context manager.

    Its methods return the new state, `paused` or `speed X`. They wait until the replay has begun,
    and raise `RuntimeError` when it has ended.
    """

    def __init__(self, pid: int, timeout: float = TIMEOUT_S) -> None:
        """Control the command with a process id; `timeout` is that of each answer, in seconds."""
        self._path = str(socket_of(pid))
        self._timeout = timeout
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the replay continues."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def pause(self) -> str:
        """Wait before the next message."""
        return self._ask("pause")

    def resume(self) -> str:
        """Continue."""
        return self._ask("resume")

    def step(self) -> str:
        """Pause, and send the next message."""
        return self._ask("step")

    def set_speed(self, speed: float) -> str:
        """Replay `speed` times as fast, 0 without waits. Raises ValueError if it is not a speed."""
        text = f"speed {speed:g}"
        if not is_command(text):
            raise ValueError(f"{speed} is not a speed")
        return self._ask(text)

    def _ask(self, command: str) -> str:
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            answer = self._answer(command, deadline)
            if answer is not None:
                return answer
            time.sleep(POLL_S)
        raise TimeoutError(f"the replay has not answered within {self._timeout:g} s")

    def _answer(self, command: str, deadline: float) -> str | None:
        """Return the answer to a command; None if the replay has not begun."""
        try:
            if self._socket is None:
                self._socket = _connected(self._path)
            self._socket.settimeout(max(POLL_S, deadline - time.monotonic()))
            self._socket.sendall(command.encode() + b"\n")
            line = self._read_line()
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (ConnectionError, EOFError) as error:
            raise RuntimeError("the replay has ended") from error
        return None if line == NOT_YET else line.decode().strip()

    def _read_line(self) -> bytes:
        assert self._socket is not None
        line = b""
        while not line.endswith(b"\n"):
            part = self._socket.recv(1)  # lines are short, and rare
            if not part:
                raise EOFError
            line += part
        return line


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
