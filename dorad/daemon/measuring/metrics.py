"""CPU, memory, disk and network use of nodes, including their child processes.

All rates are differences of the kernel's totals. A process passes its CPU time and disk bytes to
the parent that reaps it, so children that run for less than a second count too. Only a process
whose parent exits first is lost. Memory that processes share counts for each of them.
"""

import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import psutil

from dorad.control.messages import NodeMetrics
from dorad.launch.descendants import children

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x301
_INFO = 2
"""Type of the attribute that holds a `tcp_info`."""
_STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
"""All states of a connection with a descriptor, so without LISTEN and TIME_WAIT."""

_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBBxI48x")
_INODE = struct.Struct("=I")
_INODE_AT = 68
_ATTRIBUTES_AT = 72
_ATTRIBUTE = struct.Struct("=HH")
_BYTES = struct.Struct("=128xQ64xQQ")
"""Start of a `tcp_info` (Linux 4.19 or later): bytes received, sent, retransmitted."""
_DEADLINE_S = 1.0
_BUFFER = 1 << 18


class Traffic(NamedTuple):
    """Payload bytes of one connection so far; retransmitted bytes count once."""

    sent: int
    received: int


def tcp_traffic() -> dict[int, Traffic]:
    """Return the traffic of all TCP connections of this network namespace, by socket inode.

    Raises:
        OSError: the kernel refuses or does not answer.
    """
    traffic: dict[int, Traffic] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(_DEADLINE_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            query = _QUERY.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), _STATES)
            size = _HEADER.size + len(query)
            link.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + query)
            while _parse(link.recv(_BUFFER), traffic):
                pass
    return traffic


def _parse(packet: bytes, totals: dict[int, Traffic]) -> bool:
    """Parse one packet of answers into `totals`; return True if more packets follow."""
    at = 0
    while at + _HEADER.size <= len(packet):
        size, kind, _, _, _ = _HEADER.unpack_from(packet, at)
        if kind == _DONE:
            return False
        if kind == _ERROR:
            (code,) = struct.unpack_from("=i", packet, at + _HEADER.size)
            raise OSError(-code, "the kernel refuses socket diagnostics")
        body = packet[at + _HEADER.size : at + size]
        (inode,) = _INODE.unpack_from(body, _INODE_AT)
        traffic = _traffic(body)
        if inode and traffic is not None:
            totals[inode] = traffic
        at += size + 3 & ~3
    return True


def _traffic(body: bytes) -> Traffic | None:
    at = _ATTRIBUTES_AT
    while at + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == _INFO and size >= _ATTRIBUTE.size + _BYTES.size:
            received, sent, retransmitted = _BYTES.unpack_from(body, at + _ATTRIBUTE.size)
            return Traffic(sent - retransmitted, received)
        at += max(size, _ATTRIBUTE.size) + 3 & ~3
    return None


MAX_PROCESSES = 256
"""Maximum number of processes that are measured for one node."""

_MIN_SECONDS = 0.001

_Key = TypeVar("_Key")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Totals:
    """Resources that a node has used since it started."""

    at: float
    cpu: float = 0.0
    read: int = 0
    written: int = 0
    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class _Measured:
    """One node between two samples."""

    pid: int
    totals: _Totals
    tree: frozenset[int] = frozenset()
    new: frozenset[int] = frozenset()
    """Processes of the tree that the last sample did not have."""
    sockets: dict[int, Traffic] = field(default_factory=dict)
    """By inode."""
    sent: int = 0
    received: int = 0


