"""A stand-in for the daemon, run in a robot: it keeps one memfd in systemd's descriptor store.

Each process adds its pid to the memory. `/run/dorad/pids` lists all of them, which reveals a lost
store.
"""

import array
import os
import signal
import socket
from pathlib import Path

NAME = "pids"


def notify(text: str, *descriptors: int) -> None:
    """Notify systemd."""
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        place = "\0" + address[1:] if address.startswith("@") else address
        sock.sendmsg([text.encode()], rights if descriptors else [], 0, place)


def main() -> None:
    """Add this pid, list all of them, and stay."""
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if NAME in names:
        memory = 3 + names.index(NAME)
    else:
        memory = os.memfd_create(NAME)
        notify(f"FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0", memory)
    os.lseek(memory, 0, os.SEEK_END)
    os.write(memory, f"{os.getpid()}\n".encode())
    listed = Path("/run/dorad/pids.new")
    listed.write_bytes(os.pread(memory, 1 << 20, 0))
    listed.rename("/run/dorad/pids")
    notify("READY=1\nSTATUS=keeping")
    signal.pause()


main()
