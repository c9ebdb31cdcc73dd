"""Two ways to step the wall clock: for processes of the testbed, or for the whole machine."""

import mmap
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import Protocol, Self

_OFFSET = struct.Struct("q")


class Clock(Protocol):
    """A wall clock that can be set wrong, and is right again at the end."""

    env: dict[str, str]
    steps: tuple[int, ...]
    what: str

    def step(self, seconds: int) -> None:
        """Set it wrong by `seconds` in total."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class PatchedClock:
    """The clock that Python code of the testbed's processes reads; see `sitecustomize.py`."""

    steps: tuple[int, ...] = (1, 60, 3600, 86_400)
    what = "the wall clock as Python sees it"

    def __enter__(self) -> Self:
        self._file = tempfile.NamedTemporaryFile(prefix="dora-faults-clock-")
        self._file.write(bytes(_OFFSET.size))
        self._file.flush()
        self._memory = mmap.mmap(self._file.fileno(), _OFFSET.size)
        self.env = {"FAULTS_CLOCK": self._file.name, "PYTHONPATH": str(Path(__file__).parent)}
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()
        self._file.close()

    def step(self, seconds: int) -> None:
        _OFFSET.pack_into(self._memory, 0, seconds)


class MachineClock:
    """The machine's CLOCK_REALTIME, for every process on it."""

    steps: tuple[int, ...] = (1, 5)
    what = "the machine's clock"

    def __enter__(self) -> Self:
        self.env: dict[str, str] = {}
        self._right = time.time() - time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.step(0)

    def step(self, seconds: int) -> None:
        time.clock_settime(time.CLOCK_REALTIME, self._right + time.monotonic() + seconds)


def why_not_the_machines() -> str | None:
    """Return why this process cannot set the machine's clock; None if it can."""
    return None if os.geteuid() == 0 else "only root can set the machine's clock"
