"""Files of other machines as arguments of a command: `HOST:PATH` is copied with scp."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from dorad.atomicfile import temporary_folder

_REMOTE = re.compile(r"(?:[\w.-]+@)?(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):.+")


def is_remote(text: str) -> bool:
    """Return True for `HOST:PATH` or `USER@HOST:PATH`, unless a file here has that name."""
    return _REMOTE.fullmatch(text) is not None and not Path(text).exists()


@contextlib.contextmanager
def local_files(given: Sequence[str], near: Path) -> Iterator[list[Path]]:
    """Yield paths of the given files here; those of other machines are copied meanwhile.

    Copies are made in the folder of `near`, because they may be too large for a temporary one.

    Raises:
        click.BadParameter: a file does not exist.
        click.ClickException: a file cannot be copied.
    """
    missing = [text for text in given if not is_remote(text) and not Path(text).is_file()]
    if missing:
        raise click.BadParameter(f"file '{missing[0]}' does not exist", param_hint="FILE...")
    if not any(map(is_remote, given)):
        yield [Path(text) for text in given]
        return
    stack = contextlib.ExitStack()
    try:
        folder = stack.enter_context(temporary_folder(near.absolute().parent, ".copied-"))
    except OSError as error:
        raise click.ClickException(f"cannot write beside {near}: {error.strerror}") from error
    with stack:
        yield [
            _copied(text, folder / f"{number}_{Path(text).name}") if is_remote(text) else Path(text)
            for number, text in enumerate(given)
        ]


@contextlib.contextmanager
def copied_folder(source: str, near: Path) -> Iterator[Path]:
    """Yield a copy of a folder of another machine, `HOST:PATH`, in a folder of the same name.

    It is beside `near` meanwhile. Raises click.ClickException if it cannot be copied.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(near.absolute().parent, ".copied-"))
        except OSError as error:
            raise click.ClickException(f"cannot write beside {near}: {error.strerror}") from error
        above = folder / Path(source).parent.name
        above.mkdir()
        yield _copied(source, above / Path(source).name)


def _copied(source: str, target: Path) -> Path:
    scp = shutil.which("scp")
    if scp is None:
        raise click.ClickException("copying from another machine needs scp: install openssh-client")
    click.echo(f"copying {source}", err=True)
    # -B never asks for a password: a script would wait for ever. It says why it fails, without -q.
    done = subprocess.run([scp, "-B", "-r", "--", source, target], check=False)
    if done.returncode != 0:
        raise click.ClickException(
            f"{source} cannot be copied; `scp {source} .` must work without a password"
        )
    return target
