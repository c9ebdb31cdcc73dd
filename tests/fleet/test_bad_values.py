"""No entry is given twice, and no number is out of its bounds, in silence: cluster and strategy.

Also the configurations of a robot and of a coordinator, which are TOML.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from dorad.control.messages.releases import HealthRules
from dorad.daemon import config
from dorad.dataflow.errors import DataflowError, Problem
from dorad.problems import ProblemError
from dorafleet.cli.strategyfile import StrategyFile
from dorafleet.coordinator import settings
from dorafleet.inventory import load as inventory
from dorafleet.rollout.strategy import Batch, Budget, Strategy
from tests.harness.badvalues import Change, asked, changes, given

CLUSTER = """
coordinator: {addr: 10.0.0.1, port: 7000}
machines:
  - id: arm1
    host: arm1.local
    user: ann
    port: 22
    zenoh_addr: 10.0.0.2
    zenoh_port: 5456
    labels: {zone: hall}
    capacity: {cpu: 4, memory: 8GB, gpu: 1, devices: [/dev/video0]}
"""
STRATEGY = """
canary: 2
canary_selector: {zone: hall}
auto_promote: true
max_parallel: 10%
batches:
  - {selector: {zone: yard}, limit: 5}
progress_deadline: 900
auto_revert: true
failure_threshold: 3
disruption_budget: {group_by: cell, max_unavailable: 1}
windows: ["Mon-Fri 22:00-05:00"]
busy: wait
busy_max: 4h
catch_up: 5d
soak_time: 10m
min_healthy_time: 30
healthy_deadline: 5m
confirm_deadline: 10m
min_rate: 0.5
rates: {a/image: 25}
quiet: [a/raw]
probes:
  - [./check.sh, --fast]
