"""Facts about real time on this machine, read from /proc and /sys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dorad.realtime.memory import CAP_IPC_LOCK
from dorad.realtime.refusal import CAP_SYS_NICE, UNLIMITED

SERVICE = "dorad.service"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts; None or empty if missing or unreadable."""

    governors: Mapping[int, str] = field(default_factory=dict)
    """The frequency governor of each core."""
    huge_pages: str | None = None
    """`always`, `madvise` or `never`."""
    rt_runtime_us: int | None = None
    rt_period_us: int | None = None
    online: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()
    preemption: str | None = None
    """`rt`, `full`, `voluntary`, `none` or `lazy`; `dynamic`: one of those, chosen at boot."""
    interrupts: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """The cores that may receive each interrupt, by its number."""
    locked_limit: int | None = None
    """In bytes, or UNLIMITED. This and the next four are about the process that starts nodes."""
    may_lock: bool = False
    """True if it has CAP_IPC_LOCK."""
    priority_limit: int | None = None
    may_prioritise: bool = False
    """True if it has CAP_SYS_NICE."""
    is_service: bool = False
    """True if it is the system service, False if a user runs it."""
    swaps: tuple[str, ...] = ()
    clock: str | None = None
    clocks: tuple[str, ...] = ()
    """The available clock sources."""
    smt: bool = False
    """True if simultaneous multithreading is active."""
    machine: str = ""
    """As `uname -m`."""


class ProcReader:
    """Reads files below `root`, which is `/` except in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def facts(self, pid: int | str = "self") -> Facts:
        """Return all facts; `pid` is the process that starts nodes."""
        cpus = "sys/devices/system/cpu"
        clock = "sys/devices/system/clocksource/clocksource0"
        limits, status = self._table(f"proc/{pid}/limits"), self._table(f"proc/{pid}/status")
        capabilities = int(status.get("CapEff:", ["0"])[0], 16)
        return Facts(
            governors=dict(self._governors(cpus)),
            huge_pages=_chosen(self._text("sys/kernel/mm/transparent_hugepage/enabled")),
            rt_runtime_us=self._number("proc/sys/kernel/sched_rt_runtime_us"),
            rt_period_us=self._number("proc/sys/kernel/sched_rt_period_us"),
            online=parse_cores(self._text(f"{cpus}/online") or ""),
            isolated=parse_cores(self._text(f"{cpus}/isolated") or ""),
            preemption=self._preemption(),
            interrupts=dict(self._interrupts()),
            locked_limit=_limit(limits, "Max locked memory"),
            may_lock=bool(capabilities >> CAP_IPC_LOCK & 1),
            priority_limit=_limit(limits, "Max realtime priority"),
            may_prioritise=bool(capabilities >> CAP_SYS_NICE & 1),
            is_service=SERVICE in (self._text(f"proc/{pid}/cgroup") or ""),
            swaps=tuple(
                line.split()[0] for line in (self._text("proc/swaps") or "").splitlines()[1:]
            ),
            clock=self._text(f"{clock}/current_clocksource"),
            clocks=tuple((self._text(f"{clock}/available_clocksource") or "").split()),
            smt=self._text(f"{cpus}/smt/active") == "1",
            machine=os.uname().machine,
        )

    def _text(self, path: str) -> str | None:
        with suppress(OSError):
            return (self._root / path).read_text(encoding="utf-8", errors="replace").strip()
        return None

    def _number(self, path: str) -> int | None:
        text = self._text(path)
        return None if text is None else int(text)

    def _table(self, path: str) -> dict[str, list[str]]:
        """Return rows of a name and its values; two blanks or a tab end a name."""
        rows: dict[str, list[str]] = {}
        for line in (self._text(path) or "").splitlines():
            name, _, rest = line.replace("\t", "  ").partition("  ")
            rows[name] = rest.split()
        return rows

    def _governors(self, cpus: str) -> Iterator[tuple[int, str]]:
        for path in (self._root / cpus).glob("cpu[0-9]*/cpufreq/scaling_governor"):
            governor = self._text(str(path.relative_to(self._root)))
            if governor is not None:
                yield int(path.parts[-3][3:]), governor

    def _preemption(self) -> str | None:
        version = self._text("proc/version") or ""
        if self._text("sys/kernel/realtime") == "1" or "PREEMPT_RT" in version:
            return "rt"
        if "PREEMPT_DYNAMIC" in version:
            words = (self._text("proc/cmdline") or "").split()
            asked = [word[8:] for word in words if word.startswith("preempt=")]
            # Only root may read the present mode.
            now = _chosen(self._text("sys/kernel/debug/sched/preempt"), "()")
            return now or (asked[-1] if asked else "dynamic")
        if not version:
            return None
        return "full" if "PREEMPT" in version else "voluntary"

    def _interrupts(self) -> Iterator[tuple[str, frozenset[int]]]:
        for path in (self._root / "proc/irq").glob("[0-9]*"):
            relative = path.relative_to(self._root)
            cores = self._text(f"{relative}/effective_affinity_list") or self._text(
                f"{relative}/smp_affinity_list"
            )
            if cores:
                yield path.name, parse_cores(cores)


def _chosen(text: str | None, marks: str = "[]") -> str | None:
    """Return the word in brackets, which the kernel puts around the chosen option."""
    if text is None or marks[0] not in text:
        return None
    return text.partition(marks[0])[2].partition(marks[1])[0]


def _limit(limits: Mapping[str, list[str]], name: str) -> int | None:
    values = limits.get(name)
    if not values:
        return None
    return UNLIMITED if values[0] == "unlimited" else int(values[0])


def parse_cores(text: str) -> frozenset[int]:
    """Return the cores of a list as the kernel writes it (`0-3,8`); it may be empty.

    Raises:
        ValueError: the text is not a list of cores.
    """
    cores: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def spell_cores(cores: Iterable[int]) -> str:
    """Return cores as the kernel writes them."""
    spans: list[list[int]] = []
    for core in sorted(set(cores)):
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
