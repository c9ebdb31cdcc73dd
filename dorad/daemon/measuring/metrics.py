"""What the processes of nodes use: CPU, memory, disk and network, children included.

All figures are differences of totals that the kernel keeps. A process that ends hands its CPU time
and disk bytes to the parent that reaps it, so children that live for less than a second count too;
what is lost is a process whose parent ends before it. Memory that several processes share counts
for each of them.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import psutil

from dorad.control.messages import NodeMetrics
from dorad.daemon.measuring.sockdiag import Traffic, tcp_traffic
from dorad.launch.descendants import children

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PROCESSES = 256
"""Of one node; a node with more is measured by these."""

_SHORTEST_S = 0.001

_Key = TypeVar("_Key")


@dataclass(slots=True)
class _Totals:
    """What a node has used since it started."""

    at: float
    cpu: float = 0.0
    read: int = 0
    written: int = 0
    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class _Seen:
    """One node between two samples."""

    pid: int
    totals: _Totals
    tree: frozenset[int] = frozenset()
    new: frozenset[int] = frozenset()
    """Processes of the tree that were not in it before."""
    sockets: dict[int, Traffic] = field(default_factory=dict)
    """By inode."""
    sent: int = 0
    received: int = 0


class NodeMeter(Generic[_Key]):
    """Measures nodes, each named by a key of the caller's; call `sample` about once a second.

    It reads files of /proc: run it in a thread, one call at a time.
    """

    def __init__(
        self,
        traffic: Callable[[], dict[int, Traffic]] = tcp_traffic,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_traffic = traffic
        self._clock = clock
        self._seen: dict[_Key, _Seen] = {}
        self._processes: dict[int, psutil.Process] = {}
        self._owners: dict[int, _Key | None] = {}

    def sample(self, nodes: Mapping[_Key, int]) -> dict[_Key, NodeMetrics]:
        """The figures of all nodes, `nodes` being the pid of each. One that is gone has none.

        Rates are over the time since the last sample, for a process that is new here since its
        start. CPU is in percent of one core, disk and network in bytes a second.
        """
        found: dict[_Key, NodeMetrics] = {}
        before, self._seen = self._seen, {}
        totals: dict[_Key, tuple[_Totals, int]] = {}
        for key, pid in nodes.items():
            seen = before.get(key)
            if seen is None or seen.pid != pid:
                began = self._began(pid)
                if began is None:
                    continue
                seen = _Seen(pid, _Totals(began))
            measured = self._measure(seen)
            if measured is not None:
                totals[key] = measured
                self._seen[key] = seen
        known = self._measure_network()
        for key, (now, memory) in totals.items():
            seen = self._seen[key]
            now.sent, now.received = seen.sent, seen.received
            found[key] = _rates(seen.totals, now, memory, known)
            seen.totals = now
        alive = {pid for seen in self._seen.values() for pid in seen.tree}
        self._processes = {pid: p for pid, p in self._processes.items() if pid in alive}
        return found

    def _began(self, pid: int) -> float | None:
        """When the process started, by our clock."""
        try:
            age = time.time() - psutil.Process(pid).create_time()
        except psutil.Error:
            return None
        return self._clock() - max(age, 0.0)

    def _measure(self, seen: _Seen) -> tuple[_Totals, int] | None:
        """Totals and resident bytes of a node's processes; None once its own is gone."""
        now, memory = _Totals(self._clock()), 0
        tree = _tree(seen.pid)
        for pid in tree:
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                self._processes[pid] = process
                cpu = process.cpu_times()
                memory += process.memory_info().rss
                now.cpu += cpu.user + cpu.system + cpu.children_user + cpu.children_system
                with contextlib.suppress(psutil.AccessDenied):
                    disk = process.io_counters()
                    now.read += disk.read_bytes
                    now.written += disk.write_bytes
            except psutil.Error:
                self._processes.pop(pid, None)
                if pid == seen.pid:
                    return None
        seen.tree, seen.new = tree, tree - seen.tree
        return now, memory

    def _measure_network(self) -> bool:
        """Add what the nodes' connections have carried since the last time; whether it is known."""
        try:
            traffic = self._read_traffic()
        except OSError:
            return False
        self._find_owners(traffic)
        sockets: dict[_Key, dict[int, Traffic]] = {key: {} for key in self._seen}
        for inode, now in traffic.items():
            owner = self._owners[inode]
            if owner is None or owner not in self._seen:
                continue
            seen = self._seen[owner]
            then = seen.sockets.get(inode, Traffic(0, 0))
            seen.sent += max(now.sent - then.sent, 0)
            seen.received += max(now.received - then.received, 0)
            sockets[owner][inode] = now
        for key, seen in self._seen.items():
            seen.sockets = sockets[key]
        return True

    def _find_owners(self, traffic: Mapping[int, Traffic]) -> None:
        """Say of each socket whose it is. Only new sockets and new processes make it look."""
        strange = traffic.keys() - self._owners.keys()
        self._owners = {inode: self._owners.get(inode) for inode in traffic}
        for key, seen in self._seen.items():
            for pid in seen.tree if strange else seen.new:
                for inode in _sockets(pid):
                    if inode in self._owners and self._owners[inode] is None:
                        self._owners[inode] = key


def _rates(then: _Totals, now: _Totals, memory: int, net_known: bool) -> NodeMetrics:
    seconds = max(now.at - then.at, _SHORTEST_S)

    def per_second(new: float, old: float) -> float:
        # A child that was not reaped by its parent has taken its share with it.
        return max(new - old, 0) / seconds

    return NodeMetrics(
        cpu=per_second(now.cpu, then.cpu) * 100,
        memory=memory,
        disk_read=per_second(now.read, then.read),
        disk_write=per_second(now.written, then.written),
        net_tx=per_second(now.sent, then.sent),
        net_rx=per_second(now.received, then.received),
        net_known=net_known,
    )


def _tree(pid: int) -> frozenset[int]:
    """A process and its descendants."""
    tree = {pid}
    last = [pid]
    while last and len(tree) < MAX_PROCESSES:
        last = [child for parent in last for child in children(parent) if child not in tree]
        tree.update(last[: MAX_PROCESSES - len(tree)])
    return frozenset(tree)


def _sockets(pid: int) -> set[int]:
    """The inodes of the sockets that a process holds, as far as they may be seen."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found
