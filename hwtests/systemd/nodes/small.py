"""A cheap node: it attaches to the daemon as `Node()` does, but exchanges no messages.

Imports for messages take half a second of a processor; without them hundreds of nodes start as
fast as a few.
"""

import importlib.util
import json
import os
import socket
import sys
import time
from pathlib import Path
from types import ModuleType

CONFIG = json.loads(os.environ["DORA_NODE_CONFIG"])
TIMEOUT_S = 60


def load_protocol() -> ModuleType:
    """Import one module of the package without the package."""
    (path,) = [p for p in sys.path if Path(p, "dorad/node/protocol.py").exists()][:1]
    place = Path(path, "dorad/node/protocol.py")
    spec = importlib.util.spec_from_file_location("protocol", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["protocol"] = module
    spec.loader.exec_module(module)
    return module


def connect() -> socket.socket:
    """Connect to the daemon, which may be restarting."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(CONFIG["daemon_socket"])
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.2)


def main() -> None:
    """Stay until a stop."""
    protocol = load_protocol()
    while True:
        sock = connect()
        hello = {"node": CONFIG["node_id"], "dynamic": False, "pid": os.getpid()}
        protocol.send(sock, "hello", hello | {"version": protocol.VERSION}, [])
        while (packet := protocol.receive(sock)) is not None:
            packet.close()
            if packet.kind == "refused":
                sys.exit(packet.text("error"))
            if packet.kind == "welcome":
                protocol.send(sock, "ready", {}, [])
            if packet.kind == "stop":
                return
        sock.close()


main()
