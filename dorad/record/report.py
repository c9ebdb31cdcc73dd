"""Lines about a recording for people: how far it is, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.record.extras import is_own

if TYPE_CHECKING:
    from dorad.record.items import Outcome, Progress

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(size: float) -> str:
    """Return a number of bytes with a unit."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def count_text(count: int, word: str) -> str:
    """Return a number with its word, in the plural unless it is one."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def progress_line(now: Progress, before: Progress, seconds: float) -> str:
    """Return how far a recording is; `before` was `seconds` ago."""
    rate = max(0, now.bytes - before.bytes) / max(seconds, 0.001)
    parts = [
        count_text(now.messages, "message"),
        size_text(now.bytes),
        f"{size_text(rate)}/s",
        f"{size_text(now.free)} free",
    ]
    if now.files > 1:
        parts.append(count_text(now.files, "file"))
    if now.dropped:
        parts.append(f"{now.dropped} dropped")
    return ", ".join(parts)


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return how a recording ended."""
    status = "COMPLETE" if outcome.complete else "INCOMPLETE"
    counts = [n for topic, n in outcome.counts.items() if n and not is_own(topic)]
    topics = count_text(len(counts), "topic")
    first = (
        f"{status}: {count_text(sum(counts), 'message')} of {topics}, "
        f"{size_text(outcome.bytes)}; {outcome.reason}"
    )
    dropped = sorted(outcome.dropped.items())
    return [first, *(f"{count} dropped on {topic}" for topic, count in dropped if count)]
