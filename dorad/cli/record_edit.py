"""`dora record cut`, `merge` and `export`: make other files of recordings."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dorad.cli.record_options import (
    LOSSY,
    chosen_topics,
    names_in,
    recording_argument,
    recordings_argument,
    report_missing,
)
from dorad.cli.record_values import finite, parse_range
from dorad.commandline.reports import print_note, print_warning
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dorad.record.edit import Copied
    from dorad.record.export.topictables import Exported, LeftOut
    from dorad.record.sources import Recording

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
_exclude = click.option("--exclude", metavar="A/B,...", multiple=True, help="Not these topics.")

CUT_EPILOG = """\b
Examples:
  dora record cut day.mcap --start 60s --end 90s -o dock.mcap
  dora record cut day.mcap --topics camera/image -o images.mcap
  dora record cut day.mcap --exclude camera -o small.mcap     not the outputs of this node
"""


@click.command("cut", epilog=CUT_EPILOG)
@recording_argument
@click.option("--start", metavar="TIME", help="Begin there: 90s after the start, or a date.")
@click.option("--end", metavar="TIME", help="End there; like --start.")
@_topics
@_exclude
@_output
def cut(
    file: Path,
    *,
    start: str | None,
    end: str | None,
    topics: tuple[str, ...],
    exclude: tuple[str, ...],
    output: Path,
) -> int:
    """Copy a part of the recording FILE.

    The exit code is 3 if damaged messages were left out.
    """
    from dorad.record.edit import merge as copy
    from dorad.record.sources import open_recording

    with open_recording(file) as reader:
        first, last = parse_range(start, end, [reader])
        chosen = chosen_topics(names_in(topics), names_in(exclude), reader.topics())
    return report_copied(output, copy([file], output, start=first, end=last, topics=chosen))


def report_copied(output: Path, copied: Copied) -> int:
    """Say what was written, and what was damaged; return the exit code."""
    click.echo(f"wrote {visible(str(output))}: {copied.messages} messages")
    return max((report_missing(*each) for each in copied.missing), default=0)


MERGE_EPILOG = """\b
Examples:
  dora record merge day_0001.mcap day_0002.mcap -o day.mcap
  dora record merge arm1:/srv/demo/arm1.mcap arm2:/srv/demo/arm2.mcap -o both.mcap

\b
A FILE of another machine, [USER@]HOST:PATH, is copied with scp first.
"""


@click.command("merge", epilog=MERGE_EPILOG)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@_topics
@_output
def merge(files: tuple[str, ...], *, topics: tuple[str, ...], output: Path) -> int:
    """Make one recording of several; messages come by time.

    The exit code is 3 if damaged messages were left out.
    """
    from dorad.cli.remote_files import local_files
    from dorad.record.edit import merge as copy

    if output.exists():
        raise click.ClickException(f"{output} exists already; name another file with -o")
    with local_files(files, output) as local:
        return report_copied(output, copy(local, output, topics=names_in(topics) or None))


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
  dora record export try1.mcap try2.mcap --to lerobot --task "fold the towel" -o towel/
  dora record export day.mcap --to ros2 -o drive.mcap        topics of nodes with `ros2`

\b
A table has a row for each message: its time, its number, its metadata as JSON, and its values as a
list in `data`. With --rows it has a row for each value.
"""

FORMATS = ("parquet", "arrow", "csv", "rrd", "lerobot", "ros2")


