"""Lists of cores as the kernel writes them: `0-3,8`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def parse(text: str) -> frozenset[int]:
    """Return the cores of a list; an empty text is an empty list.

    Raises:
        ValueError: the text is not a list of cores.
    """
    cores: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def spell(cores: Iterable[int]) -> str:
    """Return cores as the kernel writes them."""
    spans: list[list[int]] = []
    for core in sorted(set(cores)):
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
