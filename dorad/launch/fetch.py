"""Nodes whose path is a URL: download, check, make executable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


async def download(
    url: str,
    working_dir: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = 1 << 30,
    timeout: float = 300.0,
) -> Path:
    """Fetch `url` into `<working_dir>/build/` (with `sha256`: `build/<sha256>/`).

    Raises:
        LaunchError: one line: unreachable, too large (> `max_bytes`), too slow (> `timeout`
            seconds in all), another checksum than `sha256`.
    """
    raise NotImplementedError
