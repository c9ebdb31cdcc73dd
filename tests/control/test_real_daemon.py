"""Hostile and unlucky clients of a real dorad do not disturb a running dataflow."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import unix_connect

from dorad.control import messages as m
from dorad.control.client import Client, ControlError
from tests.harness.daemon import Daemon, daemon
from tests.harness.flows import counting, seen
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.long]

HZ = 100


@pytest.fixture(scope="module")
def dorad() -> Iterator[Daemon]:
    with daemon() as found:
        yield found


@pytest.fixture
def flow(dorad: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A dataflow that counts; fail if it has stopped or lost a number."""
    with dorad.client() as client:
        started = client.start(counting(tmp_path, HZ))
        wait_until(lambda: seen(tmp_path))
        yield tmp_path
        before = len(seen(tmp_path))
        wait_until(lambda: len(seen(tmp_path)) > before, why="the dataflow stands still")
        assert client.stop(started.uuid).status == "finished"
    numbers = seen(tmp_path)
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    assert "Traceback" not in dorad.log


def connect(path: Path, stack: ExitStack) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.settimeout(10)
    sock.connect(str(path))
    return sock


def noise(path: Path, stack: ExitStack) -> None:
    """Send random bytes, plain HTTP, half a handshake, and nothing."""
    for words in (os.urandom(5000), b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nUpgr", b""):
        connect(path, stack).sendall(words)


def nonsense(path: Path, stack: ExitStack) -> None:
    """Send invalid frames, invalid requests, and a frame that is too large."""
    for frame in ("{", "[" * 100_000, b"\x00", '{"id": 1, "method": "no.such"}', "x" * (5 << 20)):
        connection = stack.enter_context(unix_connect(str(path), compression=None))
        try:
            connection.send('{"hello": "nonsense"}')
            connection.recv(10)
            connection.send(frame)
            assert "error" in connection.recv(10)
        except WebSocketException:
            assert len(frame) > 4 << 20, "only too large a frame ends the connection"


def crowd(path: Path, stack: ExitStack) -> None:
    """Open 500 connections at once that send nothing."""
    for _ in range(500):
        connect(path, stack)


def slow_readers(path: Path, stack: ExitStack) -> None:
    """Subscribe without ever reading."""
    for method in ("topic.subscribe", "topic.watch", "watch", "logs.read"):
        connection = stack.enter_context(
            unix_connect(str(path), compression=None, max_queue=1, close_timeout=0.1)
        )
        connection.send('{"hello": "slow"}')
        for number in range(1, 9):
            params = '{"follow": true}' if method == "logs.read" else "{}"
            connection.send(f'{{"id": {number}, "method": "{method}", "params": {params}}}')


@pytest.mark.parametrize("attack", [noise, nonsense, crowd, slow_readers])
def test_hostile_clients_do_not_disturb_a_dataflow(
    dorad: Daemon, flow: Path, attack: Callable[[Path, ExitStack], None]
) -> None:
    with ExitStack() as stack:
        attack(dorad.paths.control, stack)
        before = len(seen(flow))
        wait_until(lambda: len(seen(flow)) > before + HZ)


def test_descriptors_of_hostile_clients_are_closed(dorad: Daemon, flow: Path) -> None:
    process = psutil.Process(dorad.pid)
    before = process.num_fds()
    for attack in (noise, crowd, slow_readers):
        with ExitStack() as stack:
            attack(dorad.paths.control, stack)
    wait_until(lambda: process.num_fds() <= before + 2, why="descriptors are left")


def test_a_client_that_vanishes_in_mid_stream_leaves_no_descriptor(
    dorad: Daemon, flow: Path
) -> None:
    process = psutil.Process(dorad.pid)
    before = process.num_fds()
    for _ in range(2):
        with dorad.client() as client:
            next(client.echo(["source/number"]))
            next(client.watch_topics())
            # No goodbye, as when the process is killed.
            client._connection._transport._sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: process.num_fds() <= before + 2, why="descriptors are left")
    with dorad.client() as client:
        (detail,) = [node for node in client.nodes() if node.node == "source"]
        assert detail.status == "running"


def test_a_sigstopped_daemon_is_reported_in_time(dorad: Daemon, flow: Path) -> None:
    os.kill(dorad.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(ControlError, match=f"process {dorad.pid}") as caught:
            Client(dorad.paths.control)
        waited = time.monotonic() - begun
        before = len(seen(flow))
        wait_until(lambda: len(seen(flow)) > before + HZ // 2)
    finally:
        os.kill(dorad.pid, signal.SIGCONT)
    assert caught.value.code == "deadline"
    assert waited >= 1.5, "a busy daemon is not hung"
    assert "dora up" in str(caught.value.hint)


def test_a_dataflow_of_too_many_nodes_is_refused_at_once(dorad: Daemon, flow: Path) -> None:
    nodes = [{"id": f"n{number}", "path": "sink.py"} for number in range(20_000)]
    start = m.Start(descriptor={"nodes": nodes}, path=str(flow / "dataflow.yml"))
    with dorad.client() as client:
        with pytest.raises(ControlError, match="20000 nodes are too many"):
            client.call(m.DATAFLOW_START, start)
        assert client.status().dataflows == 1


def test_a_measurement_of_one_dataflow_ends_with_it(dorad: Daemon, tmp_path: Path) -> None:
    with dorad.client() as client, dorad.client() as other:
        begun = client.start(counting(tmp_path, HZ), name="pick")
        top = client.watch_top(dataflow="pick", interval=0.2)
        assert next(top).nodes
        # A restart has another UUID: a client that watches asks for the name again, and finds it.
        again = other.restart(begun.uuid).new
        with pytest.raises(ControlError, match=f"dataflow {begun.uuid} has ended"):
            for _ in range(100):
                next(top)
        with dorad.client() as third:
            nodes = next(third.watch_top(dataflow="pick", interval=0.2)).top.nodes
        assert {node.dataflow for node in nodes} == {again}
        other.stop(again)


def test_a_measurement_of_another_robot_is_refused(dorad: Daemon) -> None:
    with dorad.client() as client:
        assert next(client.watch_top(machine=socket.gethostname())).nodes == 0
        with pytest.raises(ControlError, match="no robot is called 'arm9'; this one is `"):
            next(client.watch_top(machine="arm9"))
