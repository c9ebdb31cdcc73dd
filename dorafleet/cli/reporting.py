"""What is shown while machines are worked on: a line for each step, and one line that moves.

Steps and failures go to standard error, results to standard output. The line that moves, how much
of the files is copied, is for terminals only.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Self

import click

from dorad.cli.tables import megabytes
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.progress import Progress


class Reporter:
    """Tells of each machine what happens there. A context manager: the moving line ends with it."""

    def __init__(self, machines: Sequence[str], size: int) -> None:
        """`size`: bytes of the file that each machine may get."""
        self._width = max(map(len, machines), default=0)
        self._size = size
        self._sent: dict[str, int] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def step(self, machine: str, what: str) -> None:
        """Tell of a step that begins."""
        shown = f"{what} {megabytes(self._size)}" if what == "copying" else what
        self._print(machine, click.style(visible(shown), dim=True), err=True)

    def sent(self, machine: str, count: int) -> None:
        """Tell how many bytes of the file a machine has got."""
        self._sent[machine] = count
        if self._progress is None:
            return
        total = self._size * len(self._sent)
        if not self._progress.task_ids:
            self._progress.add_task("copied", total=total)
        done = sum(self._sent.values())
        self._progress.update(self._progress.task_ids[0], total=total, completed=done)

    def done(self, machine: str, what: str) -> None:
        """Tell of a machine that all is well there."""
        self._print(machine, f"{click.style('✓', fg='green')} {visible(what)}", err=False)

    def failed(self, machine: str, why: str) -> None:
        """Tell of a machine where it has failed."""
        self._print(machine, f"{click.style('✗', fg='red')} {visible(why)}", err=True)

    def _print(self, machine: str, text: str, *, err: bool) -> None:
        if self._progress is not None:
            # Off the moving line, which is drawn again after this.
            self._progress.stop()
        colour = False if os.environ.get("NO_COLOR") else None
        click.echo(f"{machine:<{self._width}}  {text}", err=err, color=colour)
        if self._progress is not None:
            self._progress.start()
