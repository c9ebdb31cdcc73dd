"""The lines of a failed node's stderr that explain the failure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

_HEADER = "Traceback (most recent call last):"
_JOINERS = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_CRASH = "Fatal Python error:"
_FRAME = re.compile(r'  File "(?P<file>.+?)", line \d+')
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python3\.\d+/|^<frozen ")
_OWN_PACKAGE = str(Path(__file__).parents[1]) + "/"

MAX_CHARACTERS = 2000
"""Of a line; a node may write lines of a megabyte."""

_FRAMES = 4
_ERROR_LINES = 8
_BLOCKS = 2


def excerpt(lines: Sequence[str], limit: int = 20) -> tuple[str, ...]:
    """Return at most `limit` of `lines`, those that explain why the node failed, none very long.

    For a Python traceback: the frames in the user's files and the error, and those of its cause.
    For a crash of the interpreter: its first lines. Otherwise: the last lines.
    """
    lines = [line[:MAX_CHARACTERS].rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    crash = _last_index(lines, _CRASH)
    starts = _last_chain(lines)
    if crash is not None and (not starts or crash > starts[-1]):
        return tuple(lines[crash : crash + limit])
    if not starts:
        return tuple(lines[-limit:])
    ends = [*starts[1:], len(lines)]
    blocks = list(zip(starts, ends, strict=True))[-_BLOCKS:]
    kept = [line for start, end in blocks for line in _trim_block(lines[start:end])]
    return tuple(kept[-limit:])


def error_line(lines: Sequence[str]) -> str:
    """Return the line of stderr that tells best why the node failed; empty without one.

    Of a traceback that is the line with its exception, of a crash of the interpreter its first
    line, of anything else the last line with a word in it.
    """
    lines = [line[:MAX_CHARACTERS].strip("\r\n") for line in lines]
    crash, starts = _last_index(lines, _CRASH), _last_chain(lines)
    if crash is not None and (not starts or crash > starts[-1]):
        return lines[crash].strip()
    if starts:
        _, lines = _split_block(lines[starts[-1] :])
    words = [line for line in lines if any(map(str.isalnum, line))]
    if starts:
        words = [line for line in words if not line[0].isspace()][:1] or words
    return words[-1].strip() if words else ""


def with_error(headline: str, lines: Sequence[str]) -> str:
    """Return the headline of a failure and, of its `lines` of stderr, the one that tells why."""
    error = error_line([line for line in lines if not line.startswith("hint: ")])
    return headline + (f": {error}" if error else "")


def _last_index(lines: Sequence[str], beginning: str) -> int | None:
    places = [at for at, line in enumerate(lines) if line.startswith(beginning)]
    return places[-1] if places else None


def _last_chain(lines: Sequence[str]) -> list[int]:
    """Return where the last traceback and its causes begin, oldest cause first."""
    starts = [at for at, line in enumerate(lines) if line == _HEADER]
    chain = starts[-1:]
    for earlier, later in reversed(list(pairwise(starts))):
        if not any(line in _JOINERS for line in lines[earlier:later]):
            break
        chain.insert(0, earlier)
    return chain


def _trim_block(block: Sequence[str]) -> list[str]:
    """Return one traceback, shortened, with its error and the joiner to the next one, if any."""
    frames, error = _split_block(block)
    users = [frame for frame in frames if not _is_library(frame)] or frames[-1:]
    if len(users) > _FRAMES:
        users = [users[0], *users[-(_FRAMES - 1) :]]
    left_out = len(frames) - len(users)
    note = [f"  [{left_out} more frames]"] if left_out else []
    joiner = [line for line in error if line in _JOINERS]
    text = [line for line in error if line and line not in _JOINERS]
    return [block[0], *note, *_flatten(users), *text[:_ERROR_LINES], *joiner]


def _split_block(block: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Return the frames of a traceback (each with its lines of code), and the lines after them."""
    frames: list[list[str]] = []
    for at, line in enumerate(block[1:], start=1):
        if _FRAME.match(line):
            frames.append([line])
        elif line.startswith("  ") and frames:
            frames[-1].append(line)
        else:
            return frames, list(block[at:])
    return frames, []


def _is_library(frame: Sequence[str]) -> bool:
    match = _FRAME.match(frame[0])
    file = match["file"] if match else ""
    return bool(_LIBRARY.search(file)) or file.startswith(_OWN_PACKAGE)


def _flatten(frames: Sequence[Sequence[str]]) -> Iterator[str]:
    for frame in frames:
        yield from frame
