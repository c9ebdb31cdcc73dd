"""What `dorafleet doctor` checks, as functions of what the coordinator knows."""

import json

import pytest

from dorad.control.messages import NodeInfo, NodeMetrics
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import ReleaseState
from dorafleet.cli import checks, robots
from dorafleet.cli.main import run_command
from dorafleet.coordinator.accessmessages import AuthorityStatus, Grant
from dorafleet.coordinator.messages import AlertReceiver, AlertReceivers, Robot
from tests.fleet.fakerobot import FakeRobot

NOW = 1_000_000_000.0
DAY_S = 86400.0


def robot(**more):
    given = {"id": "arm1", "host": "10.0.0.1", "labels": {}, "state": "connected"}
    given["findings"] = []
    return Robot(**{**given, "age": 2.0, "version": "1.0", **more})


def share(status="running", **more):
    return ShareState(
        dataflow="demo", uuid="u", epoch=1, generation=3, status=status, since=NOW, **more
    )


def bad(found):
    return [(each.level, each.name, each.text) for each in found if each.level != "PASS"]


def test_the_dataflow_of_a_release_is_listed_with_what_runs_of_it():
    state = ReleaseState(
        dataflow="arm", epoch=1, generation=1, phase="confirmed", since=NOW, release="b" * 64,
        confirmed="a" * 64, running="a" * 64,
    )  # fmt: skip
    assert robots.as_row(robot(releases=[state]))[6] == "arm confirmed (aaaaaaaaaaaa)"


def test_a_healthy_robot_has_no_line():
    found = [*checks.check_robots([robot(skew=0.2)])]
    assert [(each.level, each.text) for each in found] == [("PASS", "1 of 1 connected")]


def test_a_robot_of_an_earlier_coordinator_is_not_said_to_be_well():
    old = robot(findings=None)
    assert not robots.is_well(old)
    assert "earlier version" in robots.as_row(old)[7]
    (check,) = [each for each in checks.check_robots([old]) if each.name == "arm1"]
    assert check.level == "FAIL"


def test_versions_that_differ_are_named():
    others = [robot(version=""), robot(), robot(id="arm2", version="0.9")]
    assert bad(checks.check_versions(others, "1.0")) == [
        ("WARN", "arm2", "has 0.9, the coordinator 1.0")
    ]
    assert [each.level for each in checks.check_versions([robot()], "1.0")] == ["PASS"]


def test_nodes_that_wait_for_a_machine_are_named():
    info = NodeInfo(
        dataflow="u",
        dataflow_name="demo",
        node="eye",
        status="pending",
        pid=None,
        restarts=0,
        metrics=NodeMetrics(),
        reason="no machine has gpu=yes",
    )
    assert bad(checks.check_nodes([info])) == [
        ("WARN", "demo/eye", "pending: no machine has gpu=yes")
    ]


def test_certificates_that_end_are_named():
    grants = [
        Grant(kind="robot", name="arm1", role=None, expires=NOW + 300 * DAY_S),
        Grant(kind="robot", name="arm2", role=None, expires=NOW + 3 * DAY_S),
        Grant(kind="operator", name="ann", role="viewer", expires=NOW - 2 * DAY_S),
        Grant(kind="token", name="old", role="viewer", expires=NOW - DAY_S, revoked=True),
        Grant(kind="robot", name="arm3", role=None, expires=NOW + DAY_S, revoked=True),
        Grant(kind="robot", name="gone", role=None, expires=NOW + DAY_S, revoked=True),
    ]
    known = [robot(), robot(id="arm2"), robot(id="arm3")]
    assert bad(checks.check_grants(grants, known, NOW)) == [
        ("WARN", "robot arm2", "ends in 3d"),
        ("FAIL", "operator ann", "ended 2d ago"),
        ("WARN", "robot arm3", "is revoked"),
    ]


