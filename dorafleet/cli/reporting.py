"""Progress of the work on many machines: a line for each step, and a progress bar.

Steps and failures go to standard error, results to standard output. The progress bar, which counts
copied bytes, is shown only on terminals.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Self

import click

from dorad.release.disk import size_text
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress

    from dorafleet.ssh.fanout import Outcome


def check_outcomes(outcomes: Sequence[Outcome[Any]], what: str = "failed") -> None:
    """Raise click.ClickException with the machines on which the work has failed."""
    failed = [outcome.machine.id for outcome in outcomes if outcome.error is not None]
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(outcomes)} machines {what}: {', '.join(failed)}"
        )


class LiveRows:
    """Rows at the end of a terminal that are drawn again and again, below lines that stay.

    Without a terminal on standard error there are only the lines. A context manager.
    """

    def __init__(self, rows: Callable[[], list[str]], *, per_second: int, shown: bool) -> None:
        """`rows` returns the rows as they are now; nothing is drawn unless `shown`."""
        self._rows = rows
        self._per_second = per_second
        self._shown = shown and sys.stderr.isatty()
        self._live: Live | None = None

    @property
    def is_drawn(self) -> bool:
        """Whether there is a terminal for the rows."""
        return self._live is not None

    def __enter__(self) -> Self:
        if self._shown:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._render,
                console=Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR"))),
                transient=True,
                refresh_per_second=self._per_second,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, text: str, *, err: bool = False) -> None:
        """Print a line that stays; what robots say in it must be visible characters already."""
        if self._live is not None:
            self._live.stop()
        click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)
        if self._live is not None:
            self._live.start()

    def _render(self) -> RenderableType:
        from rich.text import Text

        return Text("\n".join(map(visible, self._rows())), no_wrap=True, overflow="crop")


class Reporter:
    """Prints the progress of each machine. A context manager that removes the progress bar."""

    def __init__(self, machines: Sequence[str], size: int, *, as_json: bool = False) -> None:
        """`size` is the size of the file for each machine, in bytes.

        `as_json` leaves standard output to a result that is printed later.
        """
        self._as_json = as_json
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

    def step(self, machine: str, name: str) -> None:
        """Report the start of a step."""
        shown = f"{name} {size_text(self._size)}" if name == "copying" else name
        self._print(machine, click.style(visible(shown), dim=True), err=True)

    def sent(self, machine: str, count: int) -> None:
        """Report how many bytes of the file were sent to a machine so far."""
        self._sent[machine] = count
        if self._progress is None:
            return
        total = self._size * len(self._sent)
        if not self._progress.task_ids:
            self._progress.add_task("copied", total=total)
        done = sum(self._sent.values())
        self._progress.update(self._progress.task_ids[0], total=total, completed=done)

    def done(self, machine: str, result: str) -> None:
        """Report success on a machine."""
        self._print(machine, f"{click.style('✓', fg='green')} {visible(result)}", err=self._as_json)

    def failed(self, machine: str, reason: str) -> None:
        """Report failure on a machine."""
        self._print(machine, f"{click.style('✗', fg='red')} {visible(reason)}", err=True)

    def outcome(self, outcome: Outcome[Any]) -> None:
        """Report how the work on a machine has ended."""
        if outcome.error is None:
            self.done(outcome.machine.id, str(outcome.result))
        else:
            self.failed(outcome.machine.id, str(outcome.error))

    def _print(self, machine: str, text: str, *, err: bool) -> None:
        if self._progress is not None:
            # Remove the progress bar, which is drawn again below.
            self._progress.stop()
        colour = False if os.environ.get("NO_COLOR") else None
        click.echo(f"{machine:<{self._width}}  {text}", err=err, color=colour)
        if self._progress is not None:
            self._progress.start()
