"""Identifiers: fresh ones of requests, and what the id of an output may look like."""

from __future__ import annotations

import os
import time
import uuid


def uuid7() -> str:
    """Return a fresh UUID of version 7 (RFC 9562), which sorts by the time it was made.

    48 bits of milliseconds since 1970, then random bits.
    """
    millis = time.time_ns() // 1_000_000
    bits = millis << 80 | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=bits))


def well_formed(output_id: str) -> bool:
    """Tell whether a dataflow file could declare an output of this id."""
    return all(
        part and all(c.isascii() and (c.isalnum() or c in "_.-") for c in part)
        for part in output_id.split("/")
    )
