"""What came of an action, target by target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class Outcome:
    """The result of one action."""

    title: str
    total: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by target."""
    remarks: dict[str, str] = field(default_factory=dict)
    """What was said about it beyond that, by target for which it is done."""

    def fail(self, target: str, problem: str) -> None:
        """Record why an action is not done to a target."""
        self.failed[target] = problem

    def succeed(self, target: str, remark: str = "") -> None:
        """Record that an action is done to a target, and what else is to say."""
        self.done += 1
        if remark:
            self.remarks[target] = remark

    @property
    def style(self) -> str:
        """How the text looks."""
        if self.failed:
            return "fail"
        return "ok" if self.done == self.total else "dim"

    @property
    def text(self) -> str:
        """The result in words. Targets of which the same is said are named together."""
        open_ = self.total - self.done - len(self.failed)
        count = "" if self.total == 1 else f" {self.done} of {self.total}"
        if open_:
            text = f"{self.title}: under way" + (f",{count} done" if count else "")
        elif not self.failed:
            text = f"{self.title}: done" + (f", {self.done} times" if self.total > 1 else "")
        else:
            text = f"{self.title}:{count} done" if count else f"{self.title}: failed"
        for problem, names in _by_text(self.failed).items():
            text += f"; {', '.join(names)}: {problem}"
        for remark, names in _by_text(self.remarks).items():
            text += f"; {', '.join(names)}: {remark}" if self.total > 1 else f"; {remark}"
        return text


def _by_text(said: Mapping[str, str]) -> dict[str, list[str]]:
    targets: dict[str, list[str]] = {}
    for target, text in said.items():
        targets.setdefault(text, []).append(target)
    return targets
