"""What a process holds, and what a test has left: in its own process, and in a daemon."""

import gc
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dorad.launch.descendants import children as children_of

SETTLE_S = 30.0
FAST_S = 0.05
"""Up to this pause between two looks, garbage is looked for only where it usually is."""
SHM = "/dev/shm"
LASTING = (b"hwtests/robots/boot.py", b"/chromium")
"""Programs that outlive a test, and start processes as they like: what boots a robot, a browser."""
ONCE = ("/dev/urandom", "/dev/null")
"""What libraries open once for a process, whenever they first need it."""
_HANDLES = ("anon_inode:[pidfd]", "anon_inode:[eventfd]")
_OURS = re.compile(r"(/memfd:dorad-\w+|/dev/shm/dorad-[\w-]+)")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a descriptor or shared memory behind."""
    if "MUTATION_TEST" in os.environ:
        # A failed test keeps what its frames hold, and this would wait for that with each mutant.
        yield
        return
    before = held()
    yield
    deadline, pause = time.monotonic() + SETTLE_S, 0.005
    while left := leaks(before, held()):
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + ", ".join(left))
        if not all(each.startswith("process ") for each in left):
            collect_garbage(also_frozen=pause > FAST_S)
        time.sleep(pause)
        # A thread that ends after a second of idleness is not worth a hundred collections.
        pause = min(2 * pause, 0.5)


def collect_garbage(*, also_frozen: bool) -> None:
    """Collect garbage, by default only what was made since the tests were collected.

    All test modules and what they import are half a million objects: a collection that goes through
    them takes a quarter of a second, and many tests need one. What a `Node` of this process has
    frozen may be garbage, too.
    """
    if not also_frozen:
        gc.collect()
        return
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Held:
    """What this process holds: at the start of a test, and at its end."""

    descriptors: dict[int, str]
    processes: frozenset[int]
    threads: frozenset[int]
    memory: Counter[str]
    """Mappings of the data plane's memory, also of memory whose descriptors are closed."""
    segments: frozenset[str]
    """Files in /dev/shm whose daemon is dead."""


def held() -> Held:
    """Return what this process holds now."""
    return Held(
        descriptors(),
        frozenset(descendants()),
        frozenset(each.ident or 0 for each in threading.enumerate()),
        mappings(os.getpid()),
        orphaned_segments(),
    )


def leaks(before: Held, now: Held) -> list[str]:
    """Return what this process holds now and has not held before, as texts."""
    found = [
        f"descriptor {number} ({target})"
        for number, target in now.descriptors.items()
        if before.descriptors.get(number) != target and target not in ONCE
    ]
    found += [f"process {pid} ({_command(pid)})" for pid in now.processes - before.processes]
    found += [
        f"thread {each.name}"
        for each in threading.enumerate()
        if each.ident in now.threads - before.threads
    ]
    found += [f"mapped memory {each}" for each in (now.memory - before.memory).elements()]
    found += [f"file {SHM}/{each}" for each in now.segments - before.segments]
    return found


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """Return the targets of all open descriptors; with `os`, since every test asks twice."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
        except FileNotFoundError:
            # The descriptor of the listing itself.
            continue
    return found


def descendants() -> set[int]:
    """Return the processes below this one, without those of robots and browsers.

    Several tests use the same one; whoever has started it ends it.
    """
    found: set[int] = set()
    parents = [os.getpid()]
    while parents:
        below = [pid for pid in children_of(parents.pop()) if not _is_lasting(pid)]
        found.update(below)
        parents += below
    return found


def _is_lasting(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return any(each in command for each in LASTING)
    except (FileNotFoundError, ProcessLookupError):
        return False  # ended meanwhile


def mappings(pid: int) -> Counter[str]:
    """Return how often a process maps each piece of the data plane's memory."""
    content = Path(f"/proc/{pid}/maps").read_bytes()
    if b"dorad-" not in content:  # as of most processes: it saves a third of the check's time
        return Counter()
    # By inode: pieces of one kind have one name.
    text = content.decode(errors="replace")
    lines = (line.split(maxsplit=5) for line in text.splitlines() if "dorad-" in line)
    return Counter(
        f"{match[1]} (inode {line[4]})"
        for line in lines
        if len(line) == 6 and (match := _OURS.search(line[5]))
    )


def kept_for_dataflows(pid: int, folder: Path) -> Counter[str]:
    """Return what a daemon has for its dataflows: memory, bells, watched processes, files.

    Not counted are its sockets, its database and its own log: it keeps those once it has them.
    """
    kept: Counter[str] = mappings(pid)
    for target in descriptors(pid).values():
        file = target.startswith(str(folder)) and "/state.db" not in target
        if _OURS.search(target) or target in _HANDLES or (file and not target.endswith(".log")):
            kept[f"descriptor of {target}"] += 1
    return kept


def orphaned_segments() -> frozenset[str]:
    """Return the segments that dead processes have left: they have their creator's id."""
    return frozenset(
        name
        for name in os.listdir(SHM)  # noqa: PTH208
        if (match := re.fullmatch(r"dorad-(\d+)-.*", name)) and not _runs(int(match[1]))
    )


def _runs(pid: int) -> bool:
    return pid == os.getpid() or Path(f"/proc/{pid}").exists()


def _command(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()) or process.status()
    except psutil.Error as error:
        return str(error)
