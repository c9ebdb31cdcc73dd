"""`dora record PATH` and `dora record --attach NAME`: record messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dorad.cli.complete import dataflow_names
from dorad.cli.durations import Duration
from dorad.cli.files import DataflowFile, load_dataflow, write_text
from dorad.cli.options import (
    LaunchCommand,
    env_option,
    finish_option,
    shell_nodes_option,
    strict_option,
    uv_option,
)
from dorad.cli.record import EPILOG
from dorad.cli.sizes import Size, Split, SplitAt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.dataflow.model import Dataflow
    from dorad.record.settings import Settings

COMPRESSIONS = ("auto", "zstd", "lz4", "none")

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
    "--duration", type=Duration(minimum=0.1), metavar="DURATION", help="End after this time."
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


@click.command("start", cls=LaunchCommand, epilog=EPILOG)
@click.argument("path", type=DataflowFile(), required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="File to write."
)
@topics_option
@exclude_option
@attach_option
@click.option("--proxy", is_flag=True, help="Same as --attach, as in dora 1.x.")
@click.option("--name", metavar="NAME", help="With --proxy: the dataflow.")
@duration_option
@click.option(
    "--max-size", type=Size(minimum=4096), metavar="SIZE", help="End at this size, such as 10GB."
)
@click.option(
    "--split",
    type=SplitAt(),
    metavar="SIZE|DURATION",
    help="Continue in a new file at this size, or after this time.",
)
@compression_option
@click.option(
    "--min-free",
    type=Size(),
    metavar="SIZE",
    help="End when the disk has less free; 1GB, or 5 % of the disk if that is less.",
)
@queue_size_option
@click.option(
    "--output-yaml",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the dataflow with its recorder there; do not run it.",
)
@uv_option
@shell_nodes_option
@env_option
@strict_option
@finish_option
def start(
    path: Path | None,
    *,
    output: Path | None,
    topics: tuple[str, ...],
    exclude: tuple[str, ...],
    attach: str | None,
    proxy: bool,
    name: str | None,
    duration: float | None,
    max_size: int | None,
    split: Split | None,
    compression: str,
    min_free: int | None,
    queue_size: int,
    output_yaml: Path | None,
    uv: bool,
    allow_shell_nodes: bool,
    env: Mapping[str, str],
    strict: bool,
    exit_when_nodes_finish: bool | None,
) -> int:
    """Record the dataflow PATH, or one that runs already."""
    from dorad.record.settings import Settings, default_path

    check_target(path, attach, name, proxy=proxy)
    attached = proxy or attach is not None
    if attached and output_yaml is not None:
        raise click.UsageError("--output-yaml writes a dataflow file; it needs PATH, not --attach")
    settings = Settings(
        path=output or Path(),
        compression=compression,
        split_bytes=None if split is None else split.size,
        split_s=None if split is None else split.seconds,
        max_bytes=max_size,
        duration_s=duration,
        min_free=min_free,
    )
    chosen = Chosen(names_in(topics), names_in(exclude), queue_size)
    if attached:
        from dorad.cli.record_attach import record_running

        return record_running((attach or name) or None, settings, chosen)
    assert path is not None
    dataflow = load_dataflow(path)
    if output is None:
        settings = replace(settings, path=default_path(dataflow.path.stem))
    launch = Launch(uv, allow_shell_nodes, env, strict, exit_when_nodes_finish)
    return record_dataflow(dataflow, settings, chosen, launch, output_yaml=output_yaml)


class Chosen(NamedTuple):
    """What to record of a dataflow; names are topics, or nodes for all their outputs."""

    topics: Sequence[str]
    """Empty for all."""
    excluded: Sequence[str]
    queue_size: int


class Launch(NamedTuple):
    """The options of `dora run`."""

    uv: bool
    allow_shell: bool
    env: Mapping[str, str]
    strict: bool
    finish_flag: bool | None


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


def record_dataflow(
    dataflow: Dataflow,
    settings: Settings,
    chosen: Chosen,
    launch: Launch,
    *,
    output_yaml: Path | None = None,
) -> int:
    """Run a dataflow and record it, or only write it to `output_yaml`; return the exit code."""
    # The whole dataflow ends after --duration; the recorder gets what its nodes send at the end.
    duration = settings.duration_s
    settings = replace(settings, path=settings.path.absolute(), duration_s=None)
    refuse_existing(settings)
    topics = choose(dataflow, chosen.topics, chosen.excluded)
    recorded = with_recorder(dataflow, topics, settings, chosen.queue_size)
    if output_yaml is not None:
        from dorad.dataflow.expand import flat_yaml

        write_text(output_yaml, flat_yaml(recorded))
        click.echo(f"wrote {output_yaml}; run it with `dora run {output_yaml}`")
        return 0
    return _run(recorded, launch, stop_after=duration)


def names_in(given: Sequence[str]) -> list[str]:
    """Return the names in options that take several, separated by commas."""
    return [name for text in given for name in text.split(",") if name]


def choose(dataflow: Dataflow, wanted: Sequence[str], excluded: Sequence[str]) -> list[str]:
    """Return the topics to record. Raises click.ClickException if one is unknown or none is left.

    A node's name stands for all its outputs.
    """
    from dorad.dataflow.nearest import did_you_mean
    from dorad.dataflow.recording import covers, topics_in

    known = topics_in(dataflow)
    for name in (*wanted, *excluded):
        if not any(covers(name, topic) for topic in known):
            hint = did_you_mean(name, known) or f"it has: {', '.join(known) or 'none'}"
            raise click.ClickException(f"the dataflow has no output {name!r} ({hint})")
    found = [
        topic
        for topic in known
        if (not wanted or any(covers(name, topic) for name in wanted))
        and not any(covers(name, topic) for name in excluded)
    ]
    if not found:
        raise click.ClickException("there is no topic to record")
    return found


def refuse_existing(settings: Settings) -> None:
    """Raise click.ClickException if the recording would overwrite a file, or has no folder.

    A black box makes its folders, and goes on in those that exist.
    """
    if settings.box is not None:
        return
    first = settings.part(1)
    if first.exists():
        raise click.ClickException(f"{first} exists already; name another file with -o")
    if not first.parent.is_dir():
        raise click.ClickException(f"there is no folder {first.parent}")


def with_recorder(
    dataflow: Dataflow, topics: Sequence[str], settings: Settings, queue_size: int
) -> Dataflow:
    """Return the dataflow with the node that records `topics`. Raises TopologyError."""
    from dorad.dataflow.topology import add_node
    from dorad.record.arguments import recorder_node

    after = add_node(dataflow, recorder_node(topics, settings, queue_size))
    return replace(after, warnings=dataflow.warnings, positions=dataflow.positions)


def _run(dataflow: Dataflow, launch: Launch, *, stop_after: float | None) -> int:
    """Run the dataflow as `dora run` does."""
    from dorad.cli.foreground import early_holder, report_result, run_dataflow
    from dorad.cli.options import shown_lines

    with early_holder() as holder:
        ended = run_dataflow(
            dataflow,
            holder,
            shown_lines(None, None),
            **launch._asdict(),
            stop_after=stop_after,
        )
    report_result(ended, verbose=False)
    return 0 if ended.ok else 1
