"""The site that `make docs` has built: whole, searchable, and readable on a phone and in the dark.

`make browser` builds it before.
"""

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.harness.browser import Page

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
PICTURED = ("index.html", "reference/python.html", "reference/c.html", "control-api.html",
            "console.html", "bench/results.html")  # fmt: skip
"""Pages with wide tables, long names, code and pictures."""

pytestmark = pytest.mark.skipif(not SITE.exists(), reason="`make docs` has not been called")


class Document(HTMLParser):
    """The links, pictures and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given[key] or "" for key in ("href", "src") if key in given]
        self.anchors |= {given[key] or "" for key in ("id", "name") if key in given}


@pytest.fixture(scope="module")
def documents() -> dict[Path, Document]:
    return {path: Document(path) for path in SITE.rglob("*.html")}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of the site: a browser searches in no files."""
    words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*words, "--directory", str(SITE)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            port = re.search(r"port (\d+)", server.stdout.readline())
            assert port is not None
            yield f"http://127.0.0.1:{port[1]}"
        finally:
            server.kill()


def test_every_link_picture_and_anchor_exists(documents: dict[Path, Document]) -> None:
    wrong = []
    for path, document in documents.items():
        for link in document.links:
            parts = urlsplit(link)
            # The page of errors is shown at any address, so its links are those of the server.
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(SITE)}: {link}"
            if target.is_dir():
                target /= "index.html"
            anchors = (
                documents[target].anchors if target in documents else {unquote(parts.fragment)}
            )
            if not target.exists() or unquote(parts.fragment) not in anchors:
                wrong.append(where)
    assert wrong == []


def test_the_reference_has_every_method_of_the_clients_and_every_function_of_the_header(
    documents: dict[Path, Document],
) -> None:
    from dorad.control.methods import Methods
    from dorad.node.node import Node

    reference = SITE / "reference"
    methods = {name for name in vars(Methods) if not name.startswith("_")}
    anchors = documents[reference / "clients.html"].anchors
    assert {f"dorad.control.client.Client.{name}" for name in methods} <= anchors
    methods = {name for name in vars(Node) if not name.startswith("_")}
    assert {f"dora.Node.{name}" for name in methods} <= documents[reference / "python.html"].anchors
    include = ROOT / "dorad" / "libdora" / "include" / "dora"
    header = "".join((include / name).read_text() for name in ("node_api.h", "testing.h"))
    functions = set(re.findall(r"^\w[\w *]*?(\w+)\([^;]*\);", header, re.MULTILINE))
    assert len(functions) > 60
    assert functions <= documents[reference / "c.html"].anchors


def test_what_a_method_of_the_clients_returns_is_shown_as_callers_see_it() -> None:
    page = (SITE / "reference" / "clients.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert re.search(r"status\(\) -> DaemonStatus", text)
    assert re.search(r"logs\(\n[^¶]*\n\) -> Stream\[LogLines\]", text)
    assert "Request[" not in text


def test_the_search_finds_functions_and_pages(page: Page, address: str) -> None:
    index = json.loads((SITE / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert len(index["docs"]) > 500
    page.goto(f"{address}/index.html")
    page.until("document.querySelector('.md-search__input') !== null")
    for word, expected in (
        ("send_output", "reference/python.html"),
        ("dora_send_arrow", "reference/c.html"),
        ("colcon", "coming-from-ros2.html"),
    ):
        page.run(
            "(() => { const field = document.querySelector('.md-search__input');"
            " field.value = ''; field.focus(); })()"
        )
        for letter in word:
            page.key(letter)
        page.until(
            "[...document.querySelectorAll('.md-search-result__link')]"
            f".some(link => link.href.includes('{expected}'))"
        )


@pytest.mark.parametrize("name", PICTURED)
def test_a_page_fits_the_window_in_the_light_and_in_the_dark(
    page: Page, address: str, name: str
) -> None:
    page.goto(f"{address}/{name}")
    page.until("document.readyState === 'complete' && document.querySelector('h1') !== null")
    for width in (390, 900, 1600):
        for dark in (False, True):
            page.size(width, 900, dark=dark)
            scheme = "slate" if dark else "default"
            page.until(f"document.body.dataset.mdColorScheme === '{scheme}'")
            assert page.run("document.documentElement.scrollWidth <= window.innerWidth"), width
    here = (address, "about:", "data:", "blob:")
    elsewhere = [each for each in page.requests if not each.startswith(here)]
    assert elsewhere == []
