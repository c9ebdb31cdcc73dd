"""Black boxes for tests, with segments that hold nothing."""

from pathlib import Path

from dorad.record.box import ring

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


def at(second: float) -> int:
    """Return a moment in ns since 1970."""
    return NOW + int(second * SECOND)


def add_segment(folder: Path, number: int, start_ns: int, size: int = 100) -> Path:
    """Add a segment to the ring in a folder."""
    path = folder / ring.RING / ring.segment_name(number, start_ns)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def starts(folder: Path) -> list[float]:
    """Return when the segments in a folder begin, in seconds after `NOW`."""
    return [(each.start_ns - NOW) / SECOND for each in ring.segments(folder)]
