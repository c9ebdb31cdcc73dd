"""A node in C in this process: libdora_node by ctypes, attached to a fake daemon."""

import contextlib
import ctypes
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tests.node.fakedaemon import FakeDaemon, in_thread

P = ctypes.c_void_p
Event = tuple[str, str, bytes | dict[str, bytes]]
"""Type, id, and data, for a set by input."""


class CNode:
    """The context of a node in C."""

    def __init__(self, library: ctypes.CDLL, context: int) -> None:
        self.library = library
        self.context = context

    def next(self, timeout_ms: int = 0) -> Event | None:
        """Return the next event; None without one."""
        event = P()
        result = self.library.dora_next_event_timeout(
            P(self.context), ctypes.c_int64(timeout_ms), ctypes.byref(event)
        )
        assert result >= 0, self.library.dora_last_error()
        if not event:
            return None
        try:
            return self._read(event)
        finally:
            self.library.free_dora_event(event)

    def _read(self, event: P) -> Event:
        kind = self.library.dora_event_name(event).decode()
        name = self.library.dora_event_id(event).decode()
        count = self.library.dora_event_member_count(event)
        if not count:
            return kind, name, self._data(event)
        members = [P(self.library.dora_event_member(event, at)) for at in range(count)]
        assert not self.library.dora_event_member(event, count)
        return kind, name, {self._read(each)[1]: self._data(each) for each in members}

    def _data(self, event: P) -> bytes:
        place, size = P(), ctypes.c_size_t()
        self.library.read_dora_input_data(event, ctypes.byref(place), ctypes.byref(size))
        return ctypes.string_at(place, size.value) if place else b""


@contextlib.contextmanager
def attached_in_c(daemon: FakeDaemon, prefix: Path) -> Iterator[CNode]:
    """Yield the started node in C."""
    library = ctypes.CDLL(str(prefix / "lib" / "libdora_node.so"))
    for name in ("dora_event_name", "dora_event_id", "dora_last_error"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in ("init_dora_context_from_env", "dora_event_member"):
        getattr(library, name).restype = P
    library.dora_event_member_count.restype = ctypes.c_size_t
    library.dora_event_member.argtypes = [P, ctypes.c_size_t]
    os.environ["DORA_NODE_CONFIG"] = json.dumps(
        {"node_id": "n", "daemon_socket": os.fspath(daemon.path)}
    )
    # getenv() of the library sees what Python's environ has set by putenv().
    with in_thread(daemon.start) as started:
        context = library.init_dora_context_from_env()
        started()
    del os.environ["DORA_NODE_CONFIG"]
    assert context, library.dora_last_error()
    try:
        yield CNode(library, context)
    finally:
        library.free_dora_context(P(context))
