"""The server of the live graph: who gets the page, who gets figures, and what a page may ask."""

import asyncio
import http.client
import json
import re
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dorad.control.errors import ControlError
from dorad.dataflow.html import _hash
from dorad.view import graphserver
from dorad.view.follow import Wanted
from dorad.view.graphserver import MAX_CONNECTIONS, MAX_VIEWERS, GraphServer
from tests.harness.waiting import until

WAITING = {"type": "state", "state": "waiting", "text": "demo does not run; waiting for its start"}


@asynccontextmanager
async def serving():
    """Serve a dataflow that does not run."""
    server = GraphServer(list, Wanted(name="demo"))
    address = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(0, address.set_result))
    await asyncio.wait({task, address}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield server, urlsplit(address.result())
    finally:
        task.cancel()
        await asyncio.wait({task})


def page(address, token=None, **options):
    """Connect as the page does."""
    names = ["dora.graph"]
    token = address.fragment if token is None else token
    names += [f"token.{token}"] if token else []
    return connect(f"ws://{address.netloc}/live", subprotocols=names, **options)


async def get(address, path="/", **headers):
    """Return the answer to a request; `None` as a header leaves it out."""

    def ask():
        client = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        client.putrequest("GET", path, skip_host=True)
        for name, value in {"Host": address.netloc, **headers}.items():
            if value is not None:
                client.putheader(name, value)
        client.endheaders()
        answer = client.getresponse()
        body = answer.read().decode()
        client.close()
        return answer, body

    return await asyncio.to_thread(ask)


async def test_a_page_with_the_token_is_told_the_state():
    async with serving() as (_, address), page(address) as viewer:
        assert json.loads(await viewer.recv()) == WAITING


@pytest.mark.parametrize("token", ["", "x", "x" * 32, "x" * 3000])
async def test_a_page_without_the_token_gets_nothing_of_the_dataflow(token):
    async with serving() as (server, address):
        server.show("graph", {"type": "graph"})
        async with page(address, token) as viewer:
            with pytest.raises(ConnectionClosed) as refused:
                await viewer.recv()
            assert refused.value.rcvd.code == graphserver.WRONG_TOKEN


async def test_the_page_has_neither_the_token_nor_data():
    async with serving() as (server, address):
        server.show("graph", {"type": "graph", "name": "secret-robot"})
        _, body = await get(address)
        assert address.fragment == server.token
        assert len(server.token) >= 32
        assert server.token not in body
        assert "secret-robot" not in body


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "localhost@evil",
    ],
)
async def test_a_request_that_names_another_host_is_refused(host):
    async with serving() as (_, address):
        host = host and host.format(port=address.port)
        for path in ("/", "/live"):
            answer, body = await get(address, path, Host=host)
            assert answer.status == 421
            assert "<" not in body


@pytest.mark.parametrize("host", ["localhost:9999", "[::1]:80", "127.0.0.1"])
async def test_a_forwarded_port_is_as_good_as_the_own_one(host):
    async with serving() as (_, address):
        answer, _ = await get(address, Host=host)
        assert answer.status == 200
        assert f"connect-src ws://{host};" in answer.headers["Content-Security-Policy"]


async def test_a_foreign_page_cannot_connect_even_with_the_token():
    async with serving() as (_, address):
        for origin in ("http://evil.example", "null", f"https://{address.netloc}"):
            with pytest.raises(InvalidStatus) as refused:
                await page(address, origin=origin)
            assert refused.value.response.status_code == 403
        async with page(address, origin=f"http://{address.netloc}") as viewer:
            assert json.loads(await viewer.recv()) == WAITING


