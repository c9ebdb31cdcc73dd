"""Files of releases reach a robot over a connection that it opens: one receiver, one store."""

import asyncio
import random
import time
from contextlib import asynccontextmanager

import asyncssh
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from dorad.agent.files import Files
from dorad.control.errors import ControlError
from dorad.control.limits import MAX_REQUEST
from dorad.control.messages.agent import FILES_TICKET
from dorad.control.peer import Peer
from dorad.release import frames, receive
from dorad.release.machine import this_machine
from dorad.release.signature import ALLOWED, Signers
from dorad.release.trees import Trees
from dorafleet.coordinator import fileconnections
from dorafleet.coordinator.fileconnections import FileConnections
from dorafleet.inventory.model import Machine
from dorafleet.release import socketline
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.socketline import SocketLine, lines_over
from dorafleet.release.store import Store
from dorafleet.release.transfer import TransferOptions, send
from dorafleet.ssh.errors import Code
from tests.fleet.sites import UNSET
from tests.fleet.sshd import Network
from tests.harness.waiting import until
from tests.release.samples import public

FLOW = """\
nodes:
  - {id: camera, path: camera.py, args: --model model.bin}
"""
QUICK = TransferOptions(delays=(0.05,) * 8)
ROBOT = Machine("arm1", "no-way.invalid")


