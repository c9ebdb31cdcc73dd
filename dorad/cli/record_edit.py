"""`dora record cut`, `merge` and `export`: make other files of recordings."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from dorad.cli.record_options import recording_argument
from dorad.cli.replay import finite, name_list, parse_range
from dorad.terminal import visible

_output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="File to write.",
)
_topics = click.option(
    "--topics", metavar="A/B,...", multiple=True, help="Only these topics (`node/output`)."
)

CUT_EPILOG = """\b
Examples:
  dora record cut day.mcap --start 60s --end 90s -o dock.mcap
  dora record cut day.mcap --topics camera/image -o images.mcap
"""


@click.command("cut", epilog=CUT_EPILOG)
@recording_argument
@click.option("--start", metavar="TIME", help="Begin there: 90s after the start, or a date.")
@click.option("--end", metavar="TIME", help="End there; like --start.")
@_topics
@_output
def cut(
    file: Path, *, start: str | None, end: str | None, topics: tuple[str, ...], output: Path
) -> None:
    """Copy a part of the recording FILE."""
    from dorad.record.edit import merge as copy
    from dorad.record.sources import open_recording

    with open_recording(file) as reader:
        first, last = parse_range(start, end, [reader])
        known = list(reader.topics())
    wanted = name_list(topics)
    _check(wanted, known)
    count = copy(
        [file],
        output,
        start=first,
        end=last,
        topics=wanted or None,
    )
    click.echo(f"wrote {visible(str(output))}: {count} messages")


def _check(wanted: list[str], known: list[str]) -> None:
    from dorad.dataflow.nearest import did_you_mean

    for topic in wanted:
        if topic not in known:
            hint = did_you_mean(topic, known) or f"it has: {', '.join(known) or 'none'}"
            raise click.ClickException(f"the recording has no topic {topic!r} ({hint})")


MERGE_EPILOG = """\b
Examples:
  dora record merge day_0001.mcap day_0002.mcap -o day.mcap
  dora record merge arm1:/srv/demo/arm1.mcap arm2:/srv/demo/arm2.mcap -o both.mcap

\b
A FILE of another machine, [USER@]HOST:PATH, is copied with scp first.
"""


@click.command("merge", epilog=MERGE_EPILOG)
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
)
@_topics
@_output
def merge(files: tuple[str, ...], *, topics: tuple[str, ...], output: Path) -> None:
    """Make one recording of several; messages come by time."""
    from dorad.cli.remote_files import local_files
    from dorad.record.edit import merge as copy

    if output.exists():
        raise click.ClickException(f"{output} exists already; name another file with -o")
    with local_files(files, output) as found:
        count = copy(found, output, topics=name_list(topics) or None)
    click.echo(f"wrote {visible(str(output))}: {count} messages")


def _refuse_used(output: Path) -> None:
    """Raise click.ClickException if something would be overwritten: a file, or one in a folder."""
    if output.is_dir() and next(output.iterdir(), None) is None:
        return
    if output.exists():
        raise click.ClickException(f"{output} exists already; name another one with -o")


EXPORT_EPILOG = """\b
Examples:
  dora record export day.mcap --to parquet -o day/          a file for each topic
  dora record export day.mcap --to csv --topics imu/data -o day/
  dora record export day.mcap --to rrd -o day.rrd            needs `pip install rerun-sdk`

\b
A table has a row for each message: its time, its number, its metadata as JSON, and its values as a
list in `data`. With --rows it has a row for each value.
"""

FORMATS = ("parquet", "arrow", "csv", "rrd", "lerobot")


@click.command("export", epilog=EXPORT_EPILOG)
@recording_argument
@click.option("--to", "kind", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--rows", is_flag=True, help="A row for each value of an array.")
@click.option(
    "--fps", type=click.FloatRange(min=0.01), callback=finite, default=30.0, help="For lerobot."
)
@_topics
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="A folder; for rrd a file.",
)
def export(
    file: Path, *, kind: str, rows: bool, fps: float, topics: tuple[str, ...], output: Path
) -> None:
    """Write the recording FILE for other tools."""
    from dorad.record import export as exporting
    from dorad.record.sources import open_recording

    _refuse_used(output)
    if kind == "rrd":
        exporting.to_rerun(file, output)
        click.echo(f"wrote {visible(str(output))}")
        return
    with ExitStack() as stack:
        recording = stack.enter_context(open_recording(file))
        wanted = name_list(topics)
        _check(wanted, list(recording.topics()))
        if kind == "lerobot":
            from dorad.record.lerobot import to_lerobot

            written = to_lerobot(recording, output, wanted or None, fps)
        else:
            written = exporting.to_tables(recording, output, kind, wanted or None, by_value=rows)
    for path, count in written:
        click.echo(f"wrote {visible(str(path))}: {count} rows")
