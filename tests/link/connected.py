"""One end of a link without channels: prints how many connections of peers it knows, once a line.

Arguments: the name of the machine, "listen" or "connect", the address, the other machine, and the
three files of a certificate, if there are any.
"""

import base64
import os
import sys
from pathlib import Path

from dorad.link.config import ChannelOut, LinkConfig, Tls
from dorad.link.session import Session


def main() -> None:
    """Answer until the input is closed."""
    machine, role, address, other, *files = sys.argv[1:]
    tls = [base64.b64encode(Path(file).read_bytes()).decode() for file in files]
    session = Session(
        LinkConfig(
            "flow",
            machine,
            listen=[address] if role == "listen" else [],
            connect=[address] if role == "connect" else [],
            outgoing=[ChannelOut("a/out", other, "x")],
            tls=Tls(*tls) if tls else None,
        ),
        len(machine),
        lambda _: None,
        lambda _machine, _queue, otherwise: otherwise,
    )
    for _ in sys.stdin:
        print(len(session.connections()), flush=True)
    os._exit(0)


main()
