"""Options and arguments that commands about releases have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorafleet.release.store import Store

F = TypeVar("F", bound="Callable[..., Any]")


def open_store(folder: Path | None) -> Store:
    """Return the store of `--store`, or this user's."""
    from dorafleet.release.store import Store, default_folder

    return Store((folder or default_folder()).absolute())


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from dorad.problems import ProblemError

    try:
        bundles = open_store(ctx.params.get("store")).all()
    except (ProblemError, OSError):
        return []
    names = dict.fromkeys(each.manifest.name for each in bundles)
    every = [*names, *(f"{each.manifest.name}@{each.manifest.sequence}" for each in bundles)]
    return [each for each in every if each.startswith(incomplete)]


store_option = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the releases.  [default: ~/.local/share/dorafleet/releases]",
)


def release_argument(name: str) -> Callable[[F], F]:
    """Return an argument that names a release."""
    return click.argument(name, shell_complete=_complete)
