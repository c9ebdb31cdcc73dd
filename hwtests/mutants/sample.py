"""All mutants of the pure cores, and the sample of them that a seed chooses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hwtests.mutants.areas import Area
from hwtests.mutants.changes import Change, changes


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    area: Area
    module: str
    change: Change
    source: bytes = field(repr=False)
    """The module as it was when the mutants were made: it may be edited meanwhile."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies it while other lines of the module change."""
        return self.module, self.change.function, self.change.source, self.change.what

    def __str__(self) -> str:
        return f"{self.module}:{self.change.line}: {self.change.what}"


def all_mutants(areas: Iterable[Area], root: Path) -> list[Mutant]:
    """Return every mutant, by area and place."""
    mutants = []
    for area in areas:
        for module in area.paths(root):
            source = (root / module).read_bytes()
            mutants += [Mutant(area, module, each, source) for each in changes(source)]
    return mutants


def sample(mutants: Sequence[Mutant], seed: int, count: int) -> list[Mutant]:
    """Choose `count` mutants, the same for the same seed: as many of each area as it has.

    An area with few mutants gives all of them, and the others more. At most one change of a place
    is chosen while there are other places.
    """
    by_area: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_area.setdefault(mutant.area.name, []).append(mutant)
    for name, group in by_area.items():
        by_area[name] = _mixed(group, Random(f"{seed} {name}"))
    chosen: list[Mutant] = []
    rank = 0
    while len(chosen) < min(count, len(mutants)):
        row = [group[rank] for group in by_area.values() if rank < len(group)]
        chosen += row[: count - len(chosen)]
        rank += 1
    return sorted(chosen, key=lambda each: (each.module, each.change.start, each.change.text))


def _mixed(group: list[Mutant], rng: Random) -> list[Mutant]:
    """Return a group in a random order: first one change of each line, then the others."""
    mixed = rng.sample(group, len(group))
    lines: set[tuple[str, int]] = set()
    first: list[Mutant] = []
    others: list[Mutant] = []
    for mutant in mixed:
        place = (mutant.module, mutant.change.line)
        (others if place in lines else first).append(mutant)
        lines.add(place)
    return first + others
