"""The option `--version` of our programs: the version, and whether the data plane is native."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from dorad import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def version_option(program: str) -> Callable[[F], F]:
    """Return a decorator that gives a command the options `-V` and `--version`."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            # Here, because other command lines need not look at the extension.
            from dorad.shm import native

            click.echo(f"{program} {__version__}\ndata plane: {native.describe()}")
            context.exit()

    return click.option(
        "-V",
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version and exit.",
    )
