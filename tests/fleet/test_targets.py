"""Both clients against servers over TCP and TLS, and against a robot that has connected itself."""

import asyncio
import os
import socket
import threading
from contextlib import asynccontextmanager, contextmanager, suppress

import pyarrow as pa
import pytest
from websockets.asyncio.client import connect as dial
from websockets.asyncio.server import serve

from dorad.control import connecting
from dorad.control import messages as m
from dorad.control.arrays import to_ipc
from dorad.control.asyncclient import AsyncClient
from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REPLY, Limits
from dorad.control.messages.agent import (
    AGENT_METHODS,
    AGENT_RENEW,
    AGENT_WATCH,
    AgentReport,
    AgentWatch,
)
from dorad.control.peer import Peer
from dorad.control.session import ClientSession
from dorad.control.target import FAR, Accepted, Tcp, TlsFiles, is_here
from dorad.control.tls import Identity, server_context
from dorad.control.transport import SocketTransport
from dorad.control.websocket import WebSocket
from dorafleet.ca.authority import open_authority
from tests.harness.waiting import DEADLINE_S

TOKEN = "7" * 64
MIB = 1 << 20


class Server:
    """A server of the control API at a port of loopback, in its own thread."""

    def __init__(self, handlers, tls=None):
        self.authorizations = []
        """What clients have sent before they were admitted."""
        self.certificates = []
        self._handlers = handlers
        self._tls = tls
        self.port = 0

    @contextmanager
    def running(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(DEADLINE_S)
        try:
            yield self
        finally:
            self.stop()

    def stop(self):
        """End, and wait until all connections are closed."""
        self.end()
        self._thread.join(DEADLINE_S)

    def end(self):
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._end.set)

    async def _serve(self, ready):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await serve(
            self._handle,
            "127.0.0.1",
            0,
            ssl=self._tls,
            process_request=self._admit,
            max_size=MAX_REPLY,
            compression=None,
            ping_interval=None,
            close_timeout=0.3,
        )
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._end.wait()

    def _admit(self, connection, request):
        self.authorizations.append(request.headers.get("Authorization"))
        found = connection.transport.get_extra_info("ssl_object")
        self.certificates.append(None if found is None else found.getpeercert())

    async def _handle(self, connection):
        session = ClientSession(
            connection, Peer(0, 0, 0), self._handlers, m.METHODS, "dorafleet 1", Limits()
        )
        await session.run()


def handlers():
    """Methods with large requests, large results, and a stream without end."""

    async def wait(call, params):
        return m.DataflowState(uuid=params.dataflow, name=None, status="finished")

    async def subscribe(call, params):
        size = int(params.topics[0]) if params.topics else 8
        payload = to_ipc(pa.array(bytes(size)[:size] and [b"x" * size]))
        sequence = 0
        while True:
            yield (
                m.TopicHeader(
                    stream=call.id, topic="a/b", sequence=sequence, dropped=0, metadata={}
                ),
                payload,
            )
            sequence += 1

    return {"dataflow.wait": wait, "topic.subscribe": subscribe}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return open_authority(tmp_path_factory.mktemp("fleet") / "ca")


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


def files_of(authority, folder, identity):
    """Write a certificate with its key and the authority; return their paths."""
    folder.mkdir()
    pair = authority.issue_pair(identity)
    for name, text in (("c", pair.issued.chain), ("k", pair.key), ("ca", authority.certificate)):
        (folder / name).write_text(text)
    (folder / "k").chmod(0o600)
    return folder / "ca", folder / "c", folder / "k"


def context_of(authority, folder, identity):
    ca, certificate, key = files_of(authority, folder, identity)
    return server_context(certificate, key, ca)


@pytest.fixture(params=["plain", "token over TLS", "certificate"])
def target(request, tmp_path, authority, token):
    """A running server, and where it is."""
    if request.param == "plain":
        with Server(handlers()).running() as server:
            yield server, Tcp("127.0.0.1", server.port, token)
        return
    context = context_of(authority, tmp_path / "server", Identity("coordinator", "fleet"))
    ca, certificate, key = files_of(
        authority, tmp_path / "me", Identity("operator", "ann", "viewer")
    )
    with Server(handlers(), context).running() as server:
        if request.param == "certificate":
            yield server, Tcp("127.0.0.1", server.port, None, TlsFiles(ca, certificate, key))
        else:
            yield server, Tcp("127.0.0.1", server.port, token, TlsFiles(ca))


def test_a_client_sends_what_it_has(target):
    server, place = target
    with Client(place) as client:
        assert client.daemon == "dorafleet 1"
        assert str(place.port) in client.server.name
        assert client.server.path is None
    assert server.authorizations == [None if place.token is None else f"Bearer {TOKEN}"]
    shown = place.tls is not None and place.tls.certificate is not None
    assert [bool(each) for each in server.certificates] == [shown]


