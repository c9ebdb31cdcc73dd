"""`dorafleet serve`: the coordinator in the foreground."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import click

from dorafleet.cli.arguments import file_argument, state_option

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """\b
Examples:
  dorafleet serve cluster.yml
  dorafleet serve cluster.yml --state /srv/fleet --port 6014
\b
The coordinator keeps what shall run on each robot, with an audit of every change. No robot connects
to it yet, so it changes nothing on any. It listens on this machine's loopback only. A client has to
send the token in the file `token` of the state folder, which only the user of the coordinator can
read. SIGTERM and SIGINT end it; whatever it has acknowledged is on the disk.
"""


@click.command(epilog=EPILOG)
@file_argument
@state_option
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The port; 0 is any.  [default: `coordinator.port` of FILE]",
)
def serve(file: Path, *, state: Path, listen: str, port: int | None) -> None:
    """Run the coordinator of the machines in the cluster FILE."""
    from dorafleet.coordinator.messages import Robot
    from dorafleet.coordinator.service import Coordinator
    from dorafleet.inventory.load import load

    cluster = load(file)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    robots = [
        Robot(id=machine.id, host=machine.host, labels=dict(machine.labels))
        for machine in cluster.machines
    ]
    chosen = cluster.coordinator.port if port is None else port

    async def run() -> None:
        await Coordinator(state, robots, listen, chosen).run()

    asyncio.run(run())
