"""The scheduling of a process as numbers, and the system calls that set it.

Few imports: the process that starts nodes loads this module before the first one.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dorad.dataflow.settings import Realtime

SCHED_DEADLINE = 6
_POLICIES = {"other": os.SCHED_OTHER, "fifo": os.SCHED_FIFO, "rr": os.SCHED_RR} | {
    "deadline": SCHED_DEADLINE
}
_NAMES = {number: name for name, number in _POLICIES.items()}
_RESET_ON_FORK = 1
"""The flag of `sched_setattr`; its value differs from os.SCHED_RESET_ON_FORK."""
_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "armv7l": 380, "armv6l": 380}
"""The number of the system call `sched_setattr`, for which the C library has no function."""


class Schedule:
    """A policy with its parameters, and whether the process locks its memory.

    Threads and children of the process never inherit the policy.
    """

    __slots__ = ("deadline_ns", "lock_memory", "period_ns", "policy", "priority", "runtime_ns")

    def __init__(
        self,
        policy: int = os.SCHED_OTHER,
        priority: int = 0,
        lock_memory: int = 0,
        runtime_ns: int = 0,
        deadline_ns: int = 0,
        period_ns: int = 0,
    ) -> None:
        self.policy = policy
        self.priority = priority
        self.lock_memory = lock_memory
        self.runtime_ns = runtime_ns
        self.deadline_ns = deadline_ns
        self.period_ns = period_ns

    def numbers(self) -> tuple[int, ...]:
        """Return the arguments of the constructor, in order."""
        return (
            self.policy,
            self.priority,
            self.lock_memory,
            self.runtime_ns,
            self.deadline_ns,
            self.period_ns,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.numbers() == other.numbers()

    def __hash__(self) -> int:
        return hash(self.numbers())

    def __str__(self) -> str:
        if self.policy == SCHED_DEADLINE:
            times = (self.runtime_ns, self.deadline_ns, self.period_ns)
            run, due, every = (f"{time / 1e6:g}" for time in times)
            return f"deadline ({run} ms within {due} ms, every {every} ms)"
        name = _NAMES.get(self.policy, str(self.policy))
        return f"{name} {self.priority}" if self.priority else name


def schedule_of(realtime: Realtime | None) -> Schedule | None:
    """Return the schedule of a node's `realtime`, None if it needs no system call."""
    if realtime is None or (realtime.policy == "other" and not realtime.lock_memory):
        return None
    deadline = realtime.policy == "deadline"
    return Schedule(
        _POLICIES[realtime.policy],
        realtime.priority or 0,
        int(realtime.lock_memory),
        realtime.runtime_ns,
        (realtime.deadline_ns or 0) if deadline else 0,
        realtime.period_ns,
    )


def in_words(realtime: Realtime) -> str:
    """Return a node's settings as text: `fifo 20, memory locked, ticks due within 5 ms`."""
    wanted = schedule_of(realtime) or Schedule()
    words = [str(wanted)]
    if wanted.lock_memory:
        words.append("memory locked")
    if realtime.deadline_ns is not None and wanted.policy != SCHED_DEADLINE:
        words.append(f"ticks due within {realtime.deadline_ns / 1e6:g} ms")
    return ", ".join(words)


def set_policy(wanted: Schedule) -> None:
    """Set the policy of the calling thread.

    Raises:
        OSError: the kernel refuses: EPERM for a lack of rights, EBUSY if the deadlines of all
            processes together need more time than the cores have, ENOSYS on an unknown machine.
    """
    if wanted.policy == os.SCHED_OTHER:
        return
    if wanted.policy == SCHED_DEADLINE:
        _set_attributes(wanted)
        return
    flags = wanted.policy | os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(0, flags, os.sched_param(wanted.priority))


def _set_attributes(wanted: Schedule) -> None:
    import ctypes
    import errno
    import struct

    number = _SETATTR.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    times = (wanted.runtime_ns, wanted.deadline_ns, wanted.period_ns)
    size = struct.calcsize("=IIQiIQQQ")
    content = struct.pack("=IIQiIQQQ", size, wanted.policy, _RESET_ON_FORK, 0, 0, *times)
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, content, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
