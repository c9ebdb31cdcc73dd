"""The screen Audit: who has changed what."""

import time
from pathlib import Path
from typing import Any

import pytest

from dorafleet.console.screens import audit
from dorafleet.console.view import auditrows
from dorafleet.console.widgets.grid import Grid

from .driving import console
from .fakefleet import FakeFleet

START = "audit"


def change(action: str, peer: str = "ana", **details: Any) -> dict[str, Any]:
    given = {"time": time.time(), "peer": peer, "client": "dorafleet console", "action": action}
    return {**given, **details}


async def test_changes_are_listed_with_their_authors_the_newest_first_and_new_ones_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "EVERY_S", 0.05)
    fleet = FakeFleet(1)
    release = "0123456789ab" + "c" * 52
    fleet.audit = [
        change("rollout.start", "ben", rollout=6, release=release),
        {"time": time.time(), "client": "coordinator", "action": "rollout.end", "rollout": 6},
    ]
    async with console(tmp_path, fleet, start=START, shows="1 of 2 changes") as driven:
        await driven.press("o")
        text = await driven.until("2 of 2 changes")
        assert text.index("coordinator") < text.index("ben ")
        await driven.press("down")
        text = await driven.until("1  with dorafleet console")
        assert "rollout.start 6: release 0123456789ab\n" in text
        fleet.audit.append(change("node.restart", dataflow="arm1/pick", node="logger"))
        text = await driven.until("3 of 3 changes")
        assert driven.app.screen.query_one(Grid).cursor == "1", "it stays on its change"
        # Nothing is read twice.
        assert [each.after for each in fleet.audit_reads[:2]] == [0, 0]
        await driven.until(lambda: fleet.audit_reads[-1].after == 3)
        await driven.type("/who=ana time~:\r")
        text = await driven.until("1 of 3 changes")
        assert "node.restart arm1/pick/logger" in text
        assert fleet.changes == []


def test_a_changed_parameter_is_shown_with_its_old_and_its_new_value() -> None:
    ref = {"dataflow": "arm1/pick", "node": "planner", "key": "mode"}
    for values, text in (
        ({"old": '"slow"', "new": '"fast"'}, ': "slow" -> "fast"'),
        ({"new": "2.5"}, ": unset -> 2.5"),
        ({"old": "2.5"}, ": 2.5 -> unset"),
        ({}, ""),
    ):
        record = {"action": "param.set", **ref, **values}
        assert auditrows.change(record) == f"param.set arm1/pick/planner/mode{text}"


def test_changes_are_told_in_a_few_words() -> None:
    strategy = {"canary": 1, "batches": [], "auto_promote": True, "rules": {"min_rate": 0.5}}
    for record, words in (
        (
            change("rollout.step", rollout=2, what="order switch", robots=["arm1", "arm3"]),
            "rollout.step 2: order switch, arm1, arm3",
        ),
        (change("rollout.pause", rollout=2, reason=""), "rollout.pause 2"),
        (
            change("rollout.start", rollout=3, name="pick@2", robots=10, strategy=strategy),
            (
                "rollout.start 3: name pick@2, robots 10, "
                "strategy canary 1, auto_promote, rules min_rate 0.5"
            ),
        ),
        (change("alerts.ack", alert="arm1:x", undo=False), "alerts.ack: alert arm1:x"),
        (
            change("desired.set", robot="arm1", dataflow="pick", content={"release": "pick-1"}),
            "desired.set arm1/pick: pick-1, disabled, generation None",
        ),
    ):
        assert auditrows.change(record) == words


async def test_of_a_long_audit_the_end_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_RECORDS", 20)
    fleet = FakeFleet(1)
    fleet.audit = [change("alerts.ack", alert=f"number {number}") for number in range(100)]
    async with console(tmp_path, fleet, start=START) as driven:
        text = await driven.until("20 of 20 changes")
        assert "alert number 99" in text and "y copies the command that prints older ones" in text
        assert [(each.after, each.limit) for each in fleet.audit_reads[:2]] == [(0, 1), (80, 20)]


async def test_after_a_restore_the_audit_that_there_is_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "EVERY_S", 0.05)
    fleet = FakeFleet(1)
    fleet.audit = [change("alerts.ack", alert=f"number {number}") for number in range(5)]
    async with console(tmp_path, fleet, start=START, shows="5 of 5 changes") as driven:
        fleet.audit = [*fleet.audit[:2], change("node.restart", node="logger")]
        text = await driven.until("3 of 3 changes")
        assert "node.restart logger" in text and "number 4" not in text


async def test_a_server_without_an_audit_says_so_and_damaged_records_hide_nothing(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    fleet.without = ("audit.read",)
    async with console(tmp_path, fleet, start=START) as driven:
        await driven.until("this server keeps no audit: a coordinator does")
    fleet = FakeFleet(1)
    fleet.audit_head = "soon"
    folder = tmp_path / "nonsense"
    folder.mkdir()
    async with console(folder, fleet, start=START) as driven:
        await driven.until("`soon` is not a head of an audit")
    fleet = FakeFleet(1)
    fleet.audit = [
        {"time": "soon", "action": ["\x1b[31m"]},
        change("a\u202eb", peer="[red]eve"),
        change("desired.set", robot="arm1", content="none"),
    ]
    folder = tmp_path / "second"
    folder.mkdir()
    async with console(folder, fleet, start=START) as driven:
        await driven.press("o")
        text = await driven.until("3 of 3 changes")
        assert "[red]eve" in text and "a\\u202eb" in text and "\x1b" not in text
