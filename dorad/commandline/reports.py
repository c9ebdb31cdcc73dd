"""Reports of commands on standard error: errors, warnings and notes, one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import click

from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dorad.control.client import Client
    from dorad.control.messages import DataflowState


def print_error(text: str) -> None:
    """Report an error."""
    print_line("error:", "red", text)


def print_warning(text: str) -> None:
    """Report something that is probably not what the user wants."""
    print_line("warning:", "yellow", text)


def print_note(text: str) -> None:
    """Report something that the user should know."""
    print_line("note:", "cyan", text)


def print_line(head: str, colour: str, text: str) -> None:
    """Write a line with a coloured head; control characters in `text` are escaped."""
    click.echo(f"{click.style(head, fg=colour, bold=True)} {visible(text)}", err=True)


def print_leader(client: Client) -> None:
    """Report which of several coordinators leads, if those that were asked first did not answer."""
    if client.skipped:
        print_note(f"the coordinator at {client.target} leads: {'; '.join(client.skipped)}")


def print_changes(changes: Sequence[str]) -> None:
    """Report how a dataflow differs from the file that it was started from, if it does."""
    if changes:
        print_note(f"differs from its file: {'; '.join(changes)}")


class Failure(Protocol):
    """One root cause of a dataflow's failure."""

    @property
    def headline(self) -> str:
        """What happened to which node."""

    @property
    def lines(self) -> Sequence[str]:
        """The lines of the node's stderr that explain the failure."""


def print_failures(failures: Iterable[Failure]) -> None:
    """Report why a dataflow failed: each root cause, with lines from its node's stderr."""
    for failure in failures:
        print_error(failure.headline)
        for line in failure.lines:
            click.echo(f"    {visible(line)}", err=True)


def report_end(state: DataflowState) -> bool:
    """Report why a dataflow failed, if it did. Return True if it did not."""
    if state.status != "failed":
        return True
    print_failures(state.failures)
    return False
