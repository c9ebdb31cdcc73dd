"""A connection ends when its token or its certificate does, with the calls and streams on it."""

import asyncio
import json
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from unittest.mock import AsyncMock

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dorad.control import messages as m
from dorad.control.peer import Peer
from dorad.control.server import Call, ControlServer, HandlerTable
from dorad.control.tls import GRACE_S, Identity, client_context
from dorafleet.ca.authority import open_authority
from dorafleet.coordinator.access import AGENT_PATH, Access
from dorafleet.coordinator.accessmessages import EnrolRef, EnrolToken, TokenCreate
from dorafleet.coordinator.authority import Authorities
from dorafleet.coordinator.enrolments import ENROLMENT_S, Enrolments
from dorafleet.coordinator.grants import Grants
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.handoverstate import HandOverState
from dorafleet.coordinator.listener import bind, make_context
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.writer import Writer
from dorafleet.store.sqlite import SqliteStore
from tests.harness.waiting import DEADLINE_S, until

DAY_S = 86400.0


class Site:
    """The access of a coordinator, with a clock that the test sets."""

    def __init__(self, folder):
        self.folder = folder
        self.ahead = 0.0
        self.token = secrets.token_hex(8)
        self.streams = 0
        self.authority = open_authority(folder / "ca")

    def clock(self):
        return time.time() + self.ahead

    async def watch(self, call, params):
        self.streams += 1
        try:
            yield m.FleetRows(at=1.0, rows=[])
            await asyncio.Event().wait()
        finally:
            self.streams -= 1

    async def agent(self, connection, peer):
        self.streams += 1
        try:
            await connection.wait_closed()
        finally:
            self.streams -= 1

    def context(self, identity=None, days=30):
        """Return the context of a client, with a certificate if an identity is given."""
        root = self.folder / "root.pem"
        root.write_text(self.authority.certificate)
        if identity is None:
            return client_context(root)
        pair = self.authority.issue_pair(identity, days=days)
        mine = self.folder / "mine.pem"
        mine.touch(mode=0o600)
        mine.write_text(pair.key + pair.issued.chain)
        return client_context(root, mine, mine)

    @asynccontextmanager
    async def connected(self, tls=None, token=None, path="/"):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with connect(
            f"wss://127.0.0.1:{self.port}{path}",
            ssl=tls or self.context(),
            server_hostname="",
            additional_headers=headers,
            compression=None,
            open_timeout=None,
            close_timeout=0.1,
        ) as connection:
            yield connection

    @asynccontextmanager
    async def watching(self, tls=None, token=None):
        """Connect, and keep a stream open."""
        async with self.connected(tls, token) as connection:
            await connection.send(json.dumps({"hello": "test", "protocol": 1}))
            await connection.recv()
            await connection.send(json.dumps({"id": 1, "method": "fleet.watch", "params": {}}))
            assert "event" in json.loads(await connection.recv())
            yield connection

    async def token_of(self, name, days=1, role="viewer"):
        made = await HandlerTable.of(self.enrolments)["token.create"](
            admin(), TokenCreate(name=name, role=role, days=days)
        )
        return made.token


def admin():
    return Call(1, "token.create", Peer(0, 0, 0, name="ann"), "test 1")


async def forget(_robot: str) -> None:
    """Do what a coordinator does with what it has of a robot that is revoked: here nothing."""


@pytest.fixture
async def site(tmp_path):
    site = Site(tmp_path)
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(tmp_path / "coordinator.db")
        stack.push_async_callback(store.close)
        term = await stack.enter_async_context(store.lead("test"))
        writer = Writer(store, term)
        grants = Grants(store, writer, site.clock)
        sock = bind(ip_address("127.0.0.1"), 0, 100)
        access = Access(grants, site.token, ["arm1"], sock.admit)
        state = HandOverState(store, writer, grants, Authorities(site.authority), ["arm1"])
        hand_overs = HandOvers(state, writer, tmp_path / "ca", AsyncMock())
        site.enrolments = Enrolments(
            *(grants, access, writer, hand_overs, ["arm1"]),
            tls=True,
            on_enrolled=lambda robot: None,
            on_revoked=forget,
        )
        server = ControlServer(
            {"fleet.watch": site.watch, **HandlerTable.of(site.enrolments)},
            version="1",
            methods=METHODS,
            accept={AGENT_PATH: site.agent},
        )
        context = make_context(tmp_path, site.authority, "base", [ip_address("127.0.0.1")])
        await server.serve_tcp(sock, access, context)
        stack.push_async_callback(server.close)
        site.port = sock.getsockname()[1]
        running = asyncio.create_task(access.run())
        stack.callback(running.cancel)
        yield site


async def ended(connection):
    """Wait until the server has ended a connection."""
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await connection.recv()


async def stays(connection):
    """Wait long enough for a connection that should end, and check that it is still there."""
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(3):
            await (await connection.ping())
            await asyncio.sleep(1)


async def refused(site, tls=None, token=None, path="/"):
    with pytest.raises(InvalidStatus) as caught:
        async with site.connected(tls, token, path):
            pass
    return json.loads(caught.value.response.body)["message"]


@pytest.mark.long
async def test_a_connection_and_its_streams_end_with_their_token(site):
    short, long = await site.token_of("short"), await site.token_of("long", days=2)
    async with site.watching(token=short) as one, site.watching(token=long) as other:
        site.ahead = DAY_S - 60
        await stays(one)
        site.ahead = DAY_S + 1
        await ended(one)
        await stays(other)
        assert site.streams == 1
    assert "expired" in await refused(site, token=short)


async def test_the_token_of_the_coordinators_user_never_ends(site):
    async with site.watching(token=site.token) as one:
        site.ahead = 100 * 365 * DAY_S
        await stays(one)


async def test_a_connection_ends_with_the_certificate_of_its_operator(site):
    tls = site.context(Identity("operator", "ann", "viewer"), days=10)
    async with site.watching(tls) as one:
        site.ahead = 9 * DAY_S
        await stays(one)
        site.ahead = 10 * DAY_S + 60
        await ended(one)
        await until(lambda: not site.streams)


async def test_a_robot_stays_connected_while_its_certificate_can_be_renewed_and_no_longer(site):
    tls = site.context(Identity("robot", "arm1"), days=10)
    async with site.connected(tls, path=AGENT_PATH) as one:
        site.ahead = 10 * DAY_S + 60
        await stays(one)
        site.ahead = 10 * DAY_S + GRACE_S + 60
        await ended(one)
        await until(lambda: not site.streams)
    assert "expired" in await refused(site, tls, path=AGENT_PATH)


async def test_a_connection_ends_with_the_token_of_an_enrolment_or_with_the_next_one(site):
    async def make():
        table = HandlerTable.of(site.enrolments)
        made = await table["enrol.token"](admin(), EnrolRef(robot="arm1"))
        assert isinstance(made, EnrolToken)
        return made.token

    async with site.connected(token=await make()) as one:
        await one.send(json.dumps({"hello": "test", "protocol": 1}))
        await one.recv()
        second = await make()
        await ended(one)
    async with site.connected(token=second) as one:
        await one.send(json.dumps({"hello": "test", "protocol": 1}))
        await one.recv()
        await stays(one)
        site.ahead = ENROLMENT_S + 1
        await ended(one)
