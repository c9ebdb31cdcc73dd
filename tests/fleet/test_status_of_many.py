"""`dorafleet status` of a fleet of a thousand: a summary, and those that need a person."""

import io
import sys
from types import SimpleNamespace

import pytest

from dorad.control.messages import Finding
from dorad.control.messages.agent import ShareState
from dorafleet.cli import robots, status
from dorafleet.coordinator.deploymentmessages import DeploymentInfo, DeploymentInstance
from dorafleet.coordinator.messages import Robot


def robot(number, state="connected", **more):
    share = ShareState(
        dataflow="pick", uuid="u", epoch=1, generation=1, status="running", since=0.0
    )
    shares = [share] if state == "connected" else []
    id_ = f"arm{number}"
    given = {"host": "10.0.0.1", "labels": {}, "age": 1.0, "version": "1", "shares": shares}
    given["findings"] = []
    return Robot(id=id_, state=state, **{**given, **more})


def fleet(count, *others):
    return [*(robot(number) for number in range(count)), *others]


def test_a_thousand_machines_are_a_summary_with_the_exceptions():
    away = [robot(2000 + number, "unreachable", reason="silent") for number in range(3)]
    clock = Finding("clock", "clock", "its clock is 2 min ahead", "warn", 0.0)
    late = robot(3000, findings=[clock])
    found = fleet(996, late, *away)
    lines = status.fleet_lines(found, every=False)
    assert lines[0] == "1000 machines: 997 connected, 3 unreachable; 997 are well"
    assert lines[1] == "pick running: 997 machines"
    shown = [line.split()[0] for line in lines[4:-1]]
    assert shown == ["arm2000", "arm2001", "arm2002", "arm3000"]
    assert "its clock is 2 min ahead" in lines[-2]
    assert lines[-1] == "`dorafleet status --all` lists every machine"
    assert len(status.fleet_lines(found, every=True)) == 1001


def test_a_fleet_that_is_well_is_two_lines_and_the_way_to_more():
    assert status.fleet_lines(fleet(51), every=False) == [
        "51 machines: 51 connected; 51 are well",
        "pick running: 51 machines",
        "`dorafleet status --all` lists every machine",
    ]


def test_a_small_fleet_is_listed_whole():
    assert len(status.fleet_lines(fleet(50), every=False)) == 51


def test_many_exceptions_and_dataflows_are_counted_not_dropped():
    found = [robot(number, "unreachable") for number in range(200)]
    lines = status.fleet_lines(found, every=False)
    assert len(lines) == 2 + 1 + robots.MAX_ROWS + 2
    assert lines[-2] == "and 150 more with problems"
    many = [
        robot(number, shares=[ShareState(f"flow{number}", "u", 1, 1, "running", 0.0)])
        for number in range(60)
    ]
    lines = status.fleet_lines(many, every=False)
    assert lines[1 + robots.MAX_FLOWS] == "and 50 other states of dataflows"


class Coordinator:
    """One without questions to operators and without deployments."""

    def call(self, method, params):
        return SimpleNamespace(questions=[], deployments=[])


@pytest.mark.parametrize("terminal", [True, False])
def test_all_of_them_go_through_a_pager_on_a_terminal(monkeypatch, capsys, terminal):
    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    paged = []
    monkeypatch.setattr(sys, "stdout", Screen())
    monkeypatch.setattr(status.click, "echo_via_pager", lambda lines: paged.extend(lines))
    monkeypatch.setattr(status, "list_robots", lambda client: fleet(60))
    code = status._show_fleet(Coordinator(), (), as_json=False, every=True, watch=False)
    assert code == 0
    printed = paged if terminal else sys.stdout.getvalue().splitlines()
    assert len(printed) == 61


CELL = DeploymentInstance("cell1", ["arm0", "arm1"], release="pick@8", state="confirmed")
DEPLOYMENTS = [
    DeploymentInfo("pick", "release", "1 confirmed", scope="each:cell", instances=[CELL]),
    DeploymentInfo(
        "arm0/own", "local", "running", instances=[DeploymentInstance("arm0", ["arm0"])]
    ),
]


def test_json_has_what_each_machine_runs_by_instance():
    first, second, third = robots.as_plain(fleet(3), DEPLOYMENTS)
    cell = {"deployment": "pick", "instance": "cell1/pick", "source": "release",
            "release": "pick@8", "state": "confirmed"}  # fmt: skip
    assert [each["instance"] for each in first["deployments"]] == ["cell1/pick", "arm0/own"]
    assert second["deployments"] == [cell]
    assert third["deployments"] == []


def test_deployments_are_below_the_machines_also_while_they_are_watched():
    lines = status.fleet_lines(fleet(51), DEPLOYMENTS, every=False)
    assert lines[-3].split()[0] == "Deployment"
    assert lines[-2].split()[:4] == ["pick", "release", "each:cell", "1"]
