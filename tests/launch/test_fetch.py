"""Nodes whose path is a URL, from a real HTTP server."""

import asyncio
import errno
import hashlib
import os
import shutil
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dorad.launch.fetch import MAX_TOTAL, Downloads
from dorad.launch.helper import LocalHelpers
from dorad.launch.model import LaunchError
from dorad.launch.transfer import SecureRedirects
from tests.harness.waiting import until

BODY = b"#!/bin/sh\nexit 0\n"
DRIPPING = {
    "/drip/header": b"X: ",
    "/drip/chunk": b"Transfer-Encoding: chunked\r\n\r\n",
    "/drip/body": b"\r\n",
}
"""The beginning of answers that go on byte by byte without end."""


class Handler(BaseHTTPRequestHandler):
    released = threading.Event()
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path in ("/moved", "/loop"):
            self.send_response(302)
            self.send_header("Location", "/node.sh" if self.path == "/moved" else self.path)
            self.end_headers()
            return
        if self.path in DRIPPING:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + DRIPPING[self.path])
            while not self.released.wait(0.05):
                self.wfile.write(b"0")
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
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Handler.released.clear()
    Handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Handler.released.set()
        server.shutdown()


def files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names]


def make_oldest(downloads: Path) -> None:
    """Let the only file there have been used before any other."""
    (folder,) = downloads.iterdir()
    os.utime(folder, (1, 1))


async def download(url: str, folder: Path, *, sha256: str | None = None, **limits: Any) -> Path:
    return await Downloads(folder / "build", plain=True, **limits).get(url, sha256)


