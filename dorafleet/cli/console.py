"""`dorafleet console`: the fleet on a terminal. `dorafleet` without a command is the same."""

from __future__ import annotations

import os
import sys

import click

from dorad.commandline.instance import add_options

EPILOG = """\b
Examples:
  dorafleet                            the fleet, or this machine's dorad
  dorafleet --readonly                 look only
  dorafleet --coordinator-addr fleet-a
  dorafleet console arm017             one robot over SSH, without a coordinator
  dorafleet console --start 'logs pick gripper'

\b
Keys: arrows and enter move and open, / filters, a acts, ? shows all keys, q quits.
"""


@click.command(epilog=EPILOG)
@click.argument("host", metavar="[HOST]", required=False)
@click.option("--readonly", is_flag=True, help="Offer nothing that changes anything.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Use only ASCII characters.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal.")
@click.option(
    "--theme",
    type=click.Choice(["dark", "light", "safe", "ansi", "mono"]),
    envvar="DORAFLEET_THEME",
    help="Colours; safe is for colour-blind people, ansi has the terminal's 16.",
)
@click.option("--start", metavar="SCREEN", default="fleet", help="The first screen, as after `:`.")
def console(
    *,
    host: str | None,
    readonly: bool,
    ascii_only: bool,
    no_mouse: bool,
    theme: str | None,
    start: str,
) -> None:
    """Watch and command the fleet, this machine, or the robot HOST over SSH."""
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise click.ClickException(
            "the console needs a terminal (for scripts: `dorafleet robots --json`)"
        )
    if os.environ.get("TERM") == "dumb":
        raise click.ClickException(
            "the console needs a terminal whose cursor it can move, and TERM is dumb "
            "(set TERM to your terminal's name; for scripts: `dorafleet robots --json`)"
        )
    from dorafleet.console.main import run, run_over_ssh
    from dorafleet.console.options import options_for

    options = options_for(
        os.environ, readonly=readonly, ascii_only=ascii_only, theme=theme, start=start
    )
    if host is None:
        run(options, mouse=not no_mouse)
    else:
        run_over_ssh(options, host, mouse=not no_mouse)


add_options(console)
