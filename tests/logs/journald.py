"""A journal for tests: takes entries at a socket, and understands its native protocol."""

from __future__ import annotations

import array
import json
import os
import socket
import stat
import struct
import sys
from pathlib import Path

CLIENT = """\
#!{python}
import json, sys
arguments = sys.argv[1:]
if "--sync" in arguments:
    sys.exit()
entries = [json.loads(line) for line in open({file!r})]
wanted = {{}}
for argument in arguments:
    if not argument.startswith("-"):
        key, _, value = argument.partition("=")
        wanted.setdefault(key, []).append(value)
entries = [e for e in entries if all(e.get(k) in v for k, v in wanted.items())]
if "--reverse" in arguments:
    entries.reverse()
if "--lines=1" in arguments:
    del entries[1:]
for entry in entries:
    print(json.dumps(entry))
"""


CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a sender."""


class Journald:
    """Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = str(folder / "socket")
        self.entries: list[dict[str, str]] = []
        self.memories = 0
        """How many entries came as memory."""
        self._written: list[dict[str, str]] = []
        self._file = folder / "entries"
        self._file.touch()
        self.client = folder / "journalctl"
        self.client.write_text(CLIENT.format(python=sys.executable, file=str(self._file)))
        self.client.chmod(0o755)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def __enter__(self) -> Journald:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def stop(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        Path(self.path).unlink()

    def take(self) -> list[dict[str, str]]:
        """Take what has been sent, and return all entries so far."""
        while True:
            try:
                space = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(CREDENTIALS.size)
                data, ancillary, _, _ = self._socket.recvmsg(1 << 20, space)
            except BlockingIOError:
                break
            trusted = {}
            for _, kind, payload in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    _, uid, _ = CREDENTIALS.unpack(payload)
                    trusted["_UID"] = str(uid)
                    continue
                (descriptor,) = array.array("i", payload)
                assert stat.S_ISREG(os.fstat(descriptor).st_mode)
                data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                os.close(descriptor)
                self.memories += 1
            output = {name: value for name, value in fields(data).items() if name[0] != "_"}
            self.entries.append(output | trusted)
        self._write()
        return self.entries

    def _write(self) -> None:
        """Append new entries to the file; rewrite it if a test has inserted some."""
        known = len(self._written)
        if self.entries[:known] != self._written:
            known = 0
        with self._file.open("a" if known else "w") as file:
            for entry in self.entries[known:]:
                file.write(json.dumps({"__CURSOR": str(id(entry)), **entry}) + "\n")
        self._written = list(self.entries)

    @property
    def messages(self) -> list[str]:
        return [entry["MESSAGE"] for entry in self.take()]


def fields(data: bytes) -> dict[str, str]:
    """Return the fields of an entry."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        found[name.decode()] = value.decode()
        data = rest
    return found
