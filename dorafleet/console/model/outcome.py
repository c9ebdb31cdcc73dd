"""What came of an action, target by target."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """The result of one action."""

    title: str
    total: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by target."""

    def add(self, target: str, problem: str) -> None:
        """Take the result of one target; `problem` is empty if the action is done."""
        if problem:
            self.failed[target] = problem
        else:
            self.done += 1

    @property
    def style(self) -> str:
        """How the text looks."""
        if self.failed:
            return "fail"
        return "ok" if self.done == self.total else "dim"

    @property
    def text(self) -> str:
        """The result in words. Targets with the same problem are named together."""
        open_ = self.total - self.done - len(self.failed)
        count = "" if self.total == 1 else f" {self.done} of {self.total}"
        if open_:
            text = f"{self.title}: under way" + (f",{count} done" if count else "")
        elif not self.failed:
            return f"{self.title}: done" + (f", {self.done} times" if self.total > 1 else "")
        else:
            text = f"{self.title}:{count} done" if count else f"{self.title}: failed"
        targets: dict[str, list[str]] = {}
        for target, problem in self.failed.items():
            targets.setdefault(problem, []).append(target)
        for problem, names in targets.items():
            text += f"; {', '.join(names)}: {problem}"
        return text