@click.command("export", epilog=EXPORT_EPILOG)
@recordings_argument
@click.option("--to", "kind", type=click.Choice(FORMATS), required=True, help="What to write.")
@click.option("--rows", is_flag=True, help="A row for each value of an array.")
@click.option("--large-cells", is_flag=True, help="For csv: also text of more than 128 KiB.")
@click.option(
    "--fps", type=click.FloatRange(min=0.01), callback=finite, default=30.0, help="For lerobot."
)
@click.option(
    "--task",
    "tasks",
    metavar="TEXT",
    multiple=True,
    help="For lerobot: what the robot does, once or for each FILE.",
)
@click.option(
    "--ros",
    "setup",
    metavar="SETUP",
    help="For ros2: the installation with types that the recording lacks, like `setup`.",
)
@_topics
@_exclude
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="A folder; for rrd and ros2 a file.",
)
def export(
    files: tuple[Path, ...],
    *,
    kind: str,
    rows: bool,
    large_cells: bool,
    fps: float,
    tasks: tuple[str, ...],
    setup: str | None,
    topics: tuple[str, ...],
    exclude: tuple[str, ...],
    output: Path,
) -> int:
    """Write the recording FILE for other tools; for lerobot several, an episode of each.

    The exit code is 3 if messages were left out: damaged ones, or such that the format cannot hold.
    """
    import pyarrow as pa

    from dorad.record.export import rerun, topictables
    from dorad.record.sources import open_recording

    wanted, unwanted = names_in(topics), names_in(exclude)
    _refuse_used(output)
    if kind == "lerobot":
        return _export_episodes(files, fps, tasks, (wanted, unwanted), output)
    if len(files) > 1:
        raise click.UsageError("only lerobot takes several recordings; see `dora record merge`")
    (file,) = files
    # Arrow's own allocator keeps what was freed: twice the memory for large messages.
    pa.set_memory_pool(pa.system_memory_pool())
    with open_recording(file, topictables.MAX_WAITING) as recording:
        counts = recording.topics()
        chosen = chosen_topics(wanted, unwanted, counts)
        total = sum(counts[topic] for topic in (counts if chosen is None else chosen))
        with _new_output(output) as path, _progress(total) as advance:
            if kind == "rrd":
                done = rerun.to_rerun(file, path, chosen, progress=advance)
            elif kind == "ros2":
                done = _export_ros2(recording, path, chosen, setup, advance)
            else:
                done = topictables.to_tables(
                    recording,
                    path,
                    kind,
                    chosen,
                    by_value=rows,
                    large_cells=large_cells,
                    progress=advance,
                )
    _print_files(done.files, path, output, "messages" if kind in ("rrd", "ros2") else "rows")
    _warn_of(done.left_out, kind)
    return report_missing(file, done.missing) or (LOSSY if done.left_out else 0)


def _export_ros2(
    recording: Recording,
    path: Path,
    chosen: Sequence[str] | None,
    setup: str | None,
    advance: Callable[[int], object],
) -> Exported:
    """Write a recording of ROS 2; `setup` is where types are that the recording does not have."""
    from dorad.dataflow.load import from_descriptor
    from dorad.record.embedded import embedded_dataflow
    from dorad.record.export.ros2 import exported_topics, to_ros2
    from dorad.record.rostopics import RosTypes, bridged_topics
    from dorad.record.sources import topics_of

    descriptor, file = embedded_dataflow([recording])
    counts = recording.topics()
    bridged = bridged_topics(from_descriptor(descriptor, path=file))
    topics = exported_topics(bridged, {topic for topic in counts if counts[topic]}, chosen)

    types = RosTypes(file.parent if setup is None else Path.cwd(), os.environ, setup)
    done = to_ros2(recording, path, topics, types, progress=advance)
    names = {topic for each in bridged for topic in each.topics}
    if others := [topic for topic in topics_of([recording]) if topic not in names]:
        print_note(f"no topics of ROS 2, so not exported: {', '.join(others)}")
    return done


def _export_episodes(
    files: Sequence[Path],
    fps: float,
    tasks: Sequence[str],
    topics: tuple[Sequence[str], Sequence[str]],
    output: Path,
) -> int:
    """Write a LeRobot dataset; `topics` are those that are wanted, and those that are not."""
    from dorad.record.export.lerobot import TASK, to_lerobot
    from dorad.record.sources import open_all

    with ExitStack() as stack:
        recordings = open_all(files, stack)
        chosen, *_ = [chosen_topics(*topics, recording.topics()) for recording in recordings]
        with _new_output(output) as path:
            written, left_out = to_lerobot(recordings, path, chosen, fps, tasks or (TASK,))
        missing = [recording.damage.missing() for recording in recordings]
    _print_files(written, path, output, "rows")
    _warn_of(left_out, "lerobot")
    lossy = max(report_missing(*each) for each in zip(files, missing, strict=True))
    return lossy or (LOSSY if left_out else 0)


@contextmanager
def _new_output(output: Path) -> Iterator[Path]:
    """Yield a path that becomes `output` at the end. Raises click.ClickException."""
    from dorad.atomicfile import new_name

    try:
        with new_name(output) as path:
            yield path
    except OSError as error:
        # Arrow has several lines about an error of the system.
        why = os.strerror(error.errno) if error.errno else str(error)
        raise click.ClickException(f"cannot write {output}: {why}") from error


def _warn_of(left_out: Sequence[LeftOut], kind: str) -> None:
    for each in left_out:
        print_warning(visible(f"{kind} cannot hold {each}"))


def _print_files(files: Sequence[tuple[Path, int]], path: Path, output: Path, what: str) -> None:
    for written, count in files:
        click.echo(f"wrote {visible(str(output / written.relative_to(path)))}: {count} {what}")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal; yield a function that takes how many messages more are done."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    steps = max(1, total // 500)
    with click.progressbar(length=total, file=sys.stderr, update_min_steps=steps) as bar:
        yield bar.update
