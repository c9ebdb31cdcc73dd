"""The metadata keys by which a message takes part in an exchange, and what queues do for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dorad.node import metadata as metadata_codec
from dorad.shm.layout import CORRELATED, FLUSH

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST_ID = "request_id"
GOAL_ID = "goal_id"
GOAL_STATUS = "goal_status"
SESSION_ID = "session_id"
FLUSH_KEY = "flush"

CORRELATING = frozenset((REQUEST_ID, GOAL_ID, GOAL_STATUS))
"""A full queue gives up a message with one of these only for a newer one of the kind."""

MARKING = CORRELATING | {FLUSH_KEY}


def id_in(metadata: Mapping[str, Any], key: str) -> str | None:
    """Return the id that metadata have under a key; None if there is none, or it is no text."""
    found = metadata.get(key)
    return found if isinstance(found, str) else None


def flags_of(metadata: Mapping[str, Any]) -> int:
    """Return what an entry of the data plane says of a message with this metadata."""
    flags = 0 if CORRELATING.isdisjoint(metadata) else CORRELATED
    return flags | FLUSH if metadata.get(FLUSH_KEY) is True else flags


def session_of(encoded: bytes) -> Any:
    """Return the `session_id` that encoded metadata have, or None.

    Raises:
        ValueError: they are no metadata.
    """
    return metadata_codec.decode(encoded).get(SESSION_ID)