async def failure(url: str, folder: Path, **options: Any) -> str:
    with pytest.raises(LaunchError) as caught:
        await download(url, folder, **options)
    assert not files(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_the_file_lands_in_build_and_is_executable(server: str, tmp_path: Path) -> None:
    file = await download(f"{server}/dir/node.sh?v=1", tmp_path)
    assert file == tmp_path / "build/node.sh"
    assert file.read_bytes() == BODY
    assert os.access(file, os.X_OK)


@pytest.mark.long
async def test_a_checksum_gives_it_its_own_folder(server: str, tmp_path: Path) -> None:
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


async def test_an_endless_redirect_is_one_line(server: str, tmp_path: Path) -> None:
    assert "infinite loop" in await failure(f"{server}/loop", tmp_path)


async def test_an_http_error_is_named(server: str, tmp_path: Path) -> None:
    url = f"{server}/missing"
    assert await failure(url, tmp_path) == f"cannot download {url}: HTTP 404 Not Found"


async def test_an_unreachable_host_is_named(tmp_path: Path) -> None:
    assert "Connection refused" in await failure("http://127.0.0.1:9/x", tmp_path)


async def test_a_malformed_url_is_one_line(tmp_path: Path) -> None:
    assert "cannot download" in await failure("http://[bad/x", tmp_path)


async def test_a_file_over_the_limit_is_refused(server: str, tmp_path: Path) -> None:
    assert "larger than 5 bytes" in await failure(f"{server}/node.sh", tmp_path, max_bytes=5)


async def test_an_incomplete_download_is_refused(server: str, tmp_path: Path) -> None:
    assert "broke off" in await failure(f"{server}/short", tmp_path)


async def test_a_silent_server_does_not_block_the_start(server: str, tmp_path: Path) -> None:
    text = await failure(f"{server}/slow", tmp_path, max_seconds=0.2)
    assert text == f"cannot download {server}/slow: it takes longer than 0.2 s"


@pytest.mark.parametrize("path", DRIPPING)
async def test_a_server_that_drips_in_any_part_of_its_answer_is_left_in_time(
    server: str, tmp_path: Path, path: str
) -> None:
    async with asyncio.timeout(8.0):
        assert "takes longer than 0.2 s" in await failure(server + path, tmp_path, max_seconds=0.2)


async def test_a_cancelled_download_leaves_nothing(server: str, tmp_path: Path) -> None:
    task = asyncio.create_task(download(f"{server}/slow", tmp_path))
    await until(lambda: len(files(tmp_path)) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    Handler.released.set()
    await until(lambda: not files(tmp_path))


async def test_a_full_or_forbidden_folder_is_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    with pytest.raises(LaunchError, match=r"cannot download .*: .*exists"):
        await download(f"{server}/node.sh", tmp_path)


@pytest.mark.parametrize("path", ["/", "/..", "/%2e%2e%2f%2e%2e%2fevil", "/%00"])
async def test_a_hostile_file_name_stays_inside_build(
    server: str, tmp_path: Path, path: str
) -> None:
    file = await download(server + path, tmp_path)
    assert file.parent == tmp_path / "build"


SHA256 = hashlib.sha256(BODY).hexdigest()


async def test_a_checked_file_is_downloaded_once_also_for_the_next_daemon(
    server: str, tmp_path: Path
) -> None:
    url = f"{server}/node.sh"
    file = await Downloads(tmp_path).get(url, SHA256)
    downloads = Downloads(tmp_path)
    assert await downloads.get(url, SHA256.upper()) == file
    assert await downloads.get("http://127.0.0.1:9/node.sh", SHA256) == file
    assert Handler.asked == ["/node.sh"]


@pytest.mark.parametrize("body", [b"evil", BODY.replace(b"0", b"1")])
async def test_a_checked_file_that_was_changed_is_not_run(
    server: str, tmp_path: Path, body: bytes
) -> None:
    downloads = Downloads(tmp_path)
    file = await downloads.get(f"{server}/node.sh", SHA256)
    file.write_bytes(body)
    assert (await downloads.get(f"{server}/node.sh", SHA256)).read_bytes() == BODY
    assert len(Handler.asked) == 2


async def test_nodes_that_start_at_once_share_one_download(server: str, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    async with asyncio.TaskGroup() as group:
        got = [group.create_task(downloads.get(f"{server}/n", SHA256)) for _ in range(8)]
    assert {task.result() for task in got} == {tmp_path / SHA256 / "n"}
    assert Handler.asked == ["/n"]
    assert files(tmp_path) == ["n"]


async def test_a_file_without_checksum_is_downloaded_each_time_and_kept_for_an_unreachable_server(
    server: str, tmp_path: Path
) -> None:
    downloads = Downloads(tmp_path)
    file = await downloads.get(f"{server}/node.sh")
    other = await downloads.get(f"{server}/node.sh?v=2")
    assert other != file
    Handler.asked.clear()
    assert await downloads.get(f"{server}/node.sh") == file
    assert Handler.asked == ["/node.sh"]
    file.write_bytes(b"older")
    limited = Downloads(tmp_path, max_bytes=3)
    assert (await limited.get(f"{server}/node.sh")).read_bytes() == b"older"


async def test_a_cache_that_is_read_only_now_keeps_no_node_out(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = Downloads(tmp_path, max_total=MAX_TOTAL)
    checked = await downloads.get(f"{server}/node.sh", SHA256)
    unchecked = await downloads.get(f"{server}/node.sh")

    (unchecked.parent / ".download-x").touch()

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for module, name in ((os, "utime"), (os, "open"), (Path, "unlink"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, read_only)
    downloads = Downloads(tmp_path, max_total=1)
    downloads.clear_partial()
    assert await downloads.get(f"{server}/node.sh", SHA256) == checked
    assert await downloads.get(f"{server}/node.sh") == unchecked
    with pytest.raises(LaunchError, match=r"cannot download .*Read-only file system"):
        await downloads.get(f"{server}/other.sh")


async def test_no_room_is_made_where_another_download_is_under_way(
    server: str, tmp_path: Path
) -> None:
    downloads = Downloads(tmp_path, max_total=1)
    slow = asyncio.create_task(downloads.get(f"{server}/slow"))
    await until(lambda: len(files(tmp_path)) == 1)
    make_oldest(tmp_path)
    await downloads.get(f"{server}/node.sh")
    Handler.released.set()
    assert (await slow).read_bytes() == BODY


async def test_the_least_recently_used_files_are_removed(server: str, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path, max_total=3 * len(BODY))
    found = []
    for number in range(3):
        file = await downloads.get(f"{server}/{number}")
        os.utime(file.parent, (number, number))
        found.append(file)
    os.utime(found[0].parent)
    found.append(await downloads.get(f"{server}/3"))
    assert [file.exists() for file in found] == [True, False, True, True]


async def test_files_of_a_killed_download_are_removed_and_never_used(
    server: str, tmp_path: Path
) -> None:
    left = tmp_path / SHA256 / ".download-x"
    left.parent.mkdir()
    left.write_bytes(BODY[:3])
    downloads = Downloads(tmp_path)
    downloads.clear_partial()
    assert not left.exists()
    assert (await downloads.get(f"{server}/n", SHA256)).read_bytes() == BODY


async def test_others_can_execute_a_file_and_not_change_it(server: str, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        file = await Downloads(tmp_path / "downloads").get(f"{server}/n", SHA256)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (file, *file.parents[:2])]
    assert modes == [0o755] * 3


async def test_a_helper_downloads_for_a_process_without_network(
    server: str, tmp_path: Path
) -> None:
    downloads = Downloads(tmp_path, helpers=LocalHelpers(), max_bytes=len(BODY))
    assert (await downloads.get(f"{server}/n", SHA256)).read_bytes() == BODY
    with pytest.raises(LaunchError, match="HTTP 404"):
        await downloads.get(f"{server}/missing")
    with pytest.raises(LaunchError, match="expected 0000"):
        await downloads.get(f"{server}/n", "0" * 64)
    assert files(tmp_path) == ["n"]


@pytest.mark.parametrize("to", ["http://example.invalid/n", "HTTP://example.invalid/n"])
def test_a_redirect_never_leaves_https(to: str) -> None:
    handler = SecureRedirects()
    fields: Any = (None, 302, "Found", {})
    secure = urllib.request.Request("https://example.invalid/node")
    with pytest.raises(urllib.error.URLError, match="from https to"):
        handler.redirect_request(secure, *fields, to)
    plain = urllib.request.Request("http://example.invalid/node")
    assert handler.redirect_request(plain, *fields, to) is not None
    assert handler.redirect_request(secure, *fields, "https://example.invalid/n") is not None
    with pytest.raises(urllib.error.URLError, match="not http or https"):
        handler.redirect_request(plain, *fields, "ftp://example.invalid/n")
