"""Names of secrets, and how large and how many they may be."""

from __future__ import annotations

import re

from dorad.dataflow.errors import TextError

MAX_SECRET = 32 << 10
"""Bytes of one secret."""
MAX_NODE_SECRETS = 16
"""Secrets of one node: together less than the 1 MiB that systemd gives to a unit."""
NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"

_NAME = re.compile(NAME_PATTERN)


def check_secret_name(text: str) -> None:
    """Raise TextError unless `text` is a valid name of a secret, which is that of its file, too."""
    if not _NAME.fullmatch(text):
        raise TextError(
            "is not a valid name of a secret",
            "1 to 64 letters, digits, `_`, `-` and `.`, and no `.` or `-` first;"
            " the value does not belong into the file",
        )
