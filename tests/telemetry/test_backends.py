"""Real backends from Debian: what they answer equals the counters of the rings."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness.daemon import Daemon
from tests.harness.daemon import daemon as run_daemon
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

from .test_robot import MESSAGES, TOKEN, resting, telemetry

pytestmark = pytest.mark.long


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with run_daemon() as running:
        yield running


@contextmanager
def backend(daemon: Daemon, program: str, *arguments: str) -> Iterator[None]:
    """Run a program from Debian until the block ends."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"there is no {program}: apt-get install {program}")
    with (daemon.folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen(
            [path, *arguments],
            cwd=daemon.folder,
            env=daemon.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """Return the series that a query gives, none while the backend does not answer."""
    words = urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{words}", timeout=60) as answer:
            return json.load(answer)["data"]["result"]
    except OSError:
        return []


def values(url: str, query: str) -> list[float]:
    return [float(each["value"][1]) for each in ask(url, query)]


def begin(daemon: Daemon) -> None:
    """Start a dataflow and wait until it rests."""
    daemon.dora_ok("start", resting(daemon.folder / "flow"), "--name", "counting", "--detach")
    with daemon.client() as client:
        wait_until(lambda: [each.received for each in client.top().edges] == [MESSAGES])


def test_victoria_metrics_takes_them_over_otlp(daemon):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = (f"-httpListenAddr=127.0.0.1:{port}", "-search.latencyOffset=0s")
    endpoint = f'endpoint = "{url}/opentelemetry"\nlogs = false\ntraces = false\ninterval = 1'
    with backend(daemon, "victoria-metrics", "-loggerLevel=ERROR", *arguments):
        begin(daemon)
        with telemetry(daemon, endpoint) as exporter:
            sink = '"service.name"="sink"'
            name = "messaging.client.consumed.messages"
            wait_until(lambda: values(url, f'{{"{name}",{sink}}}') == [MESSAGES])
            count = f'{{"dora.edge.latency_count",{sink}}}'
            wait_until(lambda: values(url, count) == [MESSAGES])
            name = "dora.edge.latency_bucket"
            p99 = f'histogram_quantile(0.99, {{"{name}",{sink}}})'
            (found,) = values(url, p99)
            assert 0 < found < 60
            exporter.end()


def test_prometheus_scrapes_them(daemon):
    port, ours = free_port(), free_port()
    token = daemon.folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    config = daemon.folder / "prometheus.yml"
    job = {
        "job_name": "dorad",
        "scrape_interval": "1s",
        "authorization": {"credentials_file": str(token)},
        "static_configs": [{"targets": [f"127.0.0.1:{ours}"]}],
    }
    config.write_text(json.dumps({"scrape_configs": [job]}))
    url = f"http://127.0.0.1:{port}"
    arguments = (f"--web.listen-address=127.0.0.1:{port}", f"--config.file={config}")
    toml = f'scrape = "127.0.0.1:{ours}"\nscrape_token = "{token}"'
    folder = f"--storage.tsdb.path={daemon.folder / 'tsdb'}"
    with telemetry(daemon, toml) as exporter, backend(daemon, "prometheus", folder, *arguments):
        begin(daemon)
        consumed = 'messaging_client_consumed_messages_total{service_name="sink"}'
        wait_until(lambda: values(url, consumed) == [MESSAGES])
        count = 'dora_edge_latency_seconds_count{service_name="sink"}'
        assert values(url, count) == [MESSAGES]
        p99 = 'histogram_quantile(0.99, dora_edge_latency_seconds_bucket{service_name="sink"})'
        (found,) = values(url, p99)
        assert 0 < found < 60
        status = 'dora_node_status{dora_node_status="running",service_name="sink"}'
        assert values(url, status) == [1]
        assert values(url, "up") == [1]
        exporter.end()
