"""Watch the number of the daemon's open descriptors, and warn before they run out."""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

EVERY_S = 5.0
WARN_SHARE = 0.8
"""The fraction of the limit from which on it warns."""
CLEAR_SHARE = 0.7
"""Share of the limit below which the warning is cleared."""

_FOLDER = Path("/proc/self/fd")
_log = logging.getLogger(__name__)


def _own_numbers() -> list[str]:
    return [path.name for path in _FOLDER.iterdir()]


class DescriptorWatch:
    """Compares the descriptors of this process with its limit."""

    def __init__(
        self,
        listed: Callable[[], Sequence[str]] = _own_numbers,
        limit: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    ) -> None:
        """`listed` returns the numbers of all open descriptors, `limit` the maximum count."""
        self._listed = listed
        self._limit = limit
        self.trouble: str | None = None
        """The problem and its fix, while too many are open."""

    async def run(self) -> None:
        """Check regularly, until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(EVERY_S)

    def check(self) -> None:
        """Count the open descriptors; log a warning when they become too many."""
        try:
            numbers, limit = self._listed(), self._limit()
        except OSError as error:
            _log.warning("cannot count the open descriptors: %s", error)
            return
        _log.debug("%d of %d descriptors are open", len(numbers), limit)
        if len(numbers) >= WARN_SHARE * limit:
            first = self.trouble is None
            self.trouble = (
                f"{len(numbers)} of at most {limit} descriptors are open"
                f" (most of them: {_most_common(numbers)}); when none is left, no node can be"
                " started and no command answered. Stop dataflows, or raise the limit"
                " (LimitNOFILE= in dorad.service, elsewhere `ulimit -n`)"
            )
            if first:
                _log.warning("%s", self.trouble)
        elif self.trouble is not None and len(numbers) < CLEAR_SHARE * limit:
            self.trouble = None
            _log.info("%d of at most %d descriptors are open again", len(numbers), limit)


def _most_common(numbers: Sequence[str]) -> str:
    """Return the most common kind of the descriptors: `sockets`, `pipes`, or a file's name."""
    kinds: Counter[str] = Counter()
    for number in numbers:
        with suppress(OSError):  # closed meanwhile
            kinds[_kind(str((_FOLDER / number).readlink()))] += 1
    return kinds.most_common(1)[0][0] if kinds else "unknown"


def _kind(target: str) -> str:
    """Return the kind of a descriptor from the target of its link in /proc."""
    if target.startswith(("socket:", "pipe:")):
        return f"{target.partition(':')[0]}s"
    if target.startswith("anon_inode:"):
        return target.removeprefix("anon_inode:").strip("[]")
    if target.startswith("/memfd:"):
        return "memory"
    return target
