"""A session of Zenoh with the certificate of another robot of the fleet.

It poses as `beta`: it sends what a link process of beta sends, and listens to what beta is sent.
Arguments: the address, and the files of its certificates. Prints what it has received, at the end.
"""

import base64
import json
import sys
from pathlib import Path

import msgspec
import zenoh

from dorad.link import frames
from dorad.link.frames import Content, Numbering, Opening, Start
from dorad.link.hello import Hello

ROOT = "dorad/test-flow"


def main() -> None:
    """Send and listen until the input is closed."""
    address, *files = sys.argv[1:]
    ca, certificate, key = (base64.b64encode(Path(file).read_bytes()).decode() for file in files)
    config = zenoh.Config()
    for name, value in {
        "mode": "peer",
        "connect/endpoints": [address],
        "listen/endpoints": [],
        "scouting/multicast/enabled": False,
        "transport/link/tls": {
            "root_ca_certificate_base64": ca,
            "connect_certificate_base64": certificate,
            "connect_private_key_base64": key,
            "enable_mtls": True,
            "verify_name_on_connect": False,
        },
    }.items():
        config.insert_json5(name, json.dumps(value))
    received = []
    with zenoh.open(config) as session:
        session.declare_subscriber(
            f"{ROOT}/to/beta/**", lambda sample: received.append(str(sample.key_expr))
        )
        session.liveliness().declare_token(f"{ROOT}/alive/beta/{7:016x}")
        print("ready", flush=True)
        opening = Opening(0, 1, 7)
        hello = Hello(frames.VERSION, "test-flow", "beta", 7, 1, None, False, {})
        message = frames.message_head(opening, 0, 0, Content(1, 5, 8, 0, 8, 0), b"") + bytes(8)
        while not sys.stdin.closed and sys.stdin.readline():
            session.put(f"{ROOT}/to/alpha/beta/hello", msgspec.json.encode(hello))
            session.put(
                f"{ROOT}/to/alpha/beta/data",
                frames.encode_start(Start(opening, 0, Numbering(1, 0))),
            )
            session.put(f"{ROOT}/to/alpha/beta/data", message)
            session.put(f"{ROOT}/to/alpha/beta/ack", b"not an acknowledgement")
            print("sent", len(list(session.info.peers_zid())), flush=True)
        print(json.dumps(received), flush=True)


main()
