"""The base of all messages of the control API, and the version of the protocol."""

from __future__ import annotations

import msgspec

PROTOCOL = 1
"""Version of this protocol, which both sides send in the handshake."""


class Struct(msgspec.Struct, kw_only=True, forbid_unknown_fields=False):
    """The base of every message."""


class Nothing(Struct):
    """No parameters, or no result."""
