"""How outputs use the line to another machine, and share it, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.phrases import first_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dorad.control.messages import LineUse, LinkChannel

MIN_MBPS = 0.1
"""Below, a bandwidth is shown in kbps."""

SLOW = 20
"""Percent of the time in which messages wait, from which a line is called slow."""

MAX_OTHERS = 3
"""Outputs that are named as sharing a line."""


def bandwidth_text(mbps: float) -> str:
    """Return a bandwidth in Mbps, a small one in kbps."""
    return f"{mbps * 1e3:.2f} kbps" if 0 < mbps < MIN_MBPS else f"{mbps:.2f} Mbps"


class _Line(NamedTuple):
    """The line of a dataflow from the machine that reports it, if there are several, to another."""

    dataflow: str
    reporter: str | None
    machine: str


class Lines:
    """The lines to other machines, each with the outputs that share it.

    A dataflow has a line of its own from a machine to each other one.
    """

    def __init__(self, links: Iterable[LinkChannel]) -> None:
        """Use `links`; those that do not report their line are left out."""
        self._uses: dict[_Line, list[tuple[str, LineUse]]] = {}
        for link in links:
            if link.line is not None:
                self._uses.setdefault(_line_of(link), []).append((link.output, link.line))
        self._totals = {
            line: sum(_rate(use) for _, use in uses) for line, uses in self._uses.items()
        }
        self._slow = {
            line
            for line, uses in self._uses.items()
            if any(use.wait >= SLOW and not use.backpressure for _, use in uses)
        }
        """Those that hold up an output which waits for no node there."""

    def share(self, link: LinkChannel) -> float | None:
        """Return the percentage that an output has of what is sent over its line now.

        Returns None if nothing is sent, or unknown.
        """
        return None if link.line is None else self._percent(link.line, _line_of(link))

    def text(self, link: LinkChannel) -> Iterator[str]:
        """Yield rate and share of an output, what waits or was dropped, and why, as lines."""
        use = link.line
        if use is None:
            return
        part = self.share(link)
        of_all = "" if part is None else f", {part:.0f}% of what is sent there"
        yield f"sends {bandwidth_text(use.bytes_per_s * 8 / 1e6)}{of_all}"
        yield (
            f"{use.bytes_on_the_way / 1e3:.1f} kB on the way; at the link {use.waiting} messages "
            f"wait, {use.dropped} dropped"
        )
        if link.problem:
            return
        if use.wait >= SLOW:
            is_slow = _line_of(link) in self._slow
            why = "the line is slow" if is_slow else "the line, or what receives there, is slow"
            yield f"{why}{self._shared(link)}: messages wait for it {use.wait}% of the time"

    def as_json(self, link: LinkChannel) -> dict[str, Any] | None:
        """Return the numbers of `text`; None for a link that does not report them."""
        use = link.line
        if use is None:
            return None
        part = self.share(link)
        return {
            "mbps": use.bytes_per_s * 8 / 1e6,
            "share_percent": None if part is None else round(part, 1),
            "bytes_on_the_way": use.bytes_on_the_way,
            "waiting": use.waiting,
            "dropped": use.dropped,
            "wait_percent": use.wait,
            "slow_line": use.wait >= SLOW and _line_of(link) in self._slow,
        }

    def _percent(self, use: LineUse, line: _Line) -> float | None:
        total = self._totals.get(line, 0)
        return 100 * _rate(use) / total if total else None

    def _shared(self, link: LinkChannel) -> str:
        """Return which other outputs send over the line of an output, the largest first."""
        line = _line_of(link)
        others = sorted(
            (
                (_rate(use), output, use)
                for output, use in self._uses[line]
                if output != link.output
            ),
            key=lambda other: (-other[0], other[1]),
        )
        names = [f"{name} ({self._percent(use, line):.0f}%)" for rate, name, use in others if rate]
        return f" and shared with {first_of(names, MAX_OTHERS)}" if names else ""


def _line_of(link: LinkChannel) -> _Line:
    return _Line(link.dataflow, link.reporter, link.machine)


def _rate(use: LineUse) -> int:
    """Return the bytes per second. A robot of a fleet may report nonsense."""
    return max(0, use.bytes_per_s)
