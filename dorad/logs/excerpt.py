"""The interesting part of what a failed node wrote to stderr."""

from __future__ import annotations

from collections.abc import Sequence


def excerpt(lines: Sequence[str], limit: int = 20) -> tuple[str, ...]:
    """At most about `limit` lines of `lines` that say why the node failed.

    Of a Python traceback: the frames in the user's files and the error. Else the last lines.
    """
    raise NotImplementedError
