"""The extension table of a node, which its daemon or the node itself holds."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any, Protocol

from dorad.node.exttable import MAX_VALUE, ExtensionTable, TableError
from dorad.node.payload import pack, unpack
from dorad.node.protocol import ProtocolError

if TYPE_CHECKING:
    from dorad.node.connection import DaemonConnection

_log = logging.getLogger(__name__)

MAX_DRAINED = 1 << 30


class Table(Protocol):
    """An extension table as one node sees it."""

    def store(self, namespace: str, key: str, value: bytes) -> None:
        """See `Node.extension_store`."""

    def load(self, namespace: str, key: str, remove: bool) -> bytes | None:
        """See `Node.extension_load`."""

    def drop(self, namespace: str, key: str) -> None:
        """See `Node.extension_drop`."""

    def drain(self, namespace: str) -> list[str]:
        """See `Node.drain_dropped_extension_keys`."""


def check_names(*names: str) -> None:
    """Check names of an extension. Raises TypeError and ValueError."""
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a namespace or key must be str, got {type(name).__name__}")
        name.encode()  # a UnicodeEncodeError is a ValueError


class OwnTable:
    """The table of a node without a dataflow."""

    _NODE = "node"

    def __init__(self) -> None:
        self._table: ExtensionTable[bytes] = ExtensionTable()

    def store(self, namespace: str, key: str, value: bytes) -> None:
        """Store a value."""
        try:
            self._table.store(self._NODE, namespace, key, value)
        except TableError as error:
            raise RuntimeError(str(error)) from None

    def load(self, namespace: str, key: str, remove: bool) -> bytes | None:
        """Return a value."""
        return self._table.load(self._NODE, namespace, key, remove=remove)

    def drop(self, namespace: str, key: str) -> None:
        """Drop a value."""
        self._table.drop(namespace, key)

    def drain(self, namespace: str) -> list[str]:
        """Return dropped keys."""
        return self._table.drain(self._NODE, namespace)


class DaemonTable:
    """The table that the daemon holds; every call is a request to it."""

    def __init__(self, connection: DaemonConnection) -> None:
        self._connection = connection

    def store(self, namespace: str, key: str, value: bytes) -> None:
        """Store a value."""
        if len(value) > MAX_VALUE:
            # The daemon would refuse it too, but only after a copy of everything.
            raise RuntimeError(
                f"extension key {namespace}/{key}: {len(value)} bytes are more than the "
                f"{MAX_VALUE} allowed"
            )
        self._ask("ext_store", {"namespace": namespace, "key": key}, value)

    def load(self, namespace: str, key: str, remove: bool) -> bytes | None:
        """Return a value."""
        fields = {"namespace": namespace, "key": key, "remove": bool(remove)}
        return self._ask("ext_load", fields)

    def drop(self, namespace: str, key: str) -> None:
        """Drop a value."""
        self._ask("ext_drop", {"namespace": namespace, "key": key})

    def drain(self, namespace: str) -> list[str]:
        """Return dropped keys."""
        content = self._ask("ext_drain", {"namespace": namespace})
        keys: list[str] = json.loads(content) if content else []
        return keys

    def _ask(self, kind: str, fields: dict[str, Any], value: bytes | None = None) -> bytes | None:
        """Send a request to the daemon and return the bytes of its answer, if any."""
        descriptors = []
        try:
            if value is not None:
                descriptors.append(pack(value))
            answer = self._connection.ask(kind, fields, descriptors)
            _log.debug("%s %s: %s", kind, fields, answer.kind)
            if answer.kind == "ext_refused":
                raise RuntimeError(answer.text("error"))
            if not answer.descriptors:
                return None
            descriptors += answer.take(1)
            return unpack(descriptors[-1], MAX_DRAINED)
        except ProtocolError as error:
            raise RuntimeError("a namespace and key of an extension are too long") from error
        except OSError as error:
            raise RuntimeError(f"the extension table cannot be reached: {error}") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
