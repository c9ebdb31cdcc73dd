"""How the console behaves: what its options say, and what its terminal can show."""

import locale
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from dorad.control.choosing import server_variables


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """How the console behaves."""

    readonly: bool = False
    """Offer no command that changes anything."""
    ascii_only: bool = False
    theme: str = "dark"
    """`auto` is dark or light, as the background of the terminal."""
    start: str = "fleet"
    """The first screen, as after `:`."""
    interval: float = 1.0
    """Seconds between two measurements of nodes and edges."""
    variables: tuple[tuple[str, str], ...] = ()
    """Variables that name the server, which options may have set: for copied commands."""
    pixels: bool = False
    """Whether the terminal shows pictures in pixels."""


def options_for(
    environment: Mapping[str, str],
    *,
    readonly: bool = False,
    ascii_only: bool = False,
    theme: str | None = None,
    start: str = "fleet",
    robot: str | None = None,
    interval: float = 1.0,
    encoding: str | None = None,
) -> ConsoleOptions:
    """Return how the console behaves on this terminal. `encoding` is that of the terminal.

    Without UTF-8 only ASCII is shown; with NO_COLOR there is no colour; a terminal of 16 colours
    gets these, one of more a theme that fits its background.
    """
    encoding = encoding or locale.getencoding()
    plain = ascii_only or encoding.lower().replace("-", "") not in ("utf8", "utf_8")
    if theme is None:
        rich = environment.get("COLORTERM") in ("truecolor", "24bit")
        term = environment.get("TERM", "")
        rich = rich or "256color" in term or term in ("xterm-kitty", "xterm-ghostty")
        theme = "mono" if environment.get("NO_COLOR") else "auto" if rich else "ansi"
    if robot is not None:
        start = f"{start} {shlex.quote(robot)}"
    return ConsoleOptions(readonly, plain, theme, start, interval, server_variables(environment))
