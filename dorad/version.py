"""The option `--version` of our programs: the versions, and whether the data plane is native."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dorad import API_VERSION, __version__

F = TypeVar("F", bound="Callable[..., Any]")


def version_option(program: str) -> Callable[[F], F]:
    """Return a decorator that gives a command the options `-V` and `--version`."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            # Here, because other command lines need not look at the extension.
            from dorad.shm import native

            if program == "dora":
                # As dora 1.x prints it, for scripts that compare its version.
                click.echo(f"dora-cli {API_VERSION}\ndorad {__version__}")
            else:
                click.echo(f"{program} {__version__}")
            click.echo(f"data plane: {native.describe()}")
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
