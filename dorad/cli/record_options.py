"""What the recording commands share: options, which topics to record, and where not to write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dorad.commandline.complete import dataflow_names
from dorad.commandline.durations import Duration
from dorad.commandline.reports import print_warning
from dorad.dataflow.recording import COMPRESSIONS
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from dorad.dataflow.model import Dataflow
    from dorad.record.damage import Missing
    from dorad.record.recorder.settings import Settings
    from dorad.record.sources import Recording

LOSSY = 3
"""Exit code of a command that has left out messages because they are damaged."""

_RECORDING = click.Path(exists=True, dir_okay=False, path_type=Path)
recording_argument = click.argument("file", type=_RECORDING)
recordings_argument = click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=_RECORDING
)
topics_option = click.option(
    "--topics", metavar="A/B,...", multiple=True, help="Record only these topics (`node/output`)."
)
exclude_option = click.option(
    "--exclude", metavar="A/B,...", multiple=True, help="Do not record these topics."
)
attach_option = click.option(
    "--attach",
    metavar="NAME|UUID",
    is_flag=False,
    flag_value="",
    shell_complete=dataflow_names,
    help="Record a dataflow that runs already.",
)
duration_option = click.option(
    "--duration",
    "--stop-after",
    "duration",
    type=Duration(minimum=0.1),
    metavar="DURATION",
    help="End after this time: from the start of the processes with PATH, else of the recording.",
)
compression_option = click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    default="auto",
    help="`auto` compresses small messages with zstd, and leaves pictures as they are.",
)
queue_size_option = click.option(
    "--queue-size",
    type=click.IntRange(1, 65536),
    default=1000,
    show_default=True,
    metavar="N",
    help="Messages of each topic that may wait for the recorder.",
)


class Chosen(NamedTuple):
    """What to record of a dataflow; names are topics, or nodes for all their outputs."""

    topics: Sequence[str]
    """Empty for all."""
    excluded: Sequence[str]
    queue_size: int


def check_target(
    path: Path | None, attach: str | None, name: str | None = None, *, proxy: bool = False
) -> None:
    """Raise click.UsageError unless either a file or a running dataflow is named."""
    if name is not None and not proxy:
        raise click.UsageError("--name goes with --proxy; write --attach NAME")
    attached = proxy or attach is not None
    if not attached and path is None:
        raise click.UsageError("name a dataflow file, or a running dataflow with --attach NAME")
    if attached and path is not None and not proxy:
        raise click.UsageError("give PATH to run a dataflow, or --attach for one that runs already")


def report_missing(path: Path, missing: Sequence[Missing]) -> int:
    """Say what a damaged recording lacks; return the exit code: `LOSSY`, or 0 if nothing."""
    for each in missing:
        print_warning(visible(f"{path} is damaged: missing {each}"))
    return LOSSY if missing else 0


def check_whole(recordings: Sequence[Recording]) -> int:
    """Read recordings to their ends, say what damaged ones lack, and return the exit code."""
    from dorad.record.sources import verify

    return max(report_missing(each.path, verify(each)) for each in recordings)


def names_in(given: Sequence[str]) -> list[str]:
    """Return the names in options that take several, separated by commas."""
    return [name for text in given for name in text.split(",") if name]


def check_topics(wanted: Iterable[str], known: Collection[str], owner: str = "recording") -> None:
    """Raise click.ClickException unless a recording, or a dataflow, has all wanted topics."""
    from dorad.dataflow.nearest import did_you_mean

    for topic in wanted:
        if topic not in known:
            hint = did_you_mean(topic, list(known)) or f"it has: {', '.join(known) or 'none'}"
            raise click.ClickException(f"the {owner} has no topic {topic!r} ({hint})")


def chosen_topics(
    wanted: Sequence[str], excluded: Sequence[str], known: Collection[str]
) -> list[str] | None:
    """Return the topics of a recording that options leave; None if they choose nothing.

    A node's name stands for all its outputs.

    Raises:
        click.ClickException: a name is unknown, or no topic is left.
    """
    nodes = {topic.partition("/")[0] for topic in known}
    check_topics((name for name in (*wanted, *excluded) if name not in nodes), known)
    if not wanted and not excluded:
        return None

    def named(topic: str, names: Sequence[str]) -> bool:
        return any(f"{topic}/".startswith(f"{name}/") for name in names)

    left = [
        topic
        for topic in known
        if (not wanted or named(topic, wanted)) and not named(topic, excluded)
    ]
    if not left:
        raise click.ClickException("--exclude leaves no topic")
    return left


def choose(dataflow: Dataflow, wanted: Sequence[str], excluded: Sequence[str]) -> list[str]:
    """Return the topics to record. Raises click.ClickException if one is unknown or none is left.

    A node's name stands for all its outputs.
    """
    from dorad.dataflow.recording import choose_topics, topics_in, unknown_names

    check_topics(unknown_names(dataflow, (*wanted, *excluded)), topics_in(dataflow), "dataflow")
    topics = choose_topics(dataflow, wanted, excluded)
    if not topics:
        raise click.ClickException("there is no topic to record")
    return topics


def refuse_existing(settings: Settings) -> None:
    """Raise click.ClickException if the recording would overwrite a file, or has no folder.

    A black box makes its folders, and continues in existing ones.
    """
    if settings.box is not None:
        return
    first = settings.part(1)
    if first.exists():
        raise click.ClickException(f"{first} exists already; name another file with -o")
    if not first.parent.is_dir():
        raise click.ClickException(f"there is no folder {first.parent}")
