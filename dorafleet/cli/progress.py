"""Progress of the work on many machines: a line for each step, and a progress bar.

Steps and failures go to standard error, results to standard output. The progress bar, which counts
copied bytes, is shown only on terminals.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import click

from dorad.phrases import size_text
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress

    from dorafleet.ssh.fanout import MachineOutcome


def check_outcomes(outcomes: Sequence[MachineOutcome[Any]], what: str = "failed") -> None:
    """Raise click.ClickException with the machines on which the work has failed."""
    failed = [outcome.machine.id for outcome in outcomes if outcome.error is not None]
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(outcomes)} machines {what}: {', '.join(failed)}"
        )


D = TypeVar("D", "Live", "Progress")


class LiveArea(Generic[D]):
    """What is drawn again and again at the end of a terminal, below lines that stay.

    Without a terminal on standard error there are only the lines. A context manager.
    """

    def __init__(self, *, shown: bool) -> None:
        """Nothing is drawn unless `shown`."""
        self._shown = shown and sys.stderr.isatty()
        self._drawn: D | None = None

    def _make(self, console: Console) -> D:
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self._shown:
            from rich.console import Console

            self._drawn = self._make(
                Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
            )
            self._drawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None

    def print(self, text: str, *, err: bool = False) -> None:
        """Print a line that stays; what robots say in it must be visible characters already."""
        if self._drawn is not None:
            self._drawn.stop()
        click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)
        if self._drawn is not None:
            self._drawn.start()


class LiveRows(LiveArea["Live"]):
    """Rows of text."""

    def __init__(self, rows: Callable[[], list[str]], *, per_second: int, shown: bool) -> None:
        """`rows` returns the rows as they are now."""
        super().__init__(shown=shown)
        self._rows = rows
        self._per_second = per_second

    @property
    def is_drawn(self) -> bool:
        """Whether there is a terminal for the rows."""
        return self._drawn is not None

    def _make(self, console: Console) -> Live:
        from rich.live import Live

        return Live(
            get_renderable=self._render,
            console=console,
            transient=True,
            refresh_per_second=self._per_second,
        )

    def _render(self) -> RenderableType:
        from rich.text import Text

        return Text("\n".join(map(visible, self._rows())), no_wrap=True, overflow="crop")


class Reporter(LiveArea["Progress"]):
    """Prints the progress of each machine, above a progress bar."""

    def __init__(self, machines: Sequence[str], size: int, *, as_json: bool = False) -> None:
        """`size` is the size of the file for each machine, in bytes.

        `as_json` leaves standard output to a result that is printed later.
        """
        super().__init__(shown=not os.environ.get("NO_COLOR"))
        self._as_json = as_json
        self._width = max(map(len, machines), default=0)
        self._size = size
        self._sent: dict[str, int] = {}

    def _make(self, console: Console) -> Progress:
        from rich.progress import Progress

        return Progress(console=console, transient=True)

    def step(self, machine: str, name: str) -> None:
        """Report the start of a step."""
        shown = f"{name} {size_text(self._size)}" if name == "copying" else name
        self._print(machine, click.style(visible(shown), dim=True), err=True)

    def sent(self, machine: str, count: int) -> None:
        """Report how many bytes of the file were sent to a machine so far."""
        self._sent[machine] = count
        if self._drawn is None:
            return
        total = self._size * len(self._sent)
        if not self._drawn.task_ids:
            self._drawn.add_task("copied", total=total)
        done = sum(self._sent.values())
        self._drawn.update(self._drawn.task_ids[0], total=total, completed=done)

    def done(self, machine: str, result: str) -> None:
        """Report success on a machine."""
        self._print(machine, f"{click.style('✓', fg='green')} {visible(result)}", err=self._as_json)

    def failed(self, machine: str, reason: str) -> None:
        """Report failure on a machine."""
        self._print(machine, f"{click.style('✗', fg='red')} {visible(reason)}", err=True)

    def outcome(self, outcome: MachineOutcome[Any]) -> None:
        """Report how the work on a machine has ended."""
        if outcome.error is None:
            self.done(outcome.machine.id, str(outcome.result))
        else:
            self.failed(outcome.machine.id, str(outcome.error))

    def _print(self, machine: str, text: str, *, err: bool) -> None:
        self.print(f"{machine:<{self._width}}  {text}", err=err)
