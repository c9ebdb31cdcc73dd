"""Frames between the daemon and a subscription process: JSON, then bytes.

| `kind` | sent by | content |
|---|---|---|
| `ready` | process | it has joined the dataflow |
| `message` | `echo` | `topic`, `displaced`, `metadata`, and an Arrow IPC stream as bytes |
| `sent` | `publish` | the last order was carried out |
| `error` | process | `text` |

An order to `publish` has no kind, but `data` and `metadata`.
"""

import json
import struct
from typing import Any

PREFIX = struct.Struct("<IQ")
"""Size of the JSON, size of the bytes after it."""


def head(content: dict[str, Any], size: int = 0) -> bytes:
    """Return the start of a frame, which `size` bytes follow.

    Raises:
        ValueError: JSON cannot represent the content.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return PREFIX.pack(len(text), size) + text
