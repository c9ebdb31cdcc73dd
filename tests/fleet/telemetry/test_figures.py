"""Load of a fleet becomes metrics: one series for each row, and no more than are allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource

from dorad.telemetry.instruments import Own
from dorad.telemetry.metrics import point_count
from dorad.telemetry.scrape import openmetrics
from dorad.telemetry.settings import TelemetryError
from dorafleet.coordinator.load import loads
from dorafleet.coordinator.loadmessages import FleetLoad, FleetLoads
from dorafleet.telemetry import figures
from dorafleet.telemetry.figures import INSTANCE, MAX_OF_ROBOT, MAX_ROWS, choose, fleet_metrics
from dorafleet.telemetry.main import MAX_LABELS, load_section
from tests.fleet.control.test_load import edge, node, states, top_of

OWN = Own({"metrics": 5}, {"metrics": 2})
RESOURCE = Resource({"service.name": "dorafleet", "host.name": "hub"})
GUIDE = Path(__file__).parents[3] / "docs/guide/telemetry.md"


def whole(name, **more):
    """Return a row without a figure that is None."""
    values = {"robots": 1, "cpu": 50.0, "memory": 1, "rate": 1.0, "bandwidth": 1.0}
    values |= {"drop_rate": 0.0, "sent": 7, "payload": 8, "dropped": 0, "lost": 0}
    return FleetLoad(name, **(values | {"latency_p99": 0.01, "offset": -0.02} | more))


def metrics(**rows):
    known = {by: FleetLoads(at=10.0, rows=each) for by, each in rows.items()}
    return fleet_metrics(known, OWN, RESOURCE, 1)


def page(**rows):
    """Return the values of each series."""
    lines = openmetrics(metrics(**rows)).splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    series = [name for name, _, _ in samples]
    assert len(set(series)) == len(series)
    return {name.replace('service_name="dorafleet",host_name="hub",', ""): float(value)
            for name, _, value in samples}  # fmt: skip


def test_each_robot_instance_and_value_of_a_label_has_series_of_its_own_metrics():
    top = top_of(
        *(node("arm1"), edge("arm1", sent=3, dropped=1, payload=24)),
        *(node("arm2"), edge("arm2", sent=4)),
    )
    placed = {"u1": ("talk", ("arm1", "arm2"))}
    kinds = ("robot", "instance", "cell")
    known = states(arm3="it is not connected")
    values = page(**{by: loads(top, known, placed, by) for by in kinds})
    arm1 = 'dora_robot_id="arm1"'
    assert values[f"dora_robot_messages_sent{{{arm1}}}"] == 3
    assert values[f"dora_robot_payload_sent_bytes{{{arm1}}}"] == 24
    assert values[f"dora_robot_cpu_cores{{{arm1}}}"] == 0.1
    of_arm3 = {name: value for name, value in values.items() if "arm3" in name}
    assert of_arm3 == {'dora_robot_up{dora_robot_id="arm3"}': 0}
    assert values['dora_instance_messages_sent{dora_instance_name="talk"}'] == 7
    left = 'dora_label_key="cell",dora_label_value="left"'
    assert values[f"dora_label_messages_sent{{{left}}}"] == 7
    assert values[f"dora_label_robots{{{left}}}"] == 2
    assert values['dora_fleet_left_out{dora_fleet_by="instance"}'] == 0


NAMES = st.lists(st.sampled_from(["a", "b", "a/x", "a/y", "b/x", 'q"\\', "n" * 300, ""]))


@given(NAMES)
def test_whatever_rows_are_called_no_series_comes_twice_and_every_row_is_shown_or_counted(names):
    values = page(instance=[whole(name) for name in names])
    shown = sum(name.startswith("dora_instance_nodes{") for name in values)
    left_out = values['dora_fleet_left_out{dora_fleet_by="instance"}']
    assert shown + left_out == len(names)
    assert shown == len({name for name in names if len(name) <= figures.MAX_NAME})


def test_a_thousand_robots_are_so_many_series_whatever_runs_on_them():
    robots = [whole(f"robot{number}") for number in range(1000)]
    instances = [whole(f"robot{number % 1000}/flow{number}") for number in range(40_000)]
    cells = [whole(f"cell{number}") for number in range(100)]
    data = metrics(robot=robots, instance=instances, cell=cells)
    rows = len(figures.OF_ALL) + len(figures.OF_GROUPS)
    assert point_count(data) <= (1000 + MAX_ROWS + 100) * rows + 10
    values = page(robot=robots, instance=instances, cell=cells)
    left_out = {x: n for x, n in values.items() if x.startswith("dora_fleet_left_out")}
    assert [*left_out.values()] == [0, 40_000 - MAX_ROWS, 0]


def test_a_robot_that_names_many_dataflows_takes_the_series_of_no_other():
    rows = [whole(f"arm1/{number}") for number in range(10 * MAX_ROWS)]
    chosen = choose([*rows, whole("arm2/talk")], INSTANCE)
    assert len(chosen.rows) == MAX_OF_ROBOT + 1
    assert (chosen.rows[-1].name, chosen.left_out) == ("arm2/talk", 10 * MAX_ROWS - MAX_OF_ROBOT)


def test_the_guide_lists_every_metric_of_a_fleet():
    words = set(re.findall(r"`([^`\n]+)`", GUIDE.read_text(encoding="utf-8")))
    one = whole("x")
    known = metrics(robot=[one], instance=[one]).resource_metrics[0].scope_metrics[0]
    of_robots = {each.name for each in known.metrics if "dora.robot." in each.name}
    shared = {f"dora.instance.{row.name}" for row in figures.OF_ALL}
    assert not {each.name for each in known.metrics} - shared - words
    assert of_robots <= words


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("unknown = 1", "unknown"),
        (f"labels = {[str(n) for n in range(MAX_LABELS + 1)]}", "labels"),
        ('scrape = "0.0.0.0:9465"', "of this machine only"),
        ('scrape = "127.0.0.1:9465"', "scrape_token"),
    ],
)
def test_a_mistake_in_the_section_of_a_fleet_is_named(tmp_path, toml, problem):
    file = tmp_path / "telemetry.toml"
    file.write_text(f"[telemetry]\n{toml}\n")
    with pytest.raises(TelemetryError, match=problem):
        load_section(file)


def test_labels_are_keys_to_add_up_by(tmp_path):
    file = tmp_path / "telemetry.toml"
    file.write_text('[telemetry]\ninterval = 5\nlabels = ["cell", "site"]\n')
    section, labels = load_section(file)
    assert (section.interval, labels) == (5.0, ("cell", "site"))
