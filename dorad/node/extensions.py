"""The extension methods of a node, on a table that its daemon or the node itself holds."""

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
        """See `ExtensionMethods.extension_store`."""

    def load(self, namespace: str, key: str, remove: bool) -> bytes | None:
        """See `ExtensionMethods.extension_load`."""

    def drop(self, namespace: str, key: str) -> None:
        """See `ExtensionMethods.extension_drop`."""

    def drain(self, namespace: str) -> list[str]:
        """See `ExtensionMethods.drain_dropped_extension_keys`."""


class ExtensionMethods:
    """The extension methods of a node. All nodes share the keys; each value has an owner node."""

    _extensions: Table

    def extension_store(self, namespace: str, key: str, value: bytes) -> None:
        """Store opaque bytes that all nodes of the dataflow can load, until this node ends.

        Raises:
            RuntimeError: another node has stored this key, 8192 entries are there already, the
                value has more than 64 MiB, this node would store more than 128 MiB (all nodes
                together: 256 MiB), a name has more than 1024 characters, or the connection to the
                daemon was closed.
            TypeError: the value is not `bytes`, or a name is not a `str`.
            ValueError: a name is not valid Unicode.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"the value must be bytes, got {type(value).__name__}")
        _check(namespace, key)
        self._extensions.store(namespace, key, value)

    def extension_load(self, namespace: str, key: str, remove: bool = False) -> bytes | None:
        """Return a stored value, or None if there is none; `remove` also drops it.

        Raises:
            RuntimeError: the connection to the daemon was closed.
            TypeError: a name is not a `str`.
        """
        _check(namespace, key)
        if not isinstance(remove, bool):
            raise TypeError(f"remove must be a bool, got {type(remove).__name__}")
        return self._extensions.load(namespace, key, remove)

    def extension_drop(self, namespace: str, key: str) -> None:
        """Drop a stored value; do nothing if there is none.

        Raises:
            RuntimeError: the connection to the daemon was closed.
            TypeError: a name is not a `str`.
        """
        _check(namespace, key)
        self._extensions.drop(namespace, key)

    def drain_dropped_extension_keys(self, namespace: str) -> list[str]:
        """Return the keys dropped since the last call that this node had stored or loaded.

        A key is dropped by `extension_drop`, by loading with `remove`, and when its owner ends.
        Only the last 4096 keys are kept.

        Raises:
            RuntimeError: the connection to the daemon was closed.
            TypeError: the namespace is not a `str`.
        """
        _check(namespace)
        return self._extensions.drain(namespace)


def _check(*names: str) -> None:
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
