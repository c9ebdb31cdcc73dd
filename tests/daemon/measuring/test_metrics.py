"""Resources of nodes, including short-lived children, disk and connections."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dorad.control.messages import NodeMetrics
from dorad.daemon.measuring.metrics import NodeMeter, Traffic, tcp_traffic
from tests.harness.waiting import wait_until

_NODE = """
import os, socket, subprocess, sys, time
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "burn":
        while time.process_time() < float(rest):
            pass
    elif word == "child":
        code = "import time\\nwhile time.process_time() < %s: pass" % rest
        subprocess.run([sys.executable, "-S", "-c", code], check=True)
    elif word == "keep":
        kept = subprocess.Popen([sys.executable, "-c", "import sys; x = b'x' * (64 << 20); "
            "print('', end='', flush=True); sys.stdin.read()"], stdin=subprocess.PIPE)
        while b"Rss" not in open(f"/proc/{kept.pid}/smaps_rollup", "rb").read():
            pass
    elif word == "write":
        with open(rest, "wb") as file:
            file.write(os.urandom(4 << 20))
            os.fsync(file.fileno())
    elif word == "connect":
        link = socket.create_connection(("127.0.0.1", int(rest)))
    elif word == "send":
        link.sendall(bytes(int(rest)))
    elif word == "receive":
        left = int(rest)
        while left:
            left -= len(link.recv(left))
    print("done", flush=True)
"""


class _Node:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def do(self, *order: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*order, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def node() -> Iterator[_Node]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _NODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        found = _Node(process)
        found.do("hello")
        yield found
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children():
                child.kill()
        process.kill()


class _Sampler:
    """Takes samples of one node a fake second apart, so that rates equal amounts."""

    def __init__(self, node: _Node, **options: Any) -> None:
        self._now = 1000.0
        self._meter: NodeMeter[str] = NodeMeter(clock=lambda: self._now, **options)
        self._pid = node.pid
        self.sample()

    def sample(self) -> NodeMetrics:
        (metrics,) = self._meter.sample({"n": self._pid}).values()
        self._now += 1.0
        return metrics


def test_cpu_of_the_node_itself(node: _Node) -> None:
    sampler = _Sampler(node)
    node.do("burn", 0.5)
    metrics = sampler.sample()
    assert metrics.cpu / 100 == pytest.approx(0.45, abs=0.12)


def test_cpu_of_a_child_that_ran_between_two_samples(node: _Node) -> None:
    sampler = _Sampler(node)
    node.do("child", 0.5)
    metrics = sampler.sample()
    assert 0.45 < metrics.cpu / 100 < 1.0
    metrics = sampler.sample()
    assert metrics.cpu / 100 < 0.1


def test_the_first_sample_counts_from_the_start_of_the_process(node: _Node) -> None:
    node.do("burn", 0.5)
    metrics = NodeMeter[str]().sample({"n": node.pid})["n"]
    age = time.time() - psutil.Process(node.pid).create_time()
    assert metrics.cpu / 100 * age == pytest.approx(0.5, abs=0.15)


def test_memory_includes_children(node: _Node) -> None:
    sampler = _Sampler(node)
    alone = sampler.sample()
    assert alone.memory == pytest.approx(psutil.Process(node.pid).memory_info().rss, rel=0.1)
    node.do("keep")
    wait_until(lambda: sampler.sample().memory, lambda now: now >= alone.memory + (60 << 20))


def test_disk_bytes_are_the_kernel_s(node: _Node, tmp_path: Path) -> None:
    process = psutil.Process(node.pid)
    before = process.io_counters().write_bytes
    sampler = _Sampler(node)
    node.do("write", tmp_path / "file")
    metrics = sampler.sample()
    written = process.io_counters().write_bytes - before
    assert metrics.disk_write == pytest.approx(written, rel=0.2, abs=1000)


@contextlib.contextmanager
def _connected(node: _Node) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        node.do("connect", server.getsockname()[1])
        link, _ = server.accept()
        with link:
            yield link


def _receive(link: socket.socket, size: int) -> None:
    while size:
        size -= len(link.recv(size))


def test_bytes_over_tcp(node: _Node) -> None:
    sampler = _Sampler(node)
    with _connected(node) as link:
        node.do("send", 100_000)
        _receive(link, 100_000)
        link.sendall(bytes(50_000))
        node.do("receive", 50_000)
        metrics = sampler.sample()
        assert metrics.net_known
        assert metrics.net_tx == 100_000
        assert metrics.net_rx == 50_000
        node.do("send", 10_000)
        _receive(link, 10_000)
        metrics = sampler.sample()
        assert metrics.net_tx == 10_000
        assert metrics.net_rx == 0


def test_a_connection_belongs_to_one_node_only(node: _Node) -> None:
    meter: NodeMeter[str] = NodeMeter()
    with _connected(node) as link:
        node.do("send", 1000)
        _receive(link, 1000)
        figures = meter.sample({"n": node.pid, "test": os.getpid()})
        assert figures["n"].net_tx > 0
        assert figures["n"].net_rx == 0
        assert figures["test"].net_rx > 0


def test_without_socket_diagnostics_the_network_is_unknown(node: _Node) -> None:
    def refuse() -> dict[int, Traffic]:
        raise PermissionError

    metrics = _Sampler(node, traffic=refuse).sample()
    assert not metrics.net_known
    assert metrics.memory > 0


def test_an_exited_node_has_no_figures(node: _Node) -> None:
    meter: NodeMeter[str] = NodeMeter()
    assert list(meter.sample({"n": node.pid, "m": os.getpid()})) == ["n", "m"]
    node.process.kill()
    node.process.wait()
    assert list(meter.sample({"n": node.pid, "m": os.getpid()})) == ["m"]


def test_a_restarted_node_starts_afresh(node: _Node) -> None:
    meter: NodeMeter[str] = NodeMeter()
    meter.sample({"n": os.getpid()})
    metrics = meter.sample({"n": node.pid})["n"]
    assert metrics.cpu >= 0
    assert metrics.memory == pytest.approx(psutil.Process(node.pid).memory_info().rss, rel=0.1)


def test_traffic_is_listed_by_inode() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other, _ = server.accept()
        with other:
            one.sendall(bytes(70_000))
            _receive(other, 70_000)
            traffic = tcp_traffic()
            assert traffic[os.fstat(other.fileno()).st_ino].received == 70_000
            assert os.fstat(server.fileno()).st_ino not in traffic


def test_traffic_over_ipv6_too() -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        with socket.create_connection(server.getsockname()[:2]) as one:
            assert os.fstat(one.fileno()).st_ino in tcp_traffic()
            server.accept()[0].close()
