"""The packets between a process holder and its client.

A packet is words with spaces between. A name or a tag is a word that begins with `=`.

To the holder:
  `spawn ID =TAG` with three descriptors: the packed command in a memfd, stdout, stderr
  `signal PID NUMBER`
  `store =NAME COUNT` with 1 to 3 descriptors, `drop =NAME`
  `forget PID`, `end`

From the holder:
  `spawned ID PID STARTED CORES ERRNO`: STARTED is field 22 of /proc/PID/stat, CORES are those that
  it cannot use, ERRNO (or 0) is that of its scheduling policy
  `failed ID STAGE ERRNO`
  `exited PID STATUS`, with the status of waitpid
  `refused =NAME`: the holder has no room for these descriptors

A shared holder greets each client. If PID is already connected, it sends `busy PID` and ends the
connection. Otherwise it sends `hello VERSION PID`, then `entry =NAME` with descriptors and
`process PID STARTED STATUS =TAG` (STATUS is `-` while it runs) for everything that it holds, then
`ready`.

A command may be larger than a packet, so it is sent in a memfd. Its parts are NUL-terminated,
because neither arguments nor environments can contain that byte.

Few imports, because a process holder pays for each one before it starts the first node.
"""

from __future__ import annotations

from dorad.launch import transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping, Sequence

VERSION = 2
"""Version of these packets; a holder may be older than the daemon."""

MAX_PACKET = 4096
"""Maximum size of a packet in bytes."""

MAX_NAME = 3000
"""Maximum length of a name or tag in bytes."""

MAX_FDS = 3
"""Maximum number of descriptors in one packet."""

STAGE_FOLDER = "folder"
STAGE_EXECUTE = "execute"


class SpawnFailedError(Exception):
    """A process could not be started: the stage that failed, and its errno."""

    def __init__(self, stage: str, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


def pack_name(name: str) -> bytes:
    """Return a name or tag as one word.

    Raises:
        ValueError: it has white space in it, or is longer than MAX_NAME bytes.
    """
    word = name.encode()
    if len(word) > MAX_NAME or word.split() not in ([], [word]):
        raise ValueError(f"not a valid name for a descriptor or process: {name[:80]!r}")
    return b"=" + word


def unpack_name(word: bytes) -> str:
    """Return the name that `pack_name` got."""
    return word[1:].decode()


def pack_command(
    argv: Sequence[bytes],
    cwd: bytes,
    env: Mapping[bytes, bytes],
    cores: Iterable[int],
    schedule: Iterable[int] = (),
) -> bytes:
    """Return the content of a command's memfd.

    Raises:
        ValueError: an argument, the folder or a variable contains a NUL byte.
    """
    variables = [name + b"=" + value for name, value in env.items()]
    numbers = [join_numbers(cores), join_numbers(schedule), str(len(argv)).encode()]
    parts = [cwd, *numbers, *argv, *variables]
    if any(b"\0" in part for part in parts):
        raise ValueError("an argument or environment variable contains a NUL byte")
    return b"".join(part + b"\0" for part in parts)


def unpack_command(
    data: bytes,
) -> tuple[list[bytes], bytes, dict[bytes, bytes], tuple[int, ...], tuple[int, ...]]:
    """Return argv, cwd, env, cores and schedule, as `pack_command` got them."""
    cwd, cores, schedule, count, *rest = data.split(b"\0")[:-1]
    argv, variables = rest[: int(count)], rest[int(count) :]
    env = dict(variable.split(b"=", 1) for variable in variables)
    return argv, cwd, env, split_numbers(cores), split_numbers(schedule)


def join_numbers(numbers: Iterable[int]) -> bytes:
    """Return numbers as one word: `0,2,5`; `-` for none."""
    return ",".join(map(str, numbers)).encode() or b"-"


def split_numbers(word: bytes) -> tuple[int, ...]:
    """Return the numbers that `join_numbers` got."""
    return () if word == b"-" else tuple(map(int, word.split(b",")))


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return a packet and its descriptors; no bytes at the end. Raises OSError as `recvmsg`."""
    return transport.receive(sock, MAX_PACKET, MAX_FDS)
