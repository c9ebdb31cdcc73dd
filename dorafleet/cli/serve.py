"""`dorafleet serve`: the coordinator in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import click

from dorafleet.cli.arguments import file_argument

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


def _default_state() -> Path:
    """Return the folder that systemd gives to the service, or one in the user's home."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "dorafleet"


@click.command(epilog=EPILOG)
@file_argument
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the store and the token.  [default: ~/.local/state/dorafleet]",
)
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The port; 0 is any.  [default: `coordinator.port` of FILE]",
)
def serve(file: Path, *, state: Path | None, listen: str, port: int | None) -> None:
    """Run the coordinator of the machines in the cluster FILE."""
    from dorafleet.coordinator.messages import Robot
    from dorafleet.coordinator.service import Coordinator
    from dorafleet.inventory.load import load

    cluster = load(file)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    folder = (state or _default_state()).absolute()
    robots = [
        Robot(id=machine.id, host=machine.host, labels=dict(machine.labels))
        for machine in cluster.machines
    ]
    chosen = cluster.coordinator.port if port is None else port

    async def run() -> None:
        await Coordinator(folder, robots, listen, chosen).run()

    asyncio.run(run())
