"""The dataflow named on the command line may be a URL, which is fetched first."""

import contextlib
import http.server
import threading

import pytest

from tests.cli.dora import dora
from tests.harness.commands import fails, succeeds

FLOW = "nodes:\n  - id: a\n    path: dynamic\n"


@pytest.fixture
def site(tmp_path):
    """The address of a web server that has flow.yml."""
    root = tmp_path / "site"
    root.mkdir()
    (root / "flow.yml").write_text(FLOW)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(root))

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path != "/endless.yml":
                return super().do_GET()
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(b"# nothing\n" * 6000)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_a_dataflow_is_fetched_into_the_current_folder(site, here):
    succeeds(dora("validate", f"{site}/flow.yml", cwd=here))
    assert (here / "flow.yml").read_text() == FLOW


def test_fetching_again_is_fine_while_nothing_changed(site, here):
    (here / "flow.yml").write_text(FLOW)
    assert dora("validate", f"{site}/flow.yml", cwd=here).returncode == 0


def test_a_different_file_of_that_name_is_not_overwritten(site, here):
    (here / "flow.yml").write_text("mine")
    fails(dora("validate", f"{site}/flow.yml", cwd=here), 1, "differs")
    assert (here / "flow.yml").read_text() == "mine"


def test_a_missing_address_is_one_line(site, here):
    result = dora("validate", f"{site}/nothing.yml", cwd=here)
    assert result.returncode == 1
    assert result.stderr == f"error: cannot download {site}/nothing.yml: HTTP 404 File not found\n"


def test_a_server_that_does_not_answer_is_one_line(here):
    result = dora("validate", "http://127.0.0.1:1/flow.yml", cwd=here)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_an_endless_answer_is_refused(site, here):
    result = dora("validate", f"{site}/endless.yml", cwd=here)
    assert result.returncode == 1
    assert result.stderr == f"error: {site}/endless.yml is larger than 16777216 bytes\n"
    assert list(here.iterdir()) == []


def test_an_address_without_a_dataflow_is_refused(site, here):
    fails(dora("validate", f"{site}/index.html", cwd=here), 1, ".yml")