async def test_an_asyncio_client_sends_what_it_has(target):
    server, place = target
    async with AsyncClient(place) as client:
        assert client.daemon == "dorafleet 1"
        assert (await client.wait("x")).uuid == "x"
    assert server.authorizations == [None if place.token is None else f"Bearer {TOKEN}"]
    shown = place.tls is not None and place.tls.certificate is not None
    assert [bool(each) for each in server.certificates] == [shown]


@pytest.mark.parametrize("size", [1, 125, 126, 65536, 3 * MIB])
def test_frames_of_every_size_pass_both_ways(target, size):
    _, place = target
    text = "".join(chr(ord("a") + number % 26) for number in range(size))
    with Client(place) as client:
        assert client.wait(text).uuid == text


def test_threads_send_while_another_one_receives(target):
    """Python's own TLS sockets break here."""
    _, place = target
    with Client(place) as client, client.echo([str(100_000)]) as messages:
        errors = []

        def work(number):
            try:
                for turn in range(30):
                    text = f"{number}-{turn}-" + "x" * (5000 * number)
                    assert client.wait(text).uuid == text
            except (AssertionError, ControlError) as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        sequences = []
        while any(thread.is_alive() for thread in threads) or len(sequences) < 50:
            header, array = messages.next(DEADLINE_S)
            assert array is not None
            assert len(array[0].as_py()) == 100_000
            sequences.append(header.sequence)
        assert errors == []
        assert sequences == [*range(len(sequences))]


def test_frames_are_masked_over_a_network():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for size in (0, 5, 70_000):
            data = os.urandom(size)
            connection = WebSocket(SocketTransport(ours), max_size=MIB, masked=True)
            sender = threading.Thread(target=connection.send, args=(data,), kwargs={"text": False})
            sender.start()
            head = theirs.recv(2, socket.MSG_WAITALL)
            extra = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
            length = int.from_bytes(theirs.recv(extra, socket.MSG_WAITALL), "big") if extra else 0
            mask = theirs.recv(4, socket.MSG_WAITALL)
            body = theirs.recv(size, socket.MSG_WAITALL) if size else b""
            sender.join(DEADLINE_S)
            assert head[1] & 0x80
            assert length in (0, size)
            assert bytes(byte ^ mask[place % 4] for place, byte in enumerate(body)) == data


async def both(place):
    """Return the errors of both clients that connect."""
    errors = []
    with pytest.raises(ControlError) as caught:
        (await asyncio.to_thread(Client, place)).close()
    errors.append(caught.value)
    with pytest.raises(ControlError) as caught:
        await AsyncClient(place).open()
    errors.append(caught.value)
    return errors


async def test_a_robot_that_poses_as_the_coordinator_gets_no_token(tmp_path, authority, token):
    context = context_of(authority, tmp_path / "server", Identity("robot", "arm1"))
    ca, _, _ = files_of(authority, tmp_path / "me", Identity("operator", "ann", "viewer"))
    with Server(handlers(), context).running() as server:
        for error in await both(Tcp("127.0.0.1", server.port, token, TlsFiles(ca))):
            assert error.code == "refused"
            assert "the certificate of dorad:robot/arm1" in error.message
        # In a thread: the client in this one has to close its end.
        await asyncio.to_thread(server.stop)
    assert server.authorizations == []


async def test_the_coordinator_of_another_fleet_gets_no_token(tmp_path, authority, token):
    other = open_authority(tmp_path / "other")
    context = context_of(other, tmp_path / "server", Identity("coordinator", "fleet"))
    ca, _, _ = files_of(authority, tmp_path / "me", Identity("operator", "ann", "viewer"))
    with Server(handlers(), context).running() as server:
        for error in await both(Tcp("127.0.0.1", server.port, token, TlsFiles(ca))):
            assert error.code == "refused"
            assert f"the coordinator at 127.0.0.1 port {server.port} is not of this fleet" in str(
                error
            )
            assert "`ca`" in str(error.hint)
    assert server.authorizations == []


async def test_a_certificate_of_another_fleet_is_refused(tmp_path, authority):
    other = open_authority(tmp_path / "other")
    context = context_of(authority, tmp_path / "server", Identity("coordinator", "fleet"))
    _, certificate, key = files_of(other, tmp_path / "me", Identity("operator", "ann", "viewer"))
    tls = TlsFiles(tmp_path / "server" / "ca", certificate, key)
    with Server(handlers(), context).running() as server:
        for error in await both(Tcp("127.0.0.1", server.port, None, tls)):
            assert error.code == "refused"
            assert f"TLS with the coordinator at 127.0.0.1 port {server.port} failed" in str(error)
            assert "your certificate" in str(error.hint)
    assert server.authorizations == []


async def test_a_key_that_others_may_read_is_refused_with_the_command_that_mends_it(
    tmp_path, authority
):
    context = context_of(authority, tmp_path / "server", Identity("coordinator", "fleet"))
    tls = TlsFiles(*files_of(authority, tmp_path / "me", Identity("operator", "ann", "viewer")))
    tls.key.chmod(0o644)
    with Server(handlers(), context).running() as server:
        for error in await both(Tcp("127.0.0.1", server.port, None, tls)):
            assert error.code == "refused"
            assert f"the private key in {tls.key}: its mode is 0644" in str(error)
            assert f"`chmod 600 {tls.key}`" in str(error.hint)
    assert server.authorizations == []


