"""The packets between a run and its guard: short words, one packet a message.

Run to guard: `spawn ID` with three descriptors (the packed command in a memfd, stdout, stderr)
and `signal PID NUMBER`. Guard to run: `spawned ID PID CORES`, `failed ID STAGE ERRNO`,
`exited PID STATUS` (as waitpid gives it). A command may be larger than a packet, hence the memfd;
its parts are NUL-terminated, the one byte that neither arguments nor environments can hold.

Imports nothing: the guard pays for every import before the first node starts.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PACKET = 4096
"""Bytes no packet exceeds."""

STAGE_FOLDER = "folder"
STAGE_EXECUTE = "execute"


def pack_command(
    argv: Sequence[bytes], cwd: bytes, env: Mapping[bytes, bytes], cores: Iterable[int]
) -> bytes:
    """The content of a command's memfd.

    Raises:
        ValueError: an argument, the folder or a variable contains a NUL byte.
    """
    variables = [name + b"=" + value for name, value in env.items()]
    parts = [cwd, join_numbers(cores), str(len(argv)).encode(), *argv, *variables]
    if any(b"\0" in part for part in parts):
        raise ValueError("an argument or environment variable contains a NUL byte")
    return b"".join(part + b"\0" for part in parts)


def unpack_command(
    data: bytes,
) -> tuple[list[bytes], bytes, dict[bytes, bytes], tuple[int, ...]]:
    """The argv, cwd, env and cores that `pack_command` was given."""
    cwd, cores, count, *rest = data.split(b"\0")[:-1]
    argv, variables = rest[: int(count)], rest[int(count) :]
    env = dict(variable.split(b"=", 1) for variable in variables)
    return argv, cwd, env, split_numbers(cores)


def join_numbers(numbers: Iterable[int]) -> bytes:
    """Numbers as one word: `0,2,5`; `-` when there are none."""
    return ",".join(map(str, numbers)).encode() or b"-"


def split_numbers(word: bytes) -> tuple[int, ...]:
    """The numbers of `join_numbers`."""
    return () if word == b"-" else tuple(map(int, word.split(b",")))
