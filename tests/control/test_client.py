"""The client for programs without an event loop, against a real server in another thread."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dorad.control import codec, connecting, pending
from dorad.control import messages as m
from dorad.control.arrays import to_ipc
from dorad.control.client import Client, ControlError, NoDaemonError, Stream
from dorad.control.limits import Limits
from dorad.control.server import Call
from dorad.control.target import NEAR
from dorad.dataflow.errors import DataflowError

from .serving import DEADLINE_S, VERSION, Endless, event_number, serving_beside, status

HANDLERS = {"daemon.status": status}


def test_a_call_returns_its_result(tmp_path: Path) -> None:
    with serving_beside(tmp_path, HANDLERS) as path, Client(path, name="me") as client:
        assert client.daemon == f"dorad {VERSION}"
        assert client.server.path == path
        found = client.status()
    assert (found.version, found.pid, found.state) == (VERSION, os.getpid(), "me")


def test_the_error_of_the_daemon_is_raised(tmp_path: Path) -> None:
    async def info(call: Call, params: m.Ref) -> m.DataflowDetail:
        raise ControlError("not-found", f"no dataflow {params.dataflow}", "look at `dora list`")

    with serving_beside(tmp_path, {"dataflow.info": info}) as path, Client(path) as client:
        with pytest.raises(ControlError) as caught:
            client.info("x")
    assert (caught.value.code, caught.value.hint) == ("not-found", "look at `dora list`")


def test_an_error_with_a_code_of_a_newer_daemon_counts_as_refused() -> None:
    frame = '{"id": 1, "error": {"code": "out-of-power", "message": "charge the robot"}}'
    arrived = codec.decode(frame, codec.Arrived, "the answer")
    assert arrived.error is not None
    error = ControlError.of(arrived.error)
    assert (error.code, error.message) == ("refused", "charge the robot")


def test_start_loads_the_file_here(tmp_path: Path) -> None:
    async def start(call: Call, params: m.Start) -> m.Started:
        assert params.path == str(tmp_path / "flow.yml")
        assert params.descriptor["nodes"][0]["env"] == {"A": os.environ["HOME"]}
        assert (params.name, params.env, params.uv) == ("demo", {"K": "V"}, True)
        return m.Started(uuid="u", name=params.name)

    file = tmp_path / "flow.yml"
    file.write_text("nodes:\n- id: a\n  path: a.py\n  env: {A: $HOME}\n")
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("nodes:\n- id: a\n  paht: a.py\n")
    with serving_beside(tmp_path, {"dataflow.start": start}) as path, Client(path) as client:
        started = client.start(file, name="demo", env={"K": "V"}, uv=True)
        with pytest.raises(DataflowError, match=r"wrong\.yml:3:3"):
            client.start(str(wrong))
    assert started == m.Started(uuid="u", name="demo")


def test_a_stream_ends_with_its_block(tmp_path: Path) -> None:
    endless = Endless()
    with serving_beside(tmp_path, endless.handlers) as path, Client(path) as client:
        with client.watch() as events:
            assert next(events) == event_number(0)
        client.status()  # answered after the cancellation was taken
        assert endless.running == 0
        assert list(events) == []


def test_a_stream_may_be_waited_for(tmp_path: Path) -> None:
    endless = Endless()
    with serving_beside(tmp_path, endless.handlers) as path, Client(path) as client:
        with client.watch() as events:
            next(events)
            with pytest.raises(TimeoutError):
                events.next(timeout=0.01)
            client.status()
            with pytest.raises(TimeoutError):
                events.next(timeout=0)


def test_echo_gives_arrays(tmp_path: Path) -> None:
    async def subscribe(call: Call, params: m.TopicSubscribe) -> AsyncIterator[Any]:
        for number, data in enumerate([to_ipc(pa.array([[1, 2], None])), b""], start=1):
            header = m.TopicHeader(
                stream=call.id, topic=params.topics[0], sequence=number, dropped=0, metadata={}
            )
            yield header, data

    with serving_beside(tmp_path, {"topic.subscribe": subscribe}) as path, Client(path) as client:
        found = list(client.echo(["a/b"]))
    assert [header.sequence for header, _ in found] == [1, 2]
    assert found[0][1] is not None
    assert found[0][1].to_pylist() == [[1, 2], None]
    assert found[1][1] is None


def test_threads_share_a_client(tmp_path: Path) -> None:
    endless = Endless()
    seen = []
    with serving_beside(tmp_path, endless.handlers) as path, Client(path) as client:

        def follow() -> None:
            with client.watch() as events:
                seen.extend([next(events)])

        def ask() -> None:
            seen.extend([client.status() for _ in range(20)])

        threads = [threading.Thread(target=work) for work in (follow, ask, follow, ask)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert len(seen) == 42


def test_a_stream_that_is_not_read_holds_up_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_WAITING", 10)
    endless = Endless()
    with serving_beside(tmp_path, endless.handlers) as path, Client(path) as client:
        flood = client.watch("flood")
        deadline = time.monotonic() + DEADLINE_S
        while endless.running or not endless.sent:
            assert client.status().version == VERSION
            assert time.monotonic() < deadline
        with pytest.raises(ControlError) as caught:
            list(flood)
    assert caught.value.code == "too-slow"


def test_without_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoDaemonError, match="no dorad is running"):
        Client(tmp_path / "none")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("DORA_SOCKET", str(tmp_path / "dead"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(NoDaemonError) as caught:
        Client()
    assert caught.value.hint == "start one with `dora up`"


def test_where_the_package_is_installed_the_service_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DORA_SOCKET", "DORA_COORDINATOR_ADDR", "DORA_COORDINATOR_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("dorad.control.settings.OF_MACHINE", tmp_path / "config.yml")
    monkeypatch.setattr("dorad.shm.rendezvous.SYSTEM_DIR", tmp_path / "machine")
    unit = tmp_path / "dorad.service"
    monkeypatch.setattr("dorad.control.connecting.SERVICE", unit)
    for hint in ("start one with `dora up`", "`sudo systemctl enable --now dorad` starts"):
        with pytest.raises(NoDaemonError) as caught:
            Client()
        assert caught.value.hint is not None
        assert caught.value.hint.startswith(hint)
        unit.touch()


def test_the_usual_places_are_tried_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DORA_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "machine").mkdir()
    monkeypatch.setattr("dorad.shm.rendezvous.SYSTEM_DIR", tmp_path / "machine")
    with serving_beside(tmp_path / "machine", HANDLERS) as path:
        with Client() as client:
            assert client.server.path == path


@pytest.mark.parametrize("backlog", [0, 5])
def test_a_daemon_that_hangs(tmp_path: Path, backlog: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without room in its backlog."""
    monkeypatch.setattr(connecting, "NEAR", NEAR._replace(connect=0.2))
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as other:
        hung.bind(str(tmp_path / "s"))
        hung.listen(backlog)
        other.connect(str(tmp_path / "s"))
        with pytest.raises(ControlError, match="has not answered") as caught:
            Client(tmp_path / "s")
    assert caught.value.code == "deadline"
    assert "dora up" in str(caught.value.hint)


