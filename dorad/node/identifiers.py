"""Identifiers: UUIDs for requests, and the syntax of output ids."""

from __future__ import annotations

import os
import time
import uuid


def uuid7() -> str:
    """Return a new UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits.

    Such UUIDs sort by their time of creation.
    """
    millis = time.time_ns() // 1_000_000
    bits = millis << 80 | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=bits))


def well_formed(output_id: str) -> bool:
    """Return True if a dataflow file can declare an output with this id."""
    return all(
        part and all(c.isascii() and (c.isalnum() or c in "_.-") for c in part)
        for part in output_id.split("/")
    )
