"""Nodes whose path is a URL, from a real HTTP server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from dorad.launch.fetch import download
from dorad.launch.model import LaunchError

from .conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = b"#!/bin/sh\nexit 0\n"


class Handler(BaseHTTPRequestHandler):
    released = threading.Event()

    def do_GET(self) -> None:
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/node.sh")
            self.end_headers()
            return
        short = self.path.startswith("/short")
        slow = self.path.startswith("/slow")
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY) + short))
        self.end_headers()
        if slow:
            self.released.wait(10)
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.released.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Handler.released.set()
        server.shutdown()


def files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]


async def failure(url: str, folder: Path, **options: object) -> str:
    with pytest.raises(LaunchError) as caught:
        await download(url, folder, **options)  # type: ignore[arg-type]  # options vary by test
    assert not files(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_the_file_lands_in_build_and_is_executable(server: str, tmp_path: Path) -> None:
    file = await download(f"{server}/dir/node.sh?v=1", tmp_path)
    assert file == tmp_path / "build/node.sh"
    assert file.read_bytes() == BODY
    assert os.access(file, os.X_OK)


async def test_a_checksum_gives_it_a_folder_of_its_own(server: str, tmp_path: Path) -> None:
    checksum = hashlib.sha256(BODY).hexdigest()
    file = await download(f"{server}/node.sh", tmp_path, sha256=checksum)
    assert file == tmp_path / "build" / checksum / "node.sh"


async def test_another_checksum_is_refused_and_nothing_is_kept(server: str, tmp_path: Path) -> None:
    text = await failure(f"{server}/node.sh", tmp_path, sha256="0" * 64)
    assert hashlib.sha256(BODY).hexdigest() in text
    assert "0" * 64 in text


async def test_an_older_file_stays_when_the_new_one_is_wrong(server: str, tmp_path: Path) -> None:
    file = await download(f"{server}/node.sh", tmp_path)
    with pytest.raises(LaunchError):
        await download(f"{server}/node.sh", tmp_path, max_bytes=3)
    assert list(file.parent.iterdir()) == [file]
    assert file.read_bytes() == BODY


async def test_redirects_are_followed(server: str, tmp_path: Path) -> None:
    assert (await download(f"{server}/moved", tmp_path)).read_bytes() == BODY


async def test_an_http_error_is_named(server: str, tmp_path: Path) -> None:
    url = f"{server}/missing"
    assert await failure(url, tmp_path) == f"cannot download {url}: HTTP 404 Not Found"


async def test_an_unreachable_host_is_named(tmp_path: Path) -> None:
    assert "Connection refused" in await failure("http://127.0.0.1:9/x", tmp_path)


async def test_a_malformed_url_is_one_line(tmp_path: Path) -> None:
    assert "cannot download" in await failure("http://[bad/x", tmp_path)


async def test_a_file_over_the_limit_is_refused(server: str, tmp_path: Path) -> None:
    assert "larger than 5 bytes" in await failure(f"{server}/node.sh", tmp_path, max_bytes=5)


async def test_a_download_that_breaks_off_is_refused(server: str, tmp_path: Path) -> None:
    assert "broke off" in await failure(f"{server}/short", tmp_path)


async def test_a_silent_server_does_not_hang_the_start(server: str, tmp_path: Path) -> None:
    assert "timed out" in await failure(f"{server}/slow", tmp_path, max_seconds=0.2)


async def test_a_cancelled_download_leaves_nothing(server: str, tmp_path: Path) -> None:
    task = asyncio.create_task(download(f"{server}/slow", tmp_path))
    assert await asyncio.to_thread(eventually, lambda: len(files(tmp_path)) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    Handler.released.set()
    assert await asyncio.to_thread(eventually, lambda: not files(tmp_path))


async def test_a_full_or_forbidden_folder_is_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    with pytest.raises(LaunchError, match=r"cannot download .*: .*exists"):
        await download(f"{server}/node.sh", tmp_path)


@pytest.mark.parametrize("path", ["/", "/..", "/%2e%2e%2f%2e%2e%2fevil", "/%00"])
async def test_a_strange_name_stays_inside_build(server: str, tmp_path: Path, path: str) -> None:
    file = await download(server + path, tmp_path)
    assert file.parent == tmp_path / "build"
