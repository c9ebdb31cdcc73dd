"""Sessions of Zenoh as link processes open them: prints which of them have a peer, as JSON.

A process of its own: Zenoh leaves descriptors open. Input: the port, and for each session its name
and its certificates. The first one listens; all others but the last are strangers, whose state is
read once the last has a peer.
"""

import base64
import json
import sys
import time

import zenoh

DEADLINE_S = 60.0


def opened(port, *, ca, chain, key, listens):
    text = {"ca": ca, "chain": chain, "key": key}
    encoded = {name: base64.b64encode(pem.encode()).decode() for name, pem in text.items()}
    endpoints = [f"tls/127.0.0.1:{port}"]
    config = zenoh.Config()
    for name, value in {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "listen/endpoints": endpoints if listens else [],
        "connect/endpoints": [] if listens else endpoints,
        "transport/link/tls": {
            "root_ca_certificate_base64": encoded["ca"],
            "listen_certificate_base64": encoded["chain"],
            "listen_private_key_base64": encoded["key"],
            "connect_certificate_base64": encoded["chain"],
            "connect_private_key_base64": encoded["key"],
            "enable_mtls": True,
            "verify_name_on_connect": False,
        },
    }.items():
        config.insert_json5(name, json.dumps(value))
    return zenoh.open(config)


def main():
    given = json.load(sys.stdin)
    names = list(given["sessions"])
    sessions = {
        name: opened(given["port"], **files, listens=name == names[0])
        for name, files in given["sessions"].items()
    }
    end = time.monotonic() + DEADLINE_S
    while not list(sessions[names[-1]].info.peers_zid()) and time.monotonic() < end:
        time.sleep(0.05)
    print(json.dumps([name for name in names[1:] if list(sessions[name].info.peers_zid())]))


main()
