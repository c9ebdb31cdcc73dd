"""`dorafleet-telemetry` beside a coordinator: real backends from Debian show what robots count."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from dorafleet.coordinator.token import make_token
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import leading, with_commands
from tests.fleet.control.test_load import MACHINES, edge, node, top_of
from tests.harness.ports import free_port
from tests.harness.waiting import DEADLINE_S, until
from tests.telemetry.test_backends import backend, values
from tests.telemetry.test_robot import TOKEN, UnixConnection, get

pytestmark = pytest.mark.long

PROGRAM = (sys.executable, "-m", "dorafleet.telemetry.main")


@contextmanager
def telemetry(folder, port: int, toml: str) -> Iterator[Callable[[], str]]:
    """Run the program until the block ends; it ends well. Yields what returns its log."""
    make_token(folder / "viewer.token")
    where = f"{{addr: 127.0.0.1, port: {port}, token: viewer.token}}"
    (folder / "viewer.yml").write_text(f"coordinator: {where}\n")
    (folder / "telemetry.toml").write_text(f"[telemetry]\ninterval = 1\n{toml}\n")
    words = ["--config", "telemetry.toml", "--settings", "viewer.yml"]
    log = folder / "telemetry.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*PROGRAM, *words],
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield log.read_text
        process.terminate()
        assert process.wait(DEADLINE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


async def until_seen(holds: Callable[[], object]) -> None:
    """Wait until a condition holds, which may block: the coordinator runs in this thread."""
    await until(lambda: asyncio.to_thread(holds))


async def connect(fleet) -> None:
    """Connect two robots that have counted messages."""
    for number, name in enumerate(("arm1", "arm2"), 1):
        uuid = f"local-{name}"
        counts = {"sent": 60 * number, "received": 60 * number, "dropped": number, "payload": 480}

        async def top(_call, _params, uuid=uuid, counts=counts):
            return top_of(node(None, uuid), edge(None, uuid, dataflow_name="talk", **counts))

        fleet.agents[name] = FakeAgent(name, fleet.port)
        fleet.agents[name].handlers = {"top": top}
        await fleet.connect(fleet.agents[name])


async def test_prometheus_scrapes_what_the_robots_have_counted(tmp_path):
    port, ours = free_port(), free_port()
    token = tmp_path / "scrape.token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    config = tmp_path / "prometheus.yml"
    job = {
        "job_name": "fleet",
        "scrape_interval": "1s",
        "authorization": {"credentials_file": str(token)},
        "static_configs": [{"targets": [f"127.0.0.1:{ours}"]}],
    }
    config.write_text(json.dumps({"scrape_configs": [job]}))
    url = f"http://127.0.0.1:{port}"
    arguments = (f"--web.listen-address=127.0.0.1:{port}", f"--config.file={config}")
    storage = f"--storage.tsdb.path={tmp_path / 'tsdb'}"
    toml = f'scrape = "127.0.0.1:{ours}"\nscrape_token = "{token}"\nlabels = ["cell"]'
    host = SimpleNamespace(folder=tmp_path, env=os.environ)
    async with leading(tmp_path, MACHINES, authenticate=with_commands) as fleet:
        await connect(fleet)
        with (
            telemetry(tmp_path, fleet.port, toml),
            backend(host, "prometheus", storage, *arguments),
        ):
            of_cell = 'dora_label_messages_sent{dora_label_key="cell",dora_label_value="left"}'
            await until_seen(lambda: values(url, of_cell) == [180])
            assert values(url, "sum(dora_robot_messages_sent)") == [180]
            assert values(url, 'dora_robot_messages_dropped{dora_robot_id="arm2"}') == [2]
            assert values(url, "sum(dora_instance_payload_sent_bytes)") == [960]
            assert values(url, 'dora_robot_up{dora_robot_id="arm3"}') == [0]
            assert values(url, "sum(dora_fleet_left_out)") == [0]
            # A robot that leaves is not shown as if it rested.
            await fleet.agents["arm2"].stop()
            sent = "sum(dora_robot_messages_sent)"
            await until_seen(lambda: values(url, sent) == [60])
            assert values(url, "sum(dora_robot_up)") == [1]


async def test_victoria_metrics_takes_it_over_otlp(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = (f"-httpListenAddr=127.0.0.1:{port}", "-search.latencyOffset=0s")
    host = SimpleNamespace(folder=tmp_path, env=os.environ)
    async with leading(tmp_path, MACHINES, authenticate=with_commands) as fleet:
        await connect(fleet)
        with (
            backend(host, "victoria-metrics", "-loggerLevel=ERROR", *arguments),
            telemetry(tmp_path, fleet.port, f'endpoint = "{url}/opentelemetry"'),
        ):
            await until_seen(lambda: values(url, 'sum({"dora.robot.messages.sent"})') == [180])
            latency = 'max({"dora.robot.latency.p99"})'
            assert values(url, latency) == [0.01]


async def test_without_a_coordinator_nothing_is_served_and_it_connects_to_the_next_one(tmp_path):
    path, port = tmp_path / "metrics.sock", free_port()
    with telemetry(tmp_path, port, f'scrape = "unix:{path}"') as log:

        def scraped() -> tuple[int, str]:
            return get(UnixConnection(path)) if path.exists() else (0, "")

        await until_seen(lambda: "trying again" in log() and scraped()[0] == 503)
        for folder in ("first", "second"):
            (tmp_path / folder).mkdir()
            options = {"authenticate": with_commands, "port": port}
            async with leading(tmp_path / folder, MACHINES, **options) as fleet:
                await connect(fleet)
                await until_seen(lambda: 'dora_robot_id="arm1"' in scraped()[1])
            await until_seen(lambda: scraped()[0] == 503)