def test_the_deadline_to_connect_leaves_room_within_three_seconds() -> None:
    assert NEAR.connect + connecting.OPTIONS["close_timeout"] < 3


def test_a_server_that_is_not_dorad(tmp_path: Path) -> None:
    with _answering(tmp_path / "s", b"SSH-2.0-OpenSSH\r\n"):
        with pytest.raises(ControlError, match="does not answer like dorad"):
            Client(tmp_path / "s")


@contextmanager
def _answering(path: Path, words: bytes) -> Iterator[None]:
    """A listener that sends a few bytes to its client and ends."""

    def answer() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1000)
            client.sendall(words)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def test_a_call_that_is_not_answered_in_time_is_ended(tmp_path: Path) -> None:
    endless = Endless()
    with serving_beside(tmp_path, endless.handlers) as path:
        with Client(path, timeout=0.5) as client:
            with pytest.raises(ControlError, match=r"did not answer .* within 0\.5 s") as caught:
                client.wait("x", timeout=0)
            client.status()
            assert endless.running == 0
    assert caught.value.code == "deadline"


def test_the_end_of_the_daemon_ends_waiting_calls(tmp_path: Path) -> None:
    endless = Endless()
    errors = []
    with serving_beside(tmp_path, endless.handlers) as path:
        client = Client(path)
        events = client.watch()
        next(events)

        def follow() -> None:
            try:
                next(events)
            except ControlError as error:
                errors.append(error)

        thread = threading.Thread(target=follow)
        thread.start()
    thread.join(DEADLINE_S)
    assert [error.code for error in errors] == ["unavailable"]
    with pytest.raises(ControlError, match="dorad has been stopped"):
        client.status()
    client.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.wait("x"),
        lambda client: client.list(),
        lambda client: next(client.watch()),
        lambda client: _poll_forever(client.watch()),
    ],
    ids=["a call without a deadline", "a call", "a stream", "a stream with timeouts"],
)
def test_a_silent_daemon_is_detected_within_3_s(
    tmp_path: Path, ask: Callable[[Client], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NEAR.silence + NEAR.answer < 3
    monkeypatch.setattr(connecting, "NEAR", NEAR._replace(silence=0.3, answer=0.7))
    with _silent_after_welcome(tmp_path / "s"), Client(tmp_path / "s") as client:
        begun = time.monotonic()
        with pytest.raises(ControlError, match="has not answered") as caught:
            ask(client)
        assert time.monotonic() - begun < NEAR.call / 2
    assert caught.value.code == "deadline"


def _poll_forever(stream: Stream[m.Event]) -> None:
    while True:
        with suppress(TimeoutError):
            stream.next(timeout=0.3)


SILENT = """
import os, signal, sys, threading
from websockets.sync.server import unix_serve

def handle(connection):
    connection.recv()
    connection.send('{"welcome": "dorad", "protocol": 1}')
    connection.recv()
    os.kill(os.getpid(), signal.SIGSTOP)
    threading.Event().wait()  # this thread may be the last to stop

with unix_serve(handle, sys.argv[1], compression=None) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


@contextmanager
def _silent_after_welcome(path: Path) -> Iterator[None]:
    """A process that greets its client, and is stopped by the first request."""
    with _program(SILENT, path):
        yield


@contextmanager
def _program(code: str, path: Path) -> Iterator[None]:
    """A process that runs `code`, a server at `path`."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


BUSY = """
import json, sys
from websockets.sync.server import unix_serve

def compute():
    sum(range(10_000_000))  # without releasing the GIL, so that no other thread answers pings

def handle(connection):
    connection.recv()
    compute()
    connection.send('{"welcome": "dorad", "protocol": 1}')
    request = json.loads(connection.recv())
    compute()
    error = {"code": "busy", "message": "done at last"}
    connection.send(json.dumps({"id": request["id"], "error": error}))

with unix_serve(handle, sys.argv[1], compression=None) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


def test_a_busy_daemon_is_waited_for_longer_than_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "NEAR", NEAR._replace(connect=0.1, silence=0.02, answer=0.05))
    with _program(BUSY, tmp_path / "s"):
        with Client(tmp_path / "s") as client:
            with pytest.raises(ControlError, match="done at last"):
                client.list()
        monkeypatch.setattr(connecting, "MAX_BUSY_S", 0.1)
        with pytest.raises(ControlError, match="has not answered"):
            Client(tmp_path / "s")


def test_a_slow_call_does_not_count_as_a_hung_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "NEAR", NEAR._replace(silence=0.05, answer=0.7))
    endless = Endless()
    with serving_beside(tmp_path, endless.handlers) as path, Client(path) as client:
        with client.watch() as events:
            next(events)
            with pytest.raises(TimeoutError):
                events.next(timeout=1.0)


def test_closing_does_not_wait_for_unread_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chatter(call: Call, params: m.Watch) -> AsyncIterator[m.Event]:
        while True:
            yield event_number(0)

    monkeypatch.setitem(connecting.OPTIONS, "close_timeout", DEADLINE_S)
    with serving_beside(tmp_path, {"watch": chatter}) as path:
        client = Client(path)
        events = client.watch()
        next(events)
        begun = time.monotonic()
        client.close()
        assert time.monotonic() - begun < DEADLINE_S / 2


def test_more_clients_than_allowed(tmp_path: Path) -> None:
    with serving_beside(tmp_path, HANDLERS, Limits(connections=1)) as path, Client(path):
        with pytest.raises(ControlError, match="has 1 clients") as caught:
            Client(path)
    assert caught.value.code == "busy"


@pytest.fixture
def imported() -> list[str]:
    code = "import sys, dorad.control.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("module", ["asyncio", "pyarrow", "numpy", "yaml", "dorad.dataflow.load"])
def test_the_client_imports_nothing_heavy(imported: list[str], module: str) -> None:
    assert module not in imported
