"""Log files made from records, for tests of reading them."""

from pathlib import Path

from dorad.logrecord import LogRecord, Stream
from dorad.logs.fileline import encode

WHEN = 1795566578.0


def record(
    node: str | None, at: float, text: str, level: str = "stdout", stream: Stream = "stdout"
) -> LogRecord:
    """A record `at` seconds after a moment."""
    return LogRecord(WHEN + at, level, node, text, stream)


def append(path: Path, *records: LogRecord) -> None:
    """Append lines to a log file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(encode(records)))


def numbered(node: str, numbers: range, step: float = 1.0) -> list[LogRecord]:
    """Records with the texts `node number`, `step` seconds apart."""
    return [record(node, number * step, f"{node} {number}") for number in numbers]