def test_units_that_a_reboot_ends_are_found_over_ssh(fleet, capsys):
    fleet.add("arm1", FakeRobot(version="1.0.0", service="active", enabled=True))
    fleet.add("arm2", FakeRobot(version="1.0.0", service="active", enabled=False))
    fleet.add_unreachable("arm3")
    assert run_command(["doctor", str(fleet.file()), "--json", "--port", "1"]) == 1
    found = json.loads(capsys.readouterr().out)["checks"]
    texts = [(each["level"], each["name"], each["text"]) for each in found]
    assert texts[0][:2] == ("FAIL", "coordinator")
    assert ("FAIL", "arm2", "dorad.service is disabled, so a reboot ends it") in texts
    (away,) = [each for each in texts if each[1] == "arm3"]
    assert away[0] == "WARN"
    assert "over SSH" in away[2]


def test_alerts_that_do_not_arrive_are_named():
    given = {"name": "webhook", "place": "https://chat.example"}
    assert (
        bad(checks.check_receivers(AlertReceivers(receivers=[AlertReceiver(**given)]), NOW)) == []
    )
    failing = AlertReceiver(
        **given, waiting=2, failing_since=NOW - 720.0, error="it answers 500 no"
    )
    assert bad(checks.check_receivers(AlertReceivers(receivers=[failing]), NOW)) == [
        (
            "FAIL",
            "alerts by webhook",
            "https://chat.example has not taken any for 12m: it answers 500 no; 2 wait",
        )
    ]
    dropped = AlertReceiver(**given, dropped=3, dropped_at=NOW - 60.0, why="more than 50 waited")
    assert bad(checks.check_receivers(AlertReceivers(receivers=[dropped]), NOW)) == [
        (
            "WARN",
            "alerts by webhook",
            "3 were dropped, the last one 1m ago: more than 50 waited",
        )
    ]
    long_ago = AlertReceiver(**given, dropped=3, dropped_at=NOW - 2 * DAY_S, why="x")
    assert bad(checks.check_receivers(AlertReceivers(receivers=[long_ago]), NOW)) == []
    (full,) = bad(
        checks.check_receivers(
            AlertReceivers(receivers=[AlertReceiver(**given, stored=False)]), NOW
        )
    )
    assert full[0] == "FAIL"
    assert "not stored" in full[2]
    (old,) = bad(
        checks.check_receivers(AlertReceivers(receivers=[], problem="line 3: no such key"), NOW)
    )
    assert old == ("FAIL", "alerts", "the old configuration is in use: line 3: no such key")


def test_a_large_generation_shows_its_last_digits():
    assert "demo running (3)" in robots.as_row(robot(shares=[share()]))[6]
    large = share()
    large.generation = 1_796_042_431_705
    assert "demo running (…431705)" in robots.as_row(robot(shares=[large]))[6]


def test_questions_after_a_restore_fail_with_the_commands_that_answer_them():
    asked = ["the store was restored; `dorafleet audit acknowledge`"]
    (found,) = checks.check_questions(asked)
    assert (found.level, found.name, found.text) == ("FAIL", "question", "the store was restored")
    assert found.hint == "`dorafleet audit acknowledge`"


@pytest.mark.parametrize(
    ("more", "level", "words"),
    [
        ({}, "WARN", "all of 3 robots have a certificate of it"),
        ({"old": ["arm1"]}, "WARN", "arm1 have no certificate of it yet"),
        ({"old": ["arm1"], "ends": 6 * DAY_S}, "FAIL", "arm1 have no certificate of it yet"),
        ({"operators": ["ann"]}, "WARN", "operator ann have no certificate of it yet"),
        ({"old": ["arm1"], "finished": 1.0}, "FAIL", "arm1 was away during the hand-over"),
        ({"finished": 1.0}, None, ""),
        ({"ends": None}, None, ""),
    ],
)
def test_a_hand_over_is_shown_until_all_have_the_new_authority(more, level, words):
    given = {
        "fingerprint": "a", "previous": "a", "next": "b", "begun": 0.0, "ends": 30 * DAY_S,
        "finished": None, "waiting": [], "old": [], "operators": [],
    }  # fmt: skip
    found = list(checks.check_authority(AuthorityStatus(**{**given, **more}), 3, 0.0))
    assert [each.level for each in found] == ([] if level is None else [level])
    assert all(words in each.text and each.hint for each in found)
