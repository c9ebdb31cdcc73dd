"""Open recordings of any kind: MCAP files, and `.drec` files of dora 1.x."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from dorad.record import drec, mcap, scan
from dorad.record.drec import DrecReader
from dorad.record.mcap import McapError
from dorad.record.reader import RecordingError, RecordingReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Self

    from dorad.record.encoding import Decoded
    from dorad.record.mcap import Attachment


class Message(Protocol):
    """A recorded message; time in ns since 1970."""

    @property
    def time(self) -> int:
        """When it was sent."""

    @property
    def topic(self) -> str:
        """Its topic, `node/output`."""

    def decode(self) -> Decoded:
        """Return the array and the metadata. Raises ValueError."""


class Recording(Protocol):
    """A recording that can be replayed. A context manager."""

    path: Path
    size: int
    """Bytes of the file."""
    maker: str
    """The other program that made the file; empty if it was dora."""
    metadata: dict[str, dict[str, str]]
    problems: list[str]
    """What is damaged."""

    @property
    def chunk_count(self) -> int:
        """Number of chunks."""

    @property
    def status(self) -> str:
        """COMPLETE, INCOMPLETE, RECOVERED, UNFINISHED if it has no end, or FOREIGN."""

    @property
    def start(self) -> int:
        """The time of the first message in ns since 1970."""

    @property
    def end(self) -> int:
        """The time of the last message in ns since 1970."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *_: object) -> None:
        """Close the file."""

    def attachments(self) -> Iterator[Attachment]:
        """Yield the attachments."""

    def types_of(self, topic: str) -> list[str]:
        """Return the types of a topic's messages."""

    def attachment(self, name: str) -> bytes | None:
        """Return the content of an attachment, None if there is none."""

    def topics(self) -> dict[str, int]:
        """Return the topics, each with its number of messages."""

    def messages(
        self,
        *,
        start: int | None = None,
        end: int | None = None,
        topics: Collection[str] | None = None,
    ) -> Iterator[Message]:
        """Yield messages by time; `start` in ns since 1970 is the first, `end` is exclusive."""


def open_recording(path: Path) -> Recording:
    """Open a recording; its first bytes say what it is.

    Raises:
        RecordingError: it is not a recording, or cannot be read.
    """
    try:
        with os.fdopen(scan.open_file(path), "rb") as file:
            magic = file.read(8)
        if magic == drec.MAGIC:
            return DrecReader(path)
        if magic == mcap.MAGIC:
            return RecordingReader(path)
    except McapError as error:
        raise RecordingError(f"{path} is not a recording: {error}") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}") from error
    raise RecordingError(
        f"{path} is not a recording", "a recording is an MCAP file, or a .drec of dora 1.x"
    )


def open_all(paths: Sequence[Path], stack: ExitStack) -> list[Recording]:
    """Open several recordings until `stack` closes. Raises RecordingError."""
    return [stack.enter_context(open_recording(path)) for path in paths]
