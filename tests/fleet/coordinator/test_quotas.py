"""One name has so many connections, and the last ones are for operators and admins: real sockets.

A viewer's programs, however many, keep no admin from revoking that viewer.
"""

import asyncio
import json
import socket
import ssl
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import InvalidStatus

from dorad.control.tls import client_context
from dorafleet.coordinator.service import LIMITS
from tests.fleet.coordinator.running import DEADLINE_S, client, coordinator
from tests.fleet.coordinator.test_access import ended

EACH = LIMITS.connections_each
FOR_VIEWERS = LIMITS.connections - 2 * LIMITS.reserve


@pytest.fixture
def running(tmp_path):
    with coordinator(tmp_path / "state", "--listen=127.0.0.1") as process:
        yield process


async def token(process, name, role="viewer"):
    async with client(process) as one:
        made = await one.call("token.create", name=name, role=role, days=1)
    return {"Authorization": f"Bearer {made['token']}"}


async def busy(process, **headers):
    """Return the message of a refusal because of too many connections."""
    with pytest.raises(InvalidStatus) as caught:
        async with client(process, **headers):
            pass
    assert caught.value.response.status_code == 503
    assert int(caught.value.response.headers["Retry-After"]) > 0
    error = json.loads(caught.value.response.body)
    assert error["code"] == "busy"
    return error["message"]


async def hold(process, stack, count, **headers):
    return [await stack.enter_async_context(client(process, **headers)) for _ in range(count)]


async def test_a_viewer_with_all_connections_that_it_gets_keeps_neither_others_nor_admins_out(
    running,
):
    greedy, other = await token(running, "greedy"), await token(running, "other")
    async with AsyncExitStack() as stack:
        held = await hold(running, stack, EACH, **greedy)
        assert "`greedy` has 64 connections" in await busy(running, **greedy)
        async with client(running, **other) as one:
            await one.call("robot.list")
        async with client(running) as admin:
            await admin.call("access.revoke", kind="token", name="greedy")
        for each in held:
            await ended(each.connection)
    # What it held is free again.
    async with AsyncExitStack() as stack:
        await hold(running, stack, EACH, **other)


@pytest.mark.long
async def test_many_viewers_leave_connections_to_operators_and_all_of_these_some_to_admins(running):
    viewers = [await token(running, f"viewer{number}") for number in range(FOR_VIEWERS // EACH + 1)]
    operators = [await token(running, f"op{number}", "operator") for number in range(2)]
    async with AsyncExitStack() as stack:
        for each in viewers[:-1]:
            await hold(running, stack, EACH, **each)
        assert "more are for higher roles" in await busy(running, **viewers[-1])
        await hold(running, stack, EACH, **operators[0])
        assert "more are for higher roles" in await busy(running, **operators[1])
        async with client(running) as admin:
            done = await admin.call("access.revoke", kind="token", name="viewer0")
            assert done["connections"] == EACH


async def test_the_streams_of_a_name_count_together_over_its_connections(running):
    viewer = await token(running, "viewer")
    async with AsyncExitStack() as stack:
        for one in await hold(running, stack, LIMITS.streams_each // LIMITS.streams, **viewer):
            for number in range(LIMITS.streams):
                await start_stream(one, number)
        async with client(running, **viewer) as more:
            assert (await start_stream(more, 1))["error"]["code"] == "busy"
            # A call is not a stream.
            await more.call("robot.list")
        async with client(running) as admin:
            assert "event" in await start_stream(admin, 1)
        await one.connection.close()
        async with asyncio.timeout(DEADLINE_S), client(running, **viewer) as more:
            number = 0
            while "error" in await start_stream(more, number := number + 1):
                pass  # it may not have noticed the end yet


async def start_stream(one, number):
    request = {"id": 1000 + number, "method": "fleet.watch", "params": {}}
    await one.connection.send(json.dumps(request))
    while True:
        frame = json.loads(await one.connection.recv())
        if frame["id"] == request["id"]:
            return frame


async def test_a_client_that_is_gone_before_it_is_admitted_takes_no_place(tmp_path):
    """Its request and its end arrive at one moment, which TLS makes possible."""
    with coordinator(tmp_path / "state", "--tls") as process:
        context = client_context(process.folder / "authority.pem")
        for _ in range(EACH):
            await asyncio.to_thread(ask_and_leave, process, context)
        async with client(process) as one:
            await one.call("robot.list")


def ask_and_leave(process, context):
    request = (
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {process.token}\r\n\r\n"
    )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=None)
    with socket.create_connection(("127.0.0.1", process.port), DEADLINE_S) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        tls.write(request.encode())
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        while sock.recv(65536):
            pass
