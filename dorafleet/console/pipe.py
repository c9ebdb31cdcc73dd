"""Run a shell command that gets what the console shows."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


def run(command: str, text: str, *, quiet: bool = False) -> int:
    """Run a shell command that the operator typed, with a text as its input; return its code."""
    done = subprocess.run(  # noqa: S602 - a shell is what was asked for
        command,
        shell=True,
        input=text.encode(errors="replace"),
        capture_output=quiet,
        check=False,
    )
    return done.returncode


def how_it_ended(command: str, code: int) -> str:
    """Return how a command ended, for the operator."""
    if code in (-signal.SIGINT, 128 + signal.SIGINT):  # the shell, or a program of it
        return f"`{command}` was interrupted"
    return f"`{command}` ended with {code}"


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let ctrl+c end the program that has the terminal, and not the console."""
    # A handler, not SIG_IGN, which the program would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