"""
ROBOT = """
[daemon]
log_level = "info"
[nodes]
user = "dorad-node"
users = ["ann"]
groups = ["video"]
sandbox = true
sandbox_exceptions = ["camera"]
[realtime]
enabled = true
policy = "fifo"
priority = 10
lock_memory = true
cpu_affinity = [1]
[logs]
journal = true
[agent]
inline = true
nodes = ["*/*"]
params = ["*/*"]
max_param = "4 KB"
peers = ["*"]
networks = ["10.1.0.0/16"]
[incidents]
per_day = "500MB"
rate = "1MB"
[telemetry]
endpoint = "http://localhost:4318"
protocol = "grpc"
interval = 10
metrics = true
logs = true
traces = true
scrape = "127.0.0.1:9464"
scrape_token = "/etc/token"
"""
COORDINATOR = """
[alerts]
severity = "warn"
webhook = "https://chat.example/hook"
[alerts.mail]
server = "mail.example"
port = 587
encryption = "starttls"
from = "a@example.com"
to = ["b@example.com"]
[incidents]
limit = "20GB"
per_robot = "2GB"
per_day = "1GB"
rate = "1MB"
keep = "30d"
"""
MEANT = {
    **{(f"machines[].capacity.{key}", "zero"): "has none" for key in ("cpu", "memory", "gpu")},
    ("canary", "zero"): "no canary (docs/rollouts.md)",
    ("failure_threshold", "zero"): "accepts no failure",
    ("batches[]", "twice"): "another batch of as many of the same robots",
    ("busy_max", "zero"): "does not wait",
    ("catch_up", "zero"): "does not wait",
    ("soak_time", "zero"): "the rollout ends at once (docs/rollouts.md)",
    ("min_healthy_time", "zero"): "healthy at once",
    ("confirm_deadline", "zero"): "reverts as soon as contact is lost",
    ("min_rate", "zero"): "any rate is enough",
    ("rates.a/image", "zero"): "any rate is enough",
    ("probes[][]", "twice"): "another argument of a command",
}
TOML_MEANT = {
    ("cpu_affinity", "0"): "the first core",
    ("max_param", "0"): "no value of a parameter is accepted",
}
NUMBERS = ("0", "-1", "1" + "0" * 30, "inf", "nan", '"many"')


def in_cluster(text: str, _folder: Path) -> tuple[Problem, ...]:
    try:
        return inventory.parse(text, path=Path("cluster.yml")).warnings
    except DataflowError as error:
        return error.problems


def in_strategy(text: str, folder: Path) -> tuple[Problem, ...]:
    file = folder / "night.yml"
    file.write_text(text)
    try:
        StrategyFile(file).strategy({})
    except DataflowError as error:
        return error.problems
    return ()


ALL = [
    *((in_cluster, change) for change in changes(CLUSTER)),
    *((in_strategy, change) for change in changes(STRATEGY)),
]


def test_the_samples_are_valid_and_have_all_keys(tmp_path: Path) -> None:
    with asked() as keys:
        assert in_cluster(CLUSTER, tmp_path) == ()
    known = {key for names in keys.values() for key in names}
    assert known - given(CLUSTER) == {"zenoh_peer", "machines[].daemon_port"}
    assert in_strategy(STRATEGY, tmp_path) == ()
    names = {*Strategy.__struct_fields__, *HealthRules.__struct_fields__} - {"rules"}
    names |= {f"batches[].{key}" for key in Batch.__struct_fields__}
    names |= {f"disruption_budget.{key}" for key in Budget.__struct_fields__}
    assert names <= given(STRATEGY)


@pytest.mark.parametrize(
    ("reader", "change"), ALL, ids=[f"{change.place} {change.what}" for _, change in ALL]
)
def test_nothing_passes_without_meaning_what_it_says(reader, change: Change, tmp_path) -> None:
    problems = reader(change.text, tmp_path)
    here = [problem for problem in problems if problem.line in change.lines and problem.column]
    passes = (change.place, change.what) in MEANT
    assert bool(here) is not passes, [str(problem) for problem in problems]


def test_each_exception_is_still_one() -> None:
    assert MEANT.keys() - {(change.place, change.what) for _, change in ALL} == set()


def robot_lines(text: str, _folder: Path) -> list[str]:
    try:
        config.parse(text, "dorad.toml")
    except ProblemError as error:
        return error.lines
    return []


def coordinator_lines(text: str, folder: Path) -> list[str]:
    file = folder / "dorafleet.toml"
    file.write_text(text)
    file.chmod(0o600)
    try:
        settings.load(file)
    except ProblemError as error:
        return error.lines
    return []


def toml_changes(text: str):
    lines = text.splitlines()
    for number, line in enumerate(lines):
        key, _, value = line.partition(" = ")
        if not line:
            continue
        yield key, "twice", [*lines[: number + 1], line, *lines[number + 1 :]], number + 2
        if re.match(r"\[?\"?\d[\d.]*( ?[A-Za-z]+)?\"?\]?$", value):
            for bad in NUMBERS:
                changed = f"[{bad}]" if value.startswith("[") else bad
                yield (
                    key,
                    bad,
                    [*lines[:number], f"{key} = {changed}", *lines[number + 1 :]],
                    number + 1,
                )


TOML = [
    (reader, *change)
    for reader, text in ((robot_lines, ROBOT), (coordinator_lines, COORDINATOR))
    for change in toml_changes(text)
]


def test_the_configurations_are_valid_and_have_all_keys(tmp_path: Path) -> None:
    with asked() as keys:
        assert robot_lines(ROBOT, tmp_path) == []
        assert coordinator_lines(COORDINATOR, tmp_path) == []
    known = {key.rpartition(".")[2] for names in keys.values() for key in names}
    words = set(re.findall(r"[a-z_]+", ROBOT + COORDINATOR))
    files = {"webhook_file", "webhook_token_file", "webhook_ca", "password_file", "ca"}
    assert known - words - files == set()


@pytest.mark.parametrize(
    ("reader", "key", "what", "lines", "number"), TOML, ids=[f"{c[1]} {c[2][:9]}" for c in TOML]
)
def test_a_configuration_means_what_it_says(reader, key, what, lines, number, tmp_path) -> None:
    problems = reader("\n".join(lines), tmp_path)
    here = [line for line in problems if f".toml:{number}:" in line]
    passes = (key, what) in TOML_MEANT
    assert bool(here) is not passes, problems


@pytest.mark.parametrize("old", ['["ann"]', '["video"]', '["camera"]', "[1]", '["*/*"]', '["*"]'])
def test_an_item_that_a_configuration_lists_twice_is_in_the_log(old, caplog) -> None:
    text = ROBOT.replace(old, f"{old[:-1]}, {old[1:]}", 1)
    number = next(n for n, line in enumerate(text.splitlines(), 1) if f"{old[:-1]}, " in line)
    with caplog.at_level(logging.WARNING):
        config.parse(text, "dorad.toml")
    [line] = caplog.messages
    assert line.startswith(f"dorad.toml:{number}:")
    assert "is listed twice" in line
