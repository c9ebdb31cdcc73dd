"""`dora record PATH` and `dora record --attach NAME`: record messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from dorad.cli.options import Launch, LaunchCommand, launch_options
from dorad.cli.record import EPILOG
from dorad.cli.record_options import (
    Chosen,
    attach_option,
    check_target,
    choose,
    compression_option,
    duration_option,
    exclude_option,
    names_in,
    queue_size_option,
    refuse_existing,
    topics_option,
)
from dorad.cli.sizes import Size, Split, SplitAt
from dorad.commandline.files import DataflowFile, load_dataflow, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.dataflow.model import Dataflow
    from dorad.record.recorder.settings import Settings


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
@launch_options
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
    launch: Launch,
) -> int:
    """Record the dataflow PATH, or one that runs already."""
    from dorad.record.recorder.settings import Settings, default_path

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
    return record_dataflow(dataflow, settings, chosen, launch, output_yaml=output_yaml)


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


def with_recorder(
    dataflow: Dataflow, topics: Sequence[str], settings: Settings, queue_size: int
) -> Dataflow:
    """Return the dataflow with the node that records `topics`. Raises TopologyError."""
    from dorad.dataflow.topology import add_node
    from dorad.record.recorder.arguments import recorder_node

    after = add_node(dataflow, recorder_node(topics, settings, queue_size))
    return replace(after, warnings=dataflow.warnings, positions=dataflow.positions)


def _run(dataflow: Dataflow, launch: Launch, *, stop_after: float | None) -> int:
    """Run the dataflow as `dora run` does."""
    from dorad.cli.foreground import early_holder, report_result, run_dataflow
    from dorad.cli.options import shown_lines

    with early_holder() as holder:
        ended = run_dataflow(
            dataflow, holder, shown_lines(None, None), launch, stop_after=stop_after
        )
    report_result(ended, verbose=False)
    return 0 if ended.ok else 1
