"""Every query of the dashboard and of the alert rules, asked of both databases with real data."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.harness.daemon import Daemon
from tests.harness.daemon import daemon as run_daemon
from tests.harness.flows import write_flow
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

from .test_backends import ask, backend
from .test_robot import TOKEN, telemetry

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parents[2] / "docs/grafana"
VARIABLES = {"$robot": ".*", "$dataflow": ".*", "$__rate_interval": "1m"}

SOURCE = """
    import pyarrow as pa
    from dora import Node

    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("number", pa.array([1]))
"""
SLOW = """
    import time
    from dora import Node

    for event in Node():
        time.sleep(0.1)
"""
FAILS = """
    from dora import Node

    for event in Node():
        raise SystemExit(3)
"""


def dashboard_queries() -> list[str]:
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def alerts() -> dict[str, str]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def condition(expr: str) -> str:
    """Return what an alert compares with a limit, or what it takes away from."""
    query, found, _ = re.split(r"\s(==|>|<|unless)\s", expr)
    assert found
    return query


def filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def flow(folder: Path) -> Path:
    nodes = [
        {"id": "source", "path": "source.py", "inputs": {"tick": "dora/timer/millis/20"},
         "outputs": ["number"]},
        {"id": "slow", "path": "slow.py",
         "inputs": {"number": {"source": "source/number", "queue_size": 1}}},
        {"id": "broken", "path": "broken.py", "inputs": {"number": "source/number"}},
    ]  # fmt: skip
    return write_flow(folder, nodes, source=SOURCE, slow=SLOW, broken=FAILS)


@pytest.fixture(scope="module")
def databases() -> Iterator[tuple[Daemon, dict[str, str]]]:
    """Both databases, with a dataflow that drops messages and has a failed node."""
    ports = {name: free_port() for name in ("prometheus", "victoria-metrics", "ours")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    with run_daemon() as daemon, contextlib.ExitStack() as stack:
        token = daemon.folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        job = {
            "job_name": "dorad",
            "scrape_interval": "1s",
            "authorization": {"credentials_file": str(token)},
            "static_configs": [{"targets": [urls["ours"].partition("//")[2]]}],
        }
        config = daemon.folder / "prometheus.yml"
        rules = [str(FOLDER / "alerts.yml")]
        content = {
            "global": {"evaluation_interval": "1s"},
            "scrape_configs": [job],
            "rule_files": rules,
        }
        config.write_text(json.dumps(content))
        toml = "\n".join(
            (
                f'endpoint = "{urls["victoria-metrics"]}/opentelemetry"',
                "logs = false",
                "traces = false",
                "interval = 1",
                f'scrape = "127.0.0.1:{ports["ours"]}"',
                f'scrape_token = "{token}"',
            )
        )
        stack.enter_context(
            backend(
                daemon,
                "victoria-metrics",
                f"-httpListenAddr=127.0.0.1:{ports['victoria-metrics']}",
                "-loggerLevel=ERROR",
                "-search.latencyOffset=0s",
                "-opentelemetry.usePrometheusNaming",
            )
        )
        stack.enter_context(telemetry(daemon, toml))
        stack.enter_context(
            backend(
                daemon,
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={daemon.folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{ports['prometheus']}",
                "--enable-feature=exemplar-storage",
            )
        )
        daemon.dora_ok("start", flow(daemon.folder / "flow"), "--name", "flow", "--detach")
        yield daemon, {name: urls[name] for name in ("prometheus", "victoria-metrics")}
        daemon.dora("stop", "flow")


@pytest.mark.parametrize("database", ["prometheus", "victoria-metrics"])
def test_every_query_returns_data(databases, database):
    _, urls = databases
    queries = [*dashboard_queries(), *map(condition, alerts().values())]
    assert len(queries) > 30
    pending = dict.fromkeys(map(filled, queries))

    def answered() -> bool:
        for query in list(pending):
            series = ask(urls[database], query)
            if any(each["value"][1] != "NaN" for each in series):
                del pending[query]
        return not pending

    try:
        wait_until(answered)
    except AssertionError:
        pytest.fail(f"no data for {list(pending)}")


@pytest.mark.parametrize("database", ["prometheus", "victoria-metrics"])
def test_an_alert_tells_of_what_is_wrong(databases, database):
    _, urls = databases

    def firing(alert: str) -> list[str]:
        found = ask(urls[database], alerts()[alert])
        return [
            each["metric"].get("dora_edge_target", each["metric"].get("service_name"))
            for each in found
        ]

    wait_until(lambda: firing("DoraNodeFailed") == ["broken"])
    wait_until(lambda: firing("DoraMessagesDropped") == ["slow/number"])
    for quiet in ("DoraRobotSilent", "DoraTelemetryDropped", "DoraInputWithoutMessages"):
        assert firing(quiet) == []


def test_prometheus_takes_the_rules_and_the_exemplars(databases):
    daemon, urls = databases
    promtool = shutil.which("promtool")
    if promtool is not None:
        subprocess.run([promtool, "check", "rules", FOLDER / "alerts.yml"], check=True)
    import urllib.request

    query = "dora_edge_latency_seconds_bucket&start=0&end=4000000000"
    url = f"{urls['prometheus']}/api/v1/query_exemplars?query={query}"

    def exemplars() -> set[str]:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = json.load(answer)["data"]
        return {each["labels"]["trace_id"] for series in data for each in series["exemplars"]}

    wait_until(exemplars)
    with daemon.client() as client:
        kept = {trace.id for trace in client.traces(limit=10_000).traces}
    assert exemplars() & kept
