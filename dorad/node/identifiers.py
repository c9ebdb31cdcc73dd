"""Identifiers of requests: UUIDs that sort by the time they were made (RFC 9562, version 7)."""

from __future__ import annotations

import os
import time
import uuid


def uuid7() -> str:
    """Return a fresh UUID of version 7: 48 bits of milliseconds since 1970, then random bits."""
    millis = time.time_ns() // 1_000_000
    bits = millis << 80 | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=bits))
