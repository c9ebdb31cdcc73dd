"""`dorad-telemetry` beside a daemon: what it sends, what may be scraped, and how it ends."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.daemon import daemon as run_daemon
from tests.harness.flows import counting, seen, until_more_seen
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

from .collector import http_collector

pytestmark = pytest.mark.long

PROGRAM = (sys.executable, "-m", "dorad.telemetry.main")
MESSAGES = 60
TOKEN = "0123456789abcdef-token"


def resting(folder: Path) -> Path:
    """Write a dataflow that sends and prints some messages, and then rests."""
    file = counting(folder)
    script = file.with_name("source.py")
    before = 'if event["type"] == "INPUT":'
    assert before in script.read_text()
    after = f'if event["type"] == "INPUT" and number < {MESSAGES}:'
    script.write_text(script.read_text().replace(before, after))
    return file


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with run_daemon() as running:
        yield running


class Telemetry:
    """The program, with its log."""

    def __init__(self, daemon: Daemon, toml: str, **env: str) -> None:
        folder = daemon.folder
        self.runtime = folder / "telemetry"
        self.runtime.mkdir()
        config = folder / "dorad.toml"
        config.write_text(f"[telemetry]\n{toml}\n")
        self.log = folder / "telemetry.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "--config", config, "--socket", daemon.paths.control],
                env={**daemon.env, "RUNTIME_DIRECTORY": str(self.runtime), **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def status(self) -> dict[str, dict[str, object]]:
        path = self.runtime / "status.json"
        reports = json.loads(path.read_text()) if path.exists() else []
        return {each["signal"]: each for each in reports}

    def end(self) -> str:
        self.process.terminate()
        assert self.process.wait(60) == 0, self.output
        return self.output


@contextlib.contextmanager
def telemetry(daemon: Daemon, toml: str, **env: str) -> Iterator[Telemetry]:
    running = Telemetry(daemon, toml, **env)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


def test_a_collector_gets_what_the_daemon_counts_and_all_new_lines(daemon):
    file = resting(daemon.folder / "flow")
    with http_collector() as collector:
        with telemetry(daemon, f'endpoint = "{collector.url}"\ninterval = 1') as exporter:
            wait_until(lambda: "connected to" in exporter.output)
            daemon.dora_ok("start", file, "--name", "counting", "--detach")
            wait_until(lambda: len(seen(file.parent)) == MESSAGES)
            edge = {"dora_edge_target": "sink/number"}
            name = "messaging.client.consumed.messages"
            wait_until(lambda: (name, "sink") in {key[:2] for key in list(collector.points)})
            wait_until(lambda: collector.last(name, "sink", **edge) == MESSAGES)
            assert collector.last("messaging.client.sent.messages", "source", **edge) == MESSAGES
            with daemon.client() as client:
                (flow,) = client.list()
                (ring,) = client.top().edges
            assert (ring.sent, ring.received) == (MESSAGES, MESSAGES)
            written = {f"sent {number}" for number in range(MESSAGES)}
            wait_until(
                lambda: written <= {record.body.string_value for _, record in collector.records}
            )
            lines = [record.body.string_value for of, record in collector.records if of == "source"]
            assert len(set(lines)) == len(lines)
            wait_until(lambda: exporter.status().get("logs", {}).get("sent", 0) >= MESSAGES)
            assert exporter.status()["metrics"]["dropped"] == 0
            ended = exporter.end()
    assert "metrics: " in ended
    resources = {
        attribute.value.string_value
        for request in collector.metrics
        for each in request.resource_metrics
        for attribute in each.resource.attributes
        if attribute.key in ("service.namespace", "dora.dataflow.id")
    }
    assert {"counting", flow.uuid} <= resources


def test_what_is_sent_of_traces_is_changed_live(daemon):
    file = counting(daemon.folder / "flow")
    with http_collector() as collector:
        with telemetry(
            daemon, f'endpoint = "{collector.url}"\nmetrics = false\nlogs = false'
        ) as exporter:
            wait_until(lambda: "connected to" in exporter.output)
            assert "nothing of each source" in daemon.dora_ok("trace", "stop")
            daemon.dora_ok("start", file, "--name", "counting", "--detach")
            until_more_seen(file.parent, 100)
            with daemon.client() as client:
                wait_until(lambda: sum(path.count for path in client.trace_paths().paths) > 50)
            assert not collector.spans
            # Only those of another source, then all of this one.
            daemon.dora_ok("trace", "start", "--source", "other", "--rate", "100")
            until_more_seen(file.parent, 100)
            assert not collector.spans
            told = daemon.dora_ok("trace", "start", "--source", "source/tick", "--rate", "1000")
            assert "1000 traces a second of `source/tick`" in told
            assert "nothing of each source" in told

            def complete() -> int:
                names = [span.name for _, span in collector.spans]
                return names.count("process source/number")

            wait_until(lambda: complete() > 100)
            wait_until(lambda: exporter.status().get("traces", {}).get("sent", 0) > 100)
            assert exporter.status()["traces"]["dropped"] == 0
            ids = {span.trace_id.hex() for _, span in collector.spans}
            with daemon.client() as client:
                kept = {trace.id for trace in client.traces(limit=1000).traces}
            assert ids & kept
            exporter.end()


def test_it_connects_again_after_a_restart_of_the_daemon(daemon):
    file = counting(daemon.folder / "flow")
    with http_collector() as collector:
        with telemetry(daemon, f'endpoint = "{collector.url}"\ninterval = 1') as exporter:
            daemon.dora_ok("start", file, "--name", "counting", "--detach")
            until_more_seen(file.parent, 10)
            wait_until(lambda: exporter.status().get("metrics", {}).get("sent"))
            daemon.kill()
            wait_until(lambda: "trying again" in exporter.output)
            daemon.start()
            wait_until(lambda: exporter.output.count("connected to") == 2)
            before = len(collector.metrics)
            wait_until(lambda: len(collector.metrics) > before + 1)
            exporter.end()
        daemon.dora_ok("stop", "counting")


def test_a_dead_collector_is_told_once_and_does_not_delay_the_end(daemon):
    with telemetry(
        daemon, 'endpoint = "http://127.0.0.1:9"\ninterval = 1', OTEL_EXPORTER_OTLP_TIMEOUT="3"
    ) as exporter:
        wait_until(lambda: exporter.status().get("metrics", {}).get("dropped", 0) > 50)
        assert "refused" in str(exporter.status()["metrics"]["error"])
        output = exporter.end()
    assert output.count("metrics do not reach http://127.0.0.1:9/v1/metrics") == 1


def test_without_an_endpoint_it_ends_at_once(daemon):
    with telemetry(daemon, "") as exporter:
        assert exporter.process.wait(60) == 0
        assert "nothing to send" in exporter.output


@pytest.mark.parametrize("toml", ['endpoint = "nonsense://x"', "unknown = 1"])
def test_a_mistake_ends_it_with_its_place(daemon, toml):
    with telemetry(daemon, toml) as exporter:
        assert exporter.process.wait(60) == 1
        assert "dorad.toml:2" in exporter.output


def get(connection: http.client.HTTPConnection, path: str = "/metrics", **headers: str):
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def test_metrics_can_be_scraped_with_the_token_only(daemon):
    token, port = daemon.folder / "token", free_port()
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    toml = f'scrape = "127.0.0.1:{port}"\nscrape_token = "{token}"'
    file = resting(daemon.folder / "flow")
    with telemetry(daemon, toml) as exporter:
        wait_until(lambda: "metrics at" in exporter.output and "connected" in exporter.output)

        def ask(path: str = "/metrics", **headers: str):
            return get(http.client.HTTPConnection("127.0.0.1", port, timeout=60), path, **headers)

        assert ask()[0] == 401
        assert ask(Authorization="Bearer wrong")[0] == 401
        assert ask("/", Authorization=f"Bearer {TOKEN}")[0] == 404
        assert ask(Authorization=f"Bearer {TOKEN}", Cookie="x" * 9_000)[0] == 431
        daemon.dora_ok("start", file, "--name", "counting", "--detach")
        with daemon.client() as client:
            wait_until(lambda: [each.received for each in client.top().edges] == [MESSAGES])
        code, page = ask(Authorization=f"Bearer {TOKEN}")
        assert code == 200
        (line,) = (x for x in page.splitlines() if x.startswith("messaging_client_consumed"))
        assert line.endswith(f" {MESSAGES}")
        assert page.endswith("# EOF\n")
        daemon.end()
        wait_until(lambda: ask(Authorization=f"Bearer {TOKEN}")[0] == 503)
        exporter.end()


def test_metrics_can_be_scraped_at_a_socket_of_the_own_user(daemon):
    path = daemon.folder / "metrics.sock"
    with telemetry(daemon, f'scrape = "unix:{path}"') as exporter:
        wait_until(lambda: "metrics at" in exporter.output and "connected" in exporter.output)
        assert path.stat().st_mode & 0o777 == 0o660
        code, page = get(UnixConnection(path))
        assert (code, page.endswith("# EOF\n")) == (200, True)
        exporter.end()
    assert not path.exists()


@pytest.mark.parametrize(("mode", "text"), [(0o644, TOKEN), (0o600, "short")])
def test_a_token_that_others_know_is_refused(daemon, mode, text):
    token = daemon.folder / "token"
    token.write_text(text)
    token.chmod(mode)
    toml = f'scrape = "127.0.0.1:{free_port()}"\nscrape_token = "{token}"'
    with telemetry(daemon, toml) as exporter:
        assert exporter.process.wait(60) == 1
        assert str(token) in exporter.output