async def test_the_page_may_run_its_own_scripts_and_connect_to_its_own_server_alone():
    async with serving() as (_, address):
        answer, body = await get(address)
        policy = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["Content-Security-Policy"].split(";")
        )
        scripts = re.findall(r"<script>(.*?)</script>", body, re.DOTALL)
        assert len(scripts) == 3
        assert policy["default-src"] == "'none'"
        assert policy["script-src"].split() == [_hash(each) for each in scripts]
        assert policy["connect-src"] == f"ws://{address.netloc}"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in str(policy)
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert not re.search(r'\b(?:src|href)="', body)


async def test_other_paths_are_not_found():
    async with serving() as (_, address):
        for path in ("/favicon.ico", "/../etc/passwd", "//", "/live/x"):
            assert (await get(address, path))[0].status == 404


async def test_one_page_too_many_is_refused_until_another_one_leaves():
    async with serving() as (server, address):
        pages = [await page(address) for _ in range(MAX_VIEWERS)]
        await until(lambda: len(server._viewers) == MAX_VIEWERS)
        async with page(address) as viewer:
            with pytest.raises(ConnectionClosed) as refused:
                await viewer.recv()
            assert refused.value.rcvd.code == graphserver.TOO_MANY
        await pages.pop().close()
        await until(lambda: len(server._viewers) < MAX_VIEWERS)
        async with page(address) as viewer:
            assert json.loads(await viewer.recv()) == WAITING
        for each in pages:
            await each.close()


async def test_one_connection_too_many_is_closed_at_once():
    async with serving() as (server, address):
        silent = [
            await asyncio.open_connection(address.hostname, address.port)
            for _ in range(MAX_CONNECTIONS)
        ]
        await until(lambda: len(server._open) == MAX_CONNECTIONS)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionError):
                assert await reader.read() == b""
                raise ConnectionResetError
        for _, each in [*silent, (reader, writer)]:
            each.close()
        await until(lambda: not server._open)
        assert (await get(address))[0].status == 200


async def test_a_page_that_does_not_read_gets_the_latest_figures_and_fills_no_memory():
    async with serving() as (server, address), page(address, max_queue=1) as viewer:
        assert json.loads(await viewer.recv()) == WAITING
        (connection,) = server._viewers
        for number in range(300):
            server.show("figures", {"number": number, "text": "x" * 100_000})
            await asyncio.sleep(0)
            assert connection.transport.get_write_buffer_size() < 1_000_000
        number = -1
        while number != 299:
            number = json.loads(await viewer.recv()).get("number", number)


@pytest.mark.parametrize(
    "request_",
    [
        "no json",
        "[" * 4000,
        "7",
        "{}",
        '{"ask": "history"}',
        '{"ask": "shutdown", "id": 1}',
        '{"ask": "history", "id": "x", "node": "a"}',
        '{"ask": "traces", "id": 1, "through": [1]}',
        b"\xff\xfe",
    ],
)
async def test_a_wrong_request_is_answered_and_the_page_stays(request_):
    async with serving() as (_, address), page(address) as viewer:
        assert json.loads(await viewer.recv()) == WAITING
        await viewer.send(request_)
        assert json.loads(await viewer.recv())["error"].startswith("invalid request")
        await viewer.send('{"ask": "history", "id": 3, "node": "a"}')
        assert json.loads(await viewer.recv()) == {
            "id": 3,
            "type": "error",
            "error": str(ControlError("unavailable", "demo does not run")),
        }


async def test_too_many_names_are_refused():
    async with serving() as (_, address), page(address) as viewer:
        assert json.loads(await viewer.recv()) == WAITING
        await viewer.send(json.dumps({"ask": "traces", "id": 1, "through": ["a"] * 9}))
        assert "too many names" in json.loads(await viewer.recv())["error"]


async def test_a_request_that_is_too_long_ends_the_page():
    async with serving() as (_, address), page(address) as viewer:
        assert json.loads(await viewer.recv()) == WAITING
        await viewer.send("x" * 5000)
        with pytest.raises(ConnectionClosed) as refused:
            await viewer.recv()
        assert refused.value.rcvd.code == 1009
