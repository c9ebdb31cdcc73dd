"""`dorafleet serve`: the coordinator in the foreground."""

from __future__ import annotations

import asyncio
import logging
from asyncio import sslproto
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from dorafleet.cli.arguments import (
    etcd_ca_option,
    etcd_cert_option,
    etcd_key_option,
    etcd_option,
    file_argument,
    state_option,
)
from dorafleet.cli.releaseoptions import store_option

RECEIVE_BUFFER = 32 << 10
"""Bytes of TLS that a connection reads at once."""

EPILOG = """\b
Examples:
  dorafleet serve cluster.yml                     for clients on this machine
  dorafleet serve cluster.yml --listen 0.0.0.0    for robots and clients, with TLS
  dorafleet serve cluster.yml --etcd http://127.0.0.1:2379
\b
The coordinator runs dataflows on the robots that `dorafleet enrol` has enrolled, and keeps an audit
of every change. Robots connect to it with TLS, and keep running without it. Clients show a
certificate of `dorafleet operator add`, or send a token: one of `dorafleet token create`, or the
one in the file `token` of the state folder, which only the coordinator's user can read.
\b
The folder `ca` has the keys of the fleet's authority. Keep a copy. Nothing uses `ca/root.key` after
the first start: move it to a place without a network. With etcd, several coordinators may run, each
with the same folder `ca`: one leads, the others wait for its end.
Releases in --store, and those that `dorafleet release upload` has brought, are sent over SSH to
robots that wait for their files while no command sends them: robots that were off are caught up.
Its user needs a key that the robots accept, and their host keys in known_hosts. A robot that SSH
does not reach opens a connection for its files.
\b
Alerts go to a webhook and by mail if `dorafleet.toml` beside FILE says so: see docs/alerts.md. What
is kept of incidents that robots upload is in it, too: see docs/incidents.md.
\b
SIGTERM and SIGINT end it; every change that it has acknowledged is on the disk. Dataflows run on.
"""


def _size(text: str) -> int:
    from dorad.dataflow.errors import TextError
    from dorad.dataflow.sizes import parse_size

    try:
        return parse_size(text)
    except TextError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=EPILOG)
@file_argument
@state_option
@etcd_option
@etcd_ca_option
@etcd_cert_option
@etcd_key_option
@click.option(
    "--listen",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address; beyond loopback always with TLS.",
)
@click.option("--tls", is_flag=True, help="Use TLS on loopback, too. Robots need it.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The port; 0 is any.  [default: `coordinator.port` of FILE]",
)
@click.option(
    "--new-authority",
    is_flag=True,
    help="Accept another authority in `ca` than the fleet had: all robots must be enrolled again.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration.  [default: `dorafleet.toml` beside FILE, if there is one]",
)
@store_option
@click.option(
    "--upload-limit",
    callback=lambda _ctx, _option, text: _size(text),
    metavar="SIZE",
    default="20GB",
    show_default=True,
    help="What `dorafleet release upload` may store in the state folder.",
)
def serve(
    file: Path,
    *,
    state: Path,
    etcd: Sequence[str],
    etcd_ca: Path | None,
    etcd_cert: Path | None,
    etcd_key: Path | None,
    listen: str,
    port: int | None,
    tls: bool,
    new_authority: bool,
    config: Path | None,
    store: Path | None,
    upload_limit: int,
) -> None:
    """Run the coordinator of the machines in the cluster FILE."""
    # Connections of strangers keep it until the garbage collector finds them: with the 256 KiB of
    # asyncio that was 200 MB after half a second of handshakes on a busy machine.
    sslproto.SSLProtocol.max_size = RECEIVE_BUFFER
    from dorad.ownlog import VisibleFormatter
    from dorafleet.coordinator import settings
    from dorafleet.coordinator.listener import listen_at
    from dorafleet.coordinator.service import Coordinator
    from dorafleet.coordinator.storechoice import open_store
    from dorafleet.inventory.load import load
    from dorafleet.release.store import Store, default_folder
    from dorafleet.release.supply import Supply
    from dorafleet.release.uploads import Uploads

    cluster = load(file)
    if config is not None and not config.exists():
        raise click.BadParameter(f"{config} does not exist", param_hint="--config")
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    chosen = cluster.coordinator.port if port is None else port
    where = listen_at(listen, chosen, cluster.coordinator.addr, tls=tls)
    connect = partial(
        open_store, state, etcd, authority=etcd_ca, certificate=etcd_cert, key=etcd_key
    )

    uploads = Uploads(state / "uploads", upload_limit)

    # A mistake in the configuration is told before anything is started.
    async def run() -> None:
        await Coordinator(
            state,
            connect,
            cluster.machines,
            where,
            zenoh_peer=cluster.zenoh_peer,
            new_authority=new_authority,
            supply=Supply(uploads.store, Store(store or default_folder())),
            uploads=uploads,
            read_file=partial(load, file),
            load_settings=partial(settings.load, config or file.parent / settings.FILE),
        ).run()

    asyncio.run(run())