class NodeMeter(Generic[_Key]):
    """Measures nodes, which the caller names by keys. Call `sample` about once a second.

    It reads files of /proc: call it in a thread, never concurrently.
    """

    def __init__(
        self,
        traffic: Callable[[], dict[int, Traffic]] = tcp_traffic,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_traffic = traffic
        self._clock = clock
        self._nodes: dict[_Key, _Measured] = {}
        self._processes: dict[int, psutil.Process] = {}
        self._owners: dict[int, _Key | None] = {}

    def sample(self, nodes: Mapping[_Key, int]) -> dict[_Key, NodeMetrics]:
        """Return the metrics of each node in `nodes`, a map from key to pid, that still runs.

        Rates cover the time since the last sample, or since its start for a new process. CPU is in
        percent of one core, disk and network in bytes per second.
        """
        metrics: dict[_Key, NodeMetrics] = {}
        before, self._nodes = self._nodes, {}
        totals: dict[_Key, tuple[_Totals, int]] = {}
        for key, pid in nodes.items():
            node = before.get(key)
            if node is None or node.pid != pid:
                started = self._started_at(pid)
                if started is None:
                    continue
                node = _Measured(pid, _Totals(started))
            measured = self._measure(node)
            if measured is not None:
                totals[key] = measured
                self._nodes[key] = node
        known = self._measure_network()
        for key, (now, memory) in totals.items():
            node = self._nodes[key]
            now.sent, now.received = node.sent, node.received
            metrics[key] = _rates(node.totals, now, memory, known)
            node.totals = now
        alive = {pid for node in self._nodes.values() for pid in node.tree}
        self._processes = {pid: p for pid, p in self._processes.items() if pid in alive}
        return metrics

    def _started_at(self, pid: int) -> float | None:
        """Return when the process started, on our clock; None if it has exited."""
        try:
            age = time.time() - psutil.Process(pid).create_time()
        except psutil.Error:
            return None
        return self._clock() - max(age, 0.0)

    def _measure(self, node: _Measured) -> tuple[_Totals, int] | None:
        """Return totals and resident bytes of a node; None if its main process has exited."""
        now, memory = _Totals(self._clock()), 0
        tree = _tree(node.pid)
        for pid in tree:
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                self._processes[pid] = process
                cpu = process.cpu_times()
                memory += process.memory_info().rss
                now.cpu += cpu.user + cpu.system + cpu.children_user + cpu.children_system
                with contextlib.suppress(psutil.AccessDenied):  # of another user
                    disk = process.io_counters()
                    now.read += disk.read_bytes
                    now.written += disk.write_bytes
            except psutil.Error:
                self._processes.pop(pid, None)
                if pid == node.pid:
                    return None
        node.tree, node.new = tree, tree - node.tree
        return now, memory

    def _measure_network(self) -> bool:
        """Add the traffic of all nodes' connections; return False if it cannot be read."""
        try:
            traffic = self._read_traffic()
        except OSError as error:
            _log.debug("traffic of connections cannot be read: %s", error)
            return False
        self._find_owners(traffic)
        sockets: dict[_Key, dict[int, Traffic]] = {key: {} for key in self._nodes}
        for inode, now in traffic.items():
            owner = self._owners[inode]
            if owner is None or owner not in self._nodes:
                continue
            node = self._nodes[owner]
            then = node.sockets.get(inode, Traffic(0, 0))
            node.sent += max(now.sent - then.sent, 0)
            node.received += max(now.received - then.received, 0)
            sockets[owner][inode] = now
        for key, node in self._nodes.items():
            node.sockets = sockets[key]
        return True

    def _find_owners(self, traffic: Mapping[int, Traffic]) -> None:
        """Assign each socket to its node. Read /proc only for new sockets and new processes."""
        unknown = traffic.keys() - self._owners.keys()
        self._owners = {inode: self._owners.get(inode) for inode in traffic}
        for key, node in self._nodes.items():
            for pid in node.tree if unknown else node.new:
                for inode in _sockets(pid):
                    if inode in self._owners and self._owners[inode] is None:
                        self._owners[inode] = key


def _rates(then: _Totals, now: _Totals, memory: int, net_known: bool) -> NodeMetrics:
    seconds = max(now.at - then.at, _MIN_SECONDS)

    def per_second(new: float, old: float) -> float:
        # Totals fall when a child exits that its parent does not reap.
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
    """Return the pids of a process and its descendants."""
    tree = {pid}
    last = [pid]
    while last and len(tree) < MAX_PROCESSES:
        last = [child for parent in last for child in children(parent) if child not in tree]
        tree.update(last[: MAX_PROCESSES - len(tree)])
    return frozenset(tree)


def _sockets(pid: int) -> set[int]:
    """Return the inodes of the sockets of a process, as far as permitted."""
    inodes: set[int] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    inodes.add(int(target[8:-1]))
    return inodes