class Site:
    """A store of releases, and a robot's releases."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store(folder / "store")
        self.flow = folder / "flow"
        self.flow.mkdir()
        (self.flow / "dataflow.yml").write_text(FLOW)
        (self.flow / "camera.py").write_text("print('camera')\n")
        self.key = folder / "key"
        key = asyncssh.generate_private_key("ssh-ed25519", comment="ada@example.org")
        key.write_private_key(self.key)
        self.key.chmod(0o600)
        signers = folder / "signers"
        signers.mkdir()
        (signers / ALLOWED).write_text(f"ada@example.org {public(key)}\n")
        (folder / "releases").mkdir()
        self.trees = Trees(folder / "releases", Signers(signers))
        self.ended = 0
        self.asked = []
        self.port = 0
        self.via = None
        """A port to which the robot connects instead."""

    def build(self, size=300_000):
        return self.build_with(random.Random(1).randbytes(size))

    def build_with(self, content):
        self.content = content
        (self.flow / "model.bin").write_bytes(self.content)
        options = BuildOptions(name="pick")
        return build(self.flow / "dataflow.yml", self.store, choose(str(self.key)), options).bundle

    def find(self, robot):
        """Stand for what the coordinator keeps of the robot."""
        assert robot == "arm1"
        return self

    def changed(self, _robot):
        """Its findings are made again."""

    async def call(self, robot, _method, params):
        """Stand for the robot's own connection, over which it is asked to connect."""
        assert robot == "arm1"
        self.asked.append(params.release)
        self.files.fetch(params.ticket)

    @asynccontextmanager
    async def open(self, ticket):
        try:
            async with connect(
                f"ws://127.0.0.1:{self.via or self.port}/files",
                additional_headers={FILES_TICKET: ticket},
                compression=None,
                max_size=MAX_REQUEST,
                close_timeout=1,
            ) as connection:
                yield connection
        except OSError as error:
            raise ControlError("unavailable", str(error)) from None

    def _end(self):
        self.ended += 1

    @asynccontextmanager
    async def linked(self):
        self.files = Files(lambda: self.trees, self.open, self._end)
        self.unasked = 0
        self.connections = FileConnections(self)

        async def accept(connection):
            await self.connections.accept(connection, Peer(0, 0, 0, name="arm1", role="robot"))

        async with serve(accept, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            await self.files.close()

    async def send(self, bundle, on_progress=lambda _: None, options=QUICK):
        lines = lines_over(lambda robot: self.connections.open(robot, bundle.id))
        (outcome,) = await send(
            [ROBOT], bundle, self.store, on_progress, options=options, lines=lines
        )
        return outcome

    def has(self, bundle):
        tree = self.trees.stage(bundle.id)
        return (tree.folder / "files/model.bin").read_bytes() == self.content


@pytest.fixture
def own(tmp_path, monkeypatch):
    for name in (*UNSET, "SSH_AUTH_SOCK", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Site(tmp_path)


async def test_a_release_arrives_with_progress_and_the_next_one_as_patches(own):
    first = await asyncio.to_thread(own.build)
    seen = []
    async with own.linked():
        outcome = await own.send(first, seen.append)
        assert outcome.error is None
        assert (outcome.result.objects, own.asked) == (3, [first.id])
        assert (seen[-1].state, seen[-1].done) == ("done", outcome.result.size)
        assert own.has(first)
        assert (await own.send(first)).result.objects == 0

        changed = bytearray(own.content)
        changed[1000:1010] = b"0123456789"
        second = await asyncio.to_thread(own.build_with, bytes(changed))
        found = (await own.send(second)).result
        assert (found.objects, found.patches) == (1, 1)
        assert found.sent < 10_000
        assert own.has(second)


@pytest.mark.parametrize("after", [1, 150, 700, 4_096, 70_000, 200_001, 333_333, 500_000])
async def test_a_transfer_that_is_cut_at_any_byte_continues_where_it_was(own, after):
    bundle = await asyncio.to_thread(own.build, 600_000)
    seen = []
    async with own.linked():
        with Network(own.port, cuts=3, after=after, back=True) as network:
            own.via = network.port
            outcome = await own.send(bundle, seen.append)
            assert outcome.error is None, outcome.error
            assert network.connections >= 2
        assert own.has(bundle)
    begun = [each.done for each in seen if each.state == "sending" and each.rate == 0.0]
    assert begun == sorted(begun)


async def test_a_robot_that_does_not_connect_is_given_up_with_the_reason(own, monkeypatch):
    monkeypatch.setattr(fileconnections, "OPEN_S", 0.1)
    bundle = await asyncio.to_thread(own.build)
    async with own.linked():
        own.via = 1  # nothing listens there
        error = (await own.send(bundle)).error
        assert error.code is Code.UNREACHABLE
        assert "it has opened no connection for files" in error.message
        assert own.unasked == 0


@pytest.mark.parametrize("ticket", [None, "", "0" * 32, "é"])
async def test_a_connection_that_no_transfer_has_asked_for_gets_nothing(own, ticket, monkeypatch):
    monkeypatch.setattr(fileconnections, "OPEN_S", 0.5)
    bundle = await asyncio.to_thread(own.build)
    async with own.linked():
        own.files.fetch = lambda _ticket: None  # the robot itself stays away
        sending = asyncio.create_task(own.send(bundle))
        await until(lambda: own.asked)
        headers = {} if ticket is None else {FILES_TICKET: ticket}
        async with connect(f"ws://127.0.0.1:{own.port}/files", additional_headers=headers) as line:
            with pytest.raises(ConnectionClosed) as caught:
                await line.recv()
        assert caught.value.rcvd.code == 1008
        assert own.unasked == 1
        assert (await sending).error is not None


async def test_a_robot_that_asks_for_what_is_not_of_the_release_gets_nothing(own, monkeypatch):
    bundle = await asyncio.to_thread(own.build)
    other = frames.Offer([frames.Lacking("0" * 64, False)], this_machine(), [])
    monkeypatch.setattr(receive.Receiver, "_send", hostile(receive.Receiver._send, other))
    async with own.linked():
        error = (await own.send(bundle, options=TransferOptions(delays=(), patches=False))).error
        assert f"the robot asks for {'0' * 64}" in error.message


def hostile(honest, offer):
    def send_(self, kind, message):
        honest(self, kind, offer if kind == frames.OFFER else message)

    return send_


async def test_a_robot_that_floods_is_read_at_a_bounded_rate(own, monkeypatch):
    monkeypatch.setattr(socketline, "ANSWERS_RATE", 1 << 20)
    read = asyncio.get_running_loop().create_future()

    async def accept(connection):
        began = time.monotonic()
        await SocketLine(connection).readexactly(1 << 20)
        read.set_result(time.monotonic() - began)

    async with serve(accept, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = server.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", compression=None) as line:
            for _ in range(17):
                await line.send(b"x" * 65_536)
            assert await read > 0.9


async def test_a_changed_object_is_refused_by_the_robot_and_by_the_store(own):
    bundle = await asyncio.to_thread(own.build)
    model = next(each for each in bundle.manifest.files if each.path == "model.bin")
    path = own.store.objects.path(model.object)
    path.chmod(0o600)
    path.write_bytes(b"x" + own.content[1:])
    async with own.linked():
        error = (await own.send(bundle)).error
        assert "was changed" in error.message
        assert own.trees.lacking(own.trees.manifest(bundle.id))


async def test_the_rate_to_a_robot_is_bounded(own, monkeypatch):
    monkeypatch.setattr(socketline, "RATE", 1 << 20)
    bundle = await asyncio.to_thread(own.build, 500_000)
    async with own.linked():
        found = await own.send(bundle)
        assert found.error is None
        # Random content cannot be compressed.
        assert found.result.seconds > 0.8 * 500_000 / (1 << 20)


async def test_a_newer_request_ends_the_connection_before(own):
    bundle = await asyncio.to_thread(own.build, 600_000)
    async with own.linked():
        with Network(own.port, hangs=True) as network:
            own.via = network.port
            first = asyncio.create_task(own.send(bundle, options=TransferOptions(delays=())))
            await until(lambda: own.asked)
            first.cancel()
            await asyncio.wait({first})
            own.via = None
            assert (await own.send(bundle)).error is None
            network.hang_up()
        assert own.has(bundle)
