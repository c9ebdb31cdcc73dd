"""`dora record ring`: a black box of a dataflow, which keeps only the last seconds."""

from __future__ import annotations

from pathlib import Path

import click

from dorad.cli.options import Launch, LaunchCommand, launch_options
from dorad.cli.record_options import (
    Chosen,
    attach_option,
    check_target,
    compression_option,
    duration_option,
    exclude_option,
    names_in,
    queue_size_option,
    topics_option,
)
from dorad.cli.record_start import record_dataflow
from dorad.cli.sizes import Size
from dorad.commandline.durations import Duration
from dorad.commandline.files import DataflowFile, load_dataflow

MIN_RING_BYTES = 4 << 20

EPILOG = """\b
Examples:
  dora record ring dataflow.yml --keep 60s            run the dataflow with a black box
  dora record ring --attach demo --keep 5m --max-size 2GB
  dora record ring --attach demo --exclude camera/image --keep-incidents 30d
  dora record mark --note "missed the dock"           keep the last seconds as an incident
  dora record incidents                               list the incidents

\b
A failed node, a broken input, and `node.mark("why")` in a node make an incident, too. On a robot,
write `record: {keep: 60s}` into the dataflow instead.
"""


@click.command("ring", cls=LaunchCommand, epilog=EPILOG)
@click.argument("path", type=DataflowFile(), required=False)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="recordings",
    show_default=True,
    metavar="FOLDER",
    help="The folder of the black box.",
)
@click.option(
    "--keep",
    type=Duration(minimum=1.0),
    default=60.0,
    metavar="DURATION",
    help="How long to keep messages.  [default: 60s]",
)
@click.option(
    "--max-size",
    type=Size(minimum=MIN_RING_BYTES),
    metavar="SIZE",
    help="Maximum size of the kept messages, such as 2GB.",
)
@click.option(
    "--keep-incidents",
    type=Duration(minimum=1.0),
    metavar="DURATION",
    help="Remove incidents after this time.",
)
@click.option(
    "--max-incidents-size",
    type=Size(),
    metavar="SIZE",
    help="Remove the oldest incidents, so that all take at most this.",
)
@attach_option
@topics_option
@exclude_option
@duration_option
@compression_option
@click.option(
    "--min-free",
    type=Size(),
    metavar="SIZE",
    help="Keep less, and at last end, when the disk has less free; 1GB, or 5 % of the disk.",
)
@queue_size_option
@launch_options
def ring(
    path: Path | None,
    *,
    folder: Path,
    keep: float,
    max_size: int | None,
    keep_incidents: float | None,
    max_incidents_size: int | None,
    attach: str | None,
    topics: tuple[str, ...],
    exclude: tuple[str, ...],
    duration: float | None,
    compression: str,
    min_free: int | None,
    queue_size: int,
    launch: Launch,
) -> int:
    """Record the dataflow PATH, or a running one, and keep only the last seconds."""
    from dorad.record.recorder.settings import Settings

    check_target(path, attach)
    settings = Settings(
        path=folder,
        compression=compression,
        max_bytes=max_size,
        duration_s=duration,
        min_free=min_free,
        keep_s=keep,
        incident_s=keep_incidents,
        incident_bytes=max_incidents_size,
    )
    chosen = Chosen(names_in(topics), names_in(exclude), queue_size)
    if path is None:
        from dorad.cli.record_attach import record_running

        return record_running(attach or None, settings, chosen)
    return record_dataflow(load_dataflow(path), settings, chosen, launch)