async def test_a_coordinator_without_tls_gets_no_token(tmp_path, authority, token):
    ca, _, _ = files_of(authority, tmp_path / "me", Identity("operator", "ann", "viewer"))
    with Server(handlers()).running() as server:
        for error in await both(Tcp("127.0.0.1", server.port, token, TlsFiles(ca))):
            assert f"TLS with the coordinator at 127.0.0.1 port {server.port} failed" in str(error)
            assert "speaks TLS at this port" in str(error.hint)
    assert server.authorizations == []


async def test_a_coordinator_that_hangs_is_named(monkeypatch, token):
    monkeypatch.setattr(connecting, "FAR", FAR._replace(connect=0.2))
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        for error in await both(Tcp("127.0.0.1", port, token)):
            assert error.code == "deadline"
            assert f"the coordinator at 127.0.0.1 port {port} has not answered" in error.message
            assert "dora up" not in str(error.hint)


async def test_the_coordinator_that_leads_is_found_beside_others(monkeypatch, token):
    """One that is off, one that waits to lead, and one that leads."""
    monkeypatch.setattr(connecting, "FAR", FAR._replace(connect=0.3))
    with socket.socket() as waiting, Server(handlers()).running() as server:
        waiting.bind(("127.0.0.1", 0))
        places = (
            Tcp("127.255.255.254", 1, token),
            Tcp("127.0.0.1", waiting.getsockname()[1], token),
            Tcp("127.0.0.1", server.port, token),
        )
        with Client(places) as client:
            assert client.wait("x").uuid == "x"
        async with AsyncClient(places) as other:
            assert str(server.port) in other.server.name
        with pytest.raises(ControlError, match="no coordinator is running at") as caught:
            Client(places[:2])
        assert caught.value.code == "unavailable"


@pytest.mark.parametrize("host", ["fleet..local", "b\udce4r", "x" * 70])
def test_a_name_that_no_host_can_have_is_reported(host, tmp_path):
    assert not is_here(host)
    tls = TlsFiles(tmp_path / "ca", None, None)
    with pytest.raises(ControlError, match="cannot be reached: that is not a host's name"):
        Client(Tcp(host, 6013, None, tls))


async def test_what_is_no_coordinator_is_named(token):
    def answer(listener):
        for _ in range(2):
            client, _ = listener.accept()
            with client, suppress(OSError):
                client.recv(1000)
                client.sendall(b"SSH-2.0-OpenSSH\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        port = listener.getsockname()[1]
        for error in await both(Tcp("127.0.0.1", port, token)):
            assert f"the coordinator at 127.0.0.1 port {port} does not answer like one" in str(
                error
            )
        thread.join(DEADLINE_S)


async def test_a_coordinator_that_ends_is_named(token):
    with Server(handlers()).running() as server:
        client = Client(Tcp("127.0.0.1", server.port, token))
        async with AsyncClient(Tcp("127.0.0.1", server.port, token)) as other:
            server.end()
            place = f"the coordinator at 127.0.0.1 port {server.port} has been stopped"
            with pytest.raises(ControlError, match=place):
                async with asyncio.timeout(DEADLINE_S):
                    while True:
                        await other.wait("x")
            with pytest.raises(ControlError, match=place):
                while True:
                    client.wait("x")
        client.close()


@asynccontextmanager
async def robot(handlers_of_agent):
    """A robot that has connected; yield what this process got."""
    got = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def accept(connection):
        got.set_result(connection)
        await done.wait()

    async with serve(accept, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with dial(f"ws://127.0.0.1:{port}/agent", compression=None) as connection:
            session = ClientSession(
                connection,
                Peer(0, 0, 0),
                handlers_of_agent,
                AGENT_METHODS | m.METHODS,
                "dorad-agent 1",
                Limits(),
            )
            task = asyncio.create_task(session.run())
            yield await got
            done.set()
            async with asyncio.timeout(DEADLINE_S):
                await task


async def test_a_robot_that_has_connected_is_a_server():
    async def watch(call, params):
        for number in range(3):
            yield AgentReport(time=number * params.heartbeat)

    async def wait(call, params):
        return m.DataflowState(uuid=params.dataflow, name=None, status="finished")

    async with robot({"agent.watch": watch, "dataflow.wait": wait}) as connection:
        async with AsyncClient(Accepted(connection, "arm1")) as client:
            assert client.daemon == "dorad-agent 1"
            assert (await client.wait("x")).uuid == "x"
            reports = client.stream(AGENT_WATCH, AgentWatch(heartbeat=2.0))
            assert [each.time async for each in reports] == [0, 2, 4]


async def test_a_robot_that_goes_is_named():
    async with robot({}) as connection:
        client = await AsyncClient(Accepted(connection, "arm1")).open()
        await client.close()
        with pytest.raises(ControlError, match="the connection to the agent of arm1 was lost"):
            await client.call(AGENT_RENEW, m.Nothing())
