"""Read the text of a file that a user names, and report why it cannot be read."""

from __future__ import annotations

import codecs
import errno
from typing import TYPE_CHECKING

from dorad.boundedfile import read_bounded

if TYPE_CHECKING:
    from pathlib import Path

    from dorad.dataflow.problems import Problems

MAX_FILE_SIZE = 8 << 20
"""Bytes."""


def read_text(
    path: Path,
    problems: Problems,
    what: str = "a dataflow's YAML file",
    *,
    largest: int = MAX_FILE_SIZE,
    pipes: bool = False,
) -> str | None:
    """Return the text of the file at `path`; report a problem and return None if it fails.

    `what` describes the expected file in hints; `largest` is in bytes, `pipes` as in
    `read_bounded`.
    """
    try:
        data = read_bounded(path, largest, pipes=pipes)
    except FileNotFoundError:
        problems.at(0, 0, "no such file", f"give the path of {what}")
        return None
    except IsADirectoryError:
        problems.at(0, 0, "is a directory", f"give the path of {what}")
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.EINVAL):
            problems.at(0, 0, f"is {reason}", f"is it {what}?")
        else:
            problems.at(0, 0, f"cannot be read: {reason}")
        return None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problems.at(1, 1, "the file is UTF-16, not UTF-8", "save it as UTF-8")
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        column = len(before) - before.rfind("\n")
        problems.at(
            before.count("\n") + 1,
            column,
            f"the byte 0x{data[error.start]:02x} is not UTF-8",
            "save the file as UTF-8",
        )
        return None
