"""What passes between the daemon and a tap: a JSON object and bytes, each with its length."""

from __future__ import annotations

import json
import struct
from typing import Any

PREFIX = struct.Struct("<IQ")
"""Bytes of JSON, bytes after it."""


def head(content: dict[str, Any], size: int = 0) -> bytes:
    """The start of a frame that is followed by `size` bytes.

    Raises ValueError for what JSON has no word for.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return PREFIX.pack(len(text), size) + text
