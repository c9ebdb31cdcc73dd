"""The mutants that are known to survive, and why: `survivors.toml`."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hwtests.mutants.sample import Mutant

Key = tuple[str, str, str, str]
FIELDS = {"module", "function", "line", "change", "reason"}
MIN_REASON = 20
"""Characters of the shortest explanation."""


class SurvivorsError(Exception):
    """The file cannot be used; the text names the entry and the problem."""


@dataclass(frozen=True)
class Survivor:
    """One entry; `function` is empty at the level of the module, `line` is a text."""

    module: str
    function: str
    line: str
    change: str
    reason: str

    @property
    def key(self) -> Key:
        """What identifies its mutant; no line number, which every edit would change."""
        return self.module, self.function, self.line, self.change

    def __str__(self) -> str:
        return f"{self.module} in {self.function or 'the module'}: {self.change} (`{self.line}`)"


def read(file: Path) -> list[Survivor]:
    """Read the file.

    Raises:
        SurvivorsError: an entry is not complete, has no reason, or is there twice.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("survivor", [])
    except tomllib.TOMLDecodeError as error:
        raise SurvivorsError(f"{file}: {error}") from None
    survivors: list[Survivor] = []
    for table in tables:
        if set(table) != FIELDS or not all(isinstance(each, str) for each in table.values()):
            raise SurvivorsError(f"{file}: an entry needs {', '.join(sorted(FIELDS))}: {table}")
        survivor = Survivor(**table)
        if len(survivor.reason) < MIN_REASON:
            raise SurvivorsError(f"{file}: `{survivor}` has no reason")
        if any(survivor.key == other.key for other in survivors):
            raise SurvivorsError(f"{file}: `{survivor}` is there twice")
        survivors.append(survivor)
    return survivors


def stale(survivors: Iterable[Survivor], mutants: Iterable[Mutant]) -> list[Survivor]:
    """Return the entries that are no change of today's modules."""
    keys = {each.key for each in mutants}
    return [each for each in survivors if each.key not in keys]
