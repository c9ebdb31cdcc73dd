"""The settings of a link's Zenoh session, which finds nothing by itself: it has addresses."""

import json
from collections.abc import Sequence
from typing import Any

import zenoh

from dorad.link.access import session_rules
from dorad.link.config import MAX_MACHINES, LinkConfig, Tls

RUNTIME = "(acc: (handover: rx), net: (handover: rx))"
"""The environment variable ZENOH_RUNTIME of a link process. The threads that run callbacks wait for
the sockets themselves: otherwise another one does, and wakes two of them for each sample."""

RETRY = {"period_init_ms": 200, "period_max_ms": 500, "period_increase_factor": 2}
LEASE_MS = 3000
OPEN_TIMEOUT_MS = 3500
"""How long an attempt to connect takes at most: four round trips of a satellite, and no longer.

The kernel repeats its first packet every second at the beginning, then ever more rarely: a new
attempt finds a cable that was repaired sooner than an old one.
"""

BATCHES = 16
"""Batches of data that Zenoh queues for one machine before a `put` waits."""
BATCH_BYTES = 65_535
RECEIVE_BYTES = 1 << 20
"""Buffers of a connection that Zenoh uses again. It makes and clears one for each batch beyond."""


def zenoh_config(config: LinkConfig, listen: Sequence[str]) -> zenoh.Config:
    """Return the configuration of a session that listens at these endpoints."""
    settings: dict[str, Any] = {
        # A router passes messages on between clients only.
        "mode": "client" if config.router else "peer",
        "listen/endpoints": list(listen),
        "listen/exit_on_failure": True,
        "connect/endpoints": [_without_brackets(each) for each in config.connect],
        # A client's session opens when its router answers, or not at all.
        "connect/timeout_ms": 0 if config.router else -1,
        "connect/exit_on_failure": False,
        "connect/retry": RETRY,
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "transport/link/tx/lease": LEASE_MS,
        "transport/link/tx/keep_alive": 4,
        "transport/link/tx/queue/size/data": BATCHES,
        "transport/link/rx/buffer_size": RECEIVE_BYTES,
        "transport/unicast/open_timeout": OPEN_TIMEOUT_MS,
        "transport/unicast/max_sessions": MAX_MACHINES,
        "transport/unicast/accept_pending": MAX_MACHINES,
    }
    if config.tls is not None:
        settings["transport/link/tls"] = _tls_settings(config.tls)
        # A plain connection must be impossible, not only unused.
        settings["transport/link/protocols"] = ["tls"]
    if config.tls is not None and not config.router:
        settings["access_control"] = session_rules(config.dataflow, config.machine, config.peers)
    zenoh_settings = zenoh.Config()
    for key, value in settings.items():
        zenoh_settings.insert_json5(key, json.dumps(value))
    return zenoh_settings


def _without_brackets(endpoint: str) -> str:
    """Return an endpoint with TLS as Zenoh connects to it: `tls/fd00::7:7447`.

    It takes an address with brackets for a name, which no certificate can have.
    """
    scheme, _, place = endpoint.partition("/")
    host, _, port = place.rpartition(":")
    if scheme != "tls" or not (host.startswith("[") and host.endswith("]")):
        return endpoint
    return f"{scheme}/{host[1:-1]}:{port}"


def _tls_settings(tls: Tls) -> dict[str, Any]:
    """Return the settings for mutual TLS."""
    return {
        "root_ca_certificate_base64": tls.ca,
        "listen_certificate_base64": tls.certificate,
        "listen_private_key_base64": tls.key,
        "connect_certificate_base64": tls.certificate,
        "connect_private_key_base64": tls.key,
        "enable_mtls": True,
        "verify_name_on_connect": tls.verify_name,
    }
