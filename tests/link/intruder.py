"""A session of Zenoh that poses as a robot on the links of a dataflow, with some certificate.

It sends what a link process of that robot sends, and listens to what the robot is sent. Arguments:
the address, the dataflow, the robot that listens there, the one that it poses as, and the files of
its certificates. Prints what it has received, at the end.
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


def main() -> None:
    """Send and listen until the input is closed."""
    address, dataflow, target, posed, *files = sys.argv[1:]
    root = f"dorad/{dataflow}"
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
            f"{root}/to/{posed}/**", lambda sample: received.append(str(sample.key_expr))
        )
        session.liveliness().declare_token(f"{root}/alive/{posed}/{7:016x}")
        print("ready", flush=True)
        opening = Opening(0, 1, 7)
        hello = Hello(frames.VERSION, dataflow, posed, 7, 1, None, False, {})
        message = frames.message_head(opening, 0, 0, Content(1, 5, 8, 0, 8, 0), b"") + bytes(8)
        while not sys.stdin.closed and sys.stdin.readline():
            session.put(f"{root}/to/{target}/{posed}/hello", msgspec.json.encode(hello))
            session.put(
                f"{root}/to/{target}/{posed}/data",
                frames.encode_start(Start(opening, 0, Numbering(1, 0))),
            )
            session.put(f"{root}/to/{target}/{posed}/data", message)
            session.put(f"{root}/to/{target}/{posed}/ack", b"not an acknowledgement")
            print("sent", len(list(session.info.peers_zid())), flush=True)
        print(json.dumps(received), flush=True)


main()
