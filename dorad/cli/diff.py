"""`dora diff`: compare the messages of two recordings."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dorad.cli.record_options import check_whole, names_in
from dorad.cli.record_values import tolerances_of
from dorad.commandline.tables import format_option
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.record.compare import Difference

EPILOG = """\b
Examples:
  dora diff before.mcap after.mcap
  dora diff a.mcap b.mcap --topics detector/boxes --tolerance 1e-6
  dora diff a.mcap b.mcap --ignore 'camera/*' --format json

\b
The n-th message of a topic in A is compared with the n-th in B: type, values and metadata, but not
the times. Exit code: 0 if they are equal, 1 if not, 3 if a recording is damaged: that is not
compared.
"""

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("diff", epilog=EPILOG)
@click.argument("one", metavar="A", type=_file)
@click.argument("other", metavar="B", type=_file)
@click.option("--topics", metavar="A/B,...", multiple=True, help="Compare only these topics.")
@click.option("--tolerance", metavar="[TOPIC=]X", multiple=True, help="Numbers may differ by X.")
@click.option("--ignore", metavar="TOPIC[:PATH]", multiple=True, help="Do not compare this.")
@format_option
def diff(
    one: Path,
    other: Path,
    *,
    topics: tuple[str, ...],
    tolerance: tuple[str, ...],
    ignore: tuple[str, ...],
    style: str,
) -> int:
    """Show where the recordings A and B differ first, for each topic."""
    from dorad.commandline.tables import print_lines
    from dorad.record.compare import Rules
    from dorad.record.diff import differences
    from dorad.record.sources import open_recording

    given = tolerances_of(tolerance)
    rules = Rules(given["tolerance"], given["tolerances"], ignore)
    with ExitStack() as stack:
        left, right = (stack.enter_context(open_recording(path)) for path in (one, other))
        if code := check_whole((left, right)):
            return code
        differing, compared = differences(left, right, rules, names_in(topics) or None)
    if style == "json":
        print_lines(map(_as_json, differing))
    else:
        for each in differing:
            click.echo(visible(str(each)))
        if not differing:
            click.echo(f"{compared} messages are equal")
    return 1 if differing else 0


def _as_json(difference: Difference) -> dict[str, Any]:
    return difference._asdict()
