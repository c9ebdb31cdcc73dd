"""`dorafleet router`: the configuration of the Zenoh router through which all links go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dorad.commandline.tables import print_object
from dorafleet.cli.arguments import coordinator_options
from dorafleet.cli.coordinator import connect, list_robots

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LEASE_MS = 3000
"""A robot whose router hangs notices it after this time, as it does with another robot."""

MAX_SESSIONS = 10_000
"""One for each dataflow on each robot. Zenoh's own bound is 1,000."""

EPILOG = """\b
Examples:
  dorafleet router > router.json5
  dorafleet push cluster.yml router.json5 /etc/router.json5 --only base
  zenohd --config /etc/router.json5          there, as the user dorad-agent
\b
The configuration has the TLS files of the machine that runs the router, which must be enrolled, and
rules that let each robot speak and listen under its own name only. Revoked robots have none. Print
it again, and restart the router, when a machine was added, removed, revoked or enrolled again.
"""


@click.command(epilog=EPILOG)
@coordinator_options
def router(*, state: Path, port: int) -> None:
    """Print the configuration of the Zenoh router at `zenoh_peer`, for the robots of the fleet."""
    from dorad.control.messages import Nothing
    from dorafleet.coordinator.accessmessages import ACCESS_LIST
    from dorafleet.coordinator.messages import COORDINATOR_STATUS
    from dorafleet.coordinator.shares import check_router

    with connect(state, port) as client:
        peer = client.call(COORDINATOR_STATUS, Nothing()).zenoh_peer
        robots = [robot.id for robot in list_robots(client)]
        grants = client.call(ACCESS_LIST, Nothing()).grants
    if peer is None:
        raise click.ClickException(
            "the fleet has no router: links connect robots directly (give the cluster file a "
            "`zenoh_peer: tls/HOST:7447` and restart the coordinator)"
        )
    check_router(peer)
    revoked = {grant.name for grant in grants if grant.kind == "robot" and grant.revoked}
    print_object(router_config(peer, [robot for robot in robots if robot not in revoked]))


def router_config(peer: str, robots: Iterable[str]) -> dict[str, Any]:
    """Return the configuration of a router that links of these robots find at `peer`."""
    from dorad.agent.folder import SYSTEM_DIR
    from dorad.agent.identity import link_files
    from dorad.link.access import router_rules

    files = link_files(SYSTEM_DIR)
    return {
        "mode": "router",
        "listen": {"endpoints": [listening_at(peer)]},
        "scouting": {"multicast": {"enabled": False}},
        "transport": {
            "unicast": {"max_sessions": MAX_SESSIONS},
            "link": {
                # A plain connection must be impossible, not only unused.
                "protocols": ["tls"],
                "tls": {
                    "root_ca_certificate": files.ca,
                    "listen_certificate": files.certificate,
                    "listen_private_key": files.key,
                    "enable_mtls": True,
                },
                "tx": {"lease": LEASE_MS, "keep_alive": 4},
            },
        },
        "access_control": router_rules(robots),
    }


def listening_at(peer: str) -> str:
    """Return the endpoint at which a router listens whose clients connect to `peer`."""
    address = peer.partition("?")[0].partition("#")[0]
    protocol, _, where = address.partition("/")
    host, _, port = where.rpartition(":")
    anywhere = "[::]" if host.startswith("[") else "0.0.0.0"  # noqa: S104 - with TLS
    return f"{protocol}/{anywhere}:{port}"
