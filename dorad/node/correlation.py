"""Metadata of services, actions and streams: keys, ids, and the queue flags that they set."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from dorad.node import metadata as metadata_codec
from dorad.shm.layout import CORRELATED, FLUSH

REQUEST_ID = "request_id"
GOAL_ID = "goal_id"
GOAL_STATUS = "goal_status"
SESSION_ID = "session_id"
FLUSH_KEY = "flush"

CORRELATING = frozenset((REQUEST_ID, GOAL_ID, GOAL_STATUS))
"""A full queue drops a message with one of these keys only in favour of a newer one like it."""

MARKING = CORRELATING | {FLUSH_KEY}


def uuid7() -> str:
    """Return a new UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits.

    Such UUIDs sort by their time of creation.
    """
    millis = time.time_ns() // 1_000_000
    bits = millis << 80 | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    digits = f"{bits:032x}"  # the module `uuid` is slow to import
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def id_in(metadata: Mapping[str, Any], key: str) -> str | None:
    """Return the id under a metadata key; None if it is missing or not a string."""
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def flags_of(metadata: Mapping[str, Any]) -> int:
    """Return the flags that the ring entry of a message with this metadata carries."""
    flags = 0 if CORRELATING.isdisjoint(metadata) else CORRELATED
    return flags | FLUSH if metadata.get(FLUSH_KEY) is True else flags


def session_of(encoded: bytes) -> Any:
    """Return the `session_id` in encoded metadata, or None.

    Raises:
        ValueError: the bytes are not metadata.
    """
    return metadata_codec.decode(encoded).get(SESSION_ID)
