"""Nothing is changed without a confirmed dialog, and nothing but visible text is shown."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.events import Key
from textual.widgets import Input

from dorad.control import messages as m
from dorad.logrecord import LogRecord
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.view.robotlines import inspector_lines
from dorafleet.console.widgets.confirm import Choose, Confirm
from dorafleet.console.widgets.paint import VisibleText
from dorafleet.rollout.messages import ReleaseInfo, RolloutRobot, RolloutSummary, RolloutUpdate

from .driving import Driven, console
from .fakefleet import FakeFleet, edge, node

HOSTILE = "\x1b]0;evil\x07 [red]x[/red] \u202eback\x9b31m\x00"
KEYS = (
    *"abcdefghijklmnoprstuvwxyzARS0123456789/:|-?<>!=~ ",
    *("enter", "escape", "tab", "shift+tab", "up", "down", "left", "right", "home", "end"),
    *("pageup", "pagedown", "ctrl+p", "ctrl+b", "backspace", "delete", "f1", "ctrl+a"),
)


def _confirmed(driven: Driven) -> bool:
    """Return True if a confirmation is open, and the cursor on its other button or its number."""
    screen = driven.app.screen
    focused = screen.focused
    return isinstance(screen, Confirm) and focused is not None and focused.id in ("go", "number")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
async def test_no_sequence_of_keys_changes_anything_without_a_confirmed_dialog(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = FakeFleet(8, nodes=3)
    for number in range(1, 7):
        fleet.fail(f"arm{number:03}")
    chance = random.Random(seed)
    async with console(tmp_path, fleet, shows="8 of 8") as driven:
        monkeypatch.setattr(driven.app, "pipe", lambda *_: None)
        allowed = 0
        for _ in range(50):
            key = chance.choice(KEYS)
            if _confirmed(driven) and key in ("enter", " "):
                allowed += 1
            await driven.press("space" if key == " " else key)
            if not driven.app.is_running:
                break
        await driven.pilot.pause(0.05)
        assert len(fleet.changes) <= allowed * 8


async def _act(driven: Driven, key: str) -> None:
    await driven.press("a")
    await driven.until(lambda: isinstance(driven.app.screen, Choose))
    await _choose(driven, key)


async def _choose(driven: Driven, key: str) -> None:
    await driven.press(key)
    await driven.until(lambda: isinstance(driven.app.screen, Confirm))
    await _focused(driven, "cancel")
    dialog = driven.app.screen
    assert isinstance(dialog, Confirm)
    await driven.until(lambda: dialog.readable)


async def _focused(driven: Driven, id_: str) -> None:
    """Wait until a button of the dialog has the focus, which it gets after it was asked for."""
    await driven.until(lambda: driven.app.screen.query_one(f"#{id_}").has_focus)


async def _confirm(driven: Driven) -> None:
    await driven.press("right")
    await _focused(driven, "go")
    await driven.press("enter")


async def test_an_action_is_done_once_it_is_confirmed(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002", cause="node-restarts")
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        await _act(driven, "r")
        text = driven.text
        assert "Restart the node?" in text
        assert "$ dora node restart gripper -d arm002/pick" in text
        await driven.press("enter")
        await driven.until("nothing was changed")
        assert fleet.changes == []
        await _act(driven, "r")
        await _confirm(driven)
        await driven.until("Restart the node: done")
        assert fleet.changes == [
            ("node.restart", m.NodeStop(node="gripper", dataflow="arm002/pick")),
        ]


async def test_keys_that_are_typed_before_a_question_is_shown_do_not_answer_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dorafleet.console.actions.READ_S", 3600.0)  # on a busy machine, too
    fleet = FakeFleet(3)
    fleet.fail("arm002", cause="node-restarts")
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        for key in ("a", "r", "right", "enter"):
            driven.app.post_message(Key(key, key if len(key) == 1 else None))
        await driven.until("typed before this was shown")
        assert isinstance(driven.app.screen, Confirm) and fleet.changes == []
        await driven.press("escape")
        await driven.until("nothing was changed")


async def test_for_several_robots_their_number_must_be_typed(tmp_path: Path) -> None:
    fleet = FakeFleet(5)
    async with console(tmp_path, fleet, shows="5 of 5") as driven:
        await driven.press("space", "space", "space")
        await _act(driven, "R")
        assert "Type 3 to confirm" in driven.text
        go, number = driven.app.screen.query_one("#go"), driven.app.screen.query_one(Input)
        go.focus()
        await driven.until(lambda: go.has_focus)
        await driven.press("enter")
        await driven.until(lambda: number.has_focus)
        assert fleet.changes == []
        await driven.type("2")
        await driven.press("enter")
        await driven.until("Type 3 to confirm, not 2:")
        assert fleet.changes == []
        number.value = ""
        await driven.type("3")
        await driven.until(lambda: number.value == "3")
        await driven.press("enter")
        await driven.until("Restart the dataflow: done, 3 times")
        assert [method for method, _ in fleet.changes] == ["dataflow.restart"] * 3


async def test_of_a_robot_with_several_dataflows_the_operator_chooses_one(tmp_path: Path) -> None:
    fleet = FakeFleet(2)
    fleet.put("arm001", dataflow="battery, nav, pick")
    fleet.put("arm002", dataflow="battery, pick")
    async with console(tmp_path, fleet, shows="2 of 2") as driven:
        await driven.press("a", "R")
        await driven.until("Which dataflow of arm001?")
        assert "2   nav" in driven.text and fleet.changes == []
        await _choose(driven, "2")
        assert "$ dora restart arm001/nav" in driven.text
        await driven.press("right", "enter")
        await driven.until("Restart the dataflow: done")
        assert fleet.changes == [("dataflow.restart", m.Stop(dataflow="arm001/nav"))]

        await driven.press("space", "space")
        await driven.press("a", "R")
        await driven.until("Which dataflow of these 2 robots?")
        assert "nav" not in driven.text.partition("Which dataflow")[2].partition("esc")[0]
        await _choose(driven, "2")
        assert "arm002: pick" in driven.text
        await driven.press("escape")
        await driven.until("nothing was changed")
        await driven.press("escape")
        assert len(fleet.changes) == 1

        await driven.press("home", "g")
        await driven.until("Which dataflow of arm001?")
        await driven.press("escape")
        await driven.until("2 of 2")
        await driven.press("g", "3")
        await driven.until("Fleet > arm001/pick")


async def test_what_only_rollouts_start_and_stop_is_not_offered(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.put("arm001", dataflow="battery, pick", release="battery@1, pick@3")
    fleet.put("arm002", dataflow="battery, convoy, pick", release="battery@1, pick@3")
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        await driven.press("a")
        await driven.until("only rollouts start and stop what comes from a release")
        await driven.press("down")
        await driven.press("a", "R")
        text = await driven.until("Which dataflow of arm002?")
        assert "Only rollouts start and stop battery, pick." in " ".join(
            text.replace("│", "").split()
        )
        await _choose(driven, "1")
        assert "$ dora restart arm002/convoy" in driven.text
        await driven.press("escape")
        await driven.until("nothing was changed")
        driven.app.open_about("graph", ["arm001/pick", "node01"])
        await driven.until("> arm001/pick")
        await driven.press("a")
        await driven.until("Restart the node")
        assert "the dataflow" not in driven.text


async def test_a_node_that_has_ended_may_be_restarted_but_not_stopped(tmp_path: Path) -> None:
    fleet = FakeFleet(2)
    fleet.fail("arm001")
    top = m.Top(at=0.0, window=3.0, nodes=[node("arm001", "gripper", status="failed")], edges=[])
    fleet.top = lambda: top
    async with console(tmp_path, fleet) as driven:
        text = await driven.until("NEEDS YOU  1 new")
        assert "l logs  a restart" in text
        await driven.press("a")
        await driven.until("Restart the node")
        assert "Stop the node" not in driven.text
        await driven.press("escape")
        driven.app.open_about("robot", ["arm001"])
        await driven.until("1 of 1 nodes")
        await driven.press("a")
        await driven.until("Restart the node")
        assert "Stop the node" not in driven.text


async def test_the_alert_of_a_robot_is_acknowledged_in_its_row(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002")
    async with console(tmp_path, fleet, shows="NEEDS YOU  1 new") as driven:
        await _act(driven, "k")
        await driven.press("right", "enter")
        await driven.until("done")
        (alert,) = fleet.book.alerts()
        assert alert.acked_by


async def test_the_alert_of_a_robot_is_acknowledged_on_its_screen_also_without_any_node(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002")
    fleet.top = lambda: m.Top(at=0.0, window=1.0, nodes=[], edges=[])
    async with console(tmp_path, fleet, start="robot arm002", shows="no node") as driven:
        await _act(driven, "k")
        assert "arm002: node gripper failed (signal 11)" in driven.text
        await driven.press("right", "enter")
        await driven.until("done")
        (alert,) = fleet.book.alerts()
        assert alert.acked_by


async def test_an_alert_is_acknowledged_with_the_name_of_the_operator(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002")
    async with console(tmp_path, fleet, start="alerts", shows="1 of 1, 1 new") as driven:
        await _act(driven, "k")
        await _confirm(driven)
        await driven.until("ack ana")


@pytest.mark.parametrize("readonly", [True, False])
async def test_a_viewer_and_a_readonly_console_are_offered_no_change(
    tmp_path: Path, readonly: bool
) -> None:
    fleet = FakeFleet(3, role="admin" if readonly else "viewer")
    fleet.fail("arm002")
    async with console(tmp_path, fleet, options=ConsoleOptions(readonly=readonly)) as driven:
        text = await driven.until("3 of 3")
        assert "a actions" not in text.splitlines()[-1]
        assert ("live  readonly" if readonly else "live  viewer") in text
        await driven.press("a")
        why = (
            "started with --readonly" if readonly else "your role here is viewer; it takes operator"
        )
        await driven.until(why)
        assert not isinstance(driven.app.screen, Choose)


async def test_each_robot_for_which_an_action_fails_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(5)
    fleet.refuses = {"arm002/pick": "pick is not running", "arm004/pick": "pick is not running"}
    async with console(tmp_path, fleet, shows="5 of 5") as driven:
        await driven.press("space", "space", "space", "space")
        await _act(driven, "S")
        await driven.type("4")
        await driven.until(lambda: driven.app.screen.query_one(Input).value == "4")
        await driven.press("enter")
        await driven.until("Stop the dataflow: 2 of 4 done; arm002: pick, arm004: pick: pick is")
        assert len(fleet.changes) == 4


async def test_a_server_refuses_what_a_role_may_not_do(tmp_path: Path) -> None:
    fleet = FakeFleet(1, role="viewer")
    async with console(tmp_path, fleet, shows="1 of 1") as driven:
        with pytest.raises(Exception, match="needs the role operator"):
            await driven.app.server.call(m.NODE_RESTART, m.NodeStop(node="x"))
    assert fleet.changes == []


async def test_hostile_texts_of_robots_are_shown_as_text(tmp_path: Path) -> None:
    fleet = FakeFleet(2)
    finding = m.Finding(
        cause=HOSTILE, subject=HOSTILE, text=HOSTILE, severity="fail", since=1.0, event=True
    )
    finding.since = -1e300
    fleet.put(
        "arm001",
        state="fail",
        why=HOSTILE,
        dataflow=HOSTILE,
        version=HOSTILE,
        labels={HOSTILE: HOSTILE},
        findings=[finding],
    )
    fleet.judge()
    fleet.lines = [LogRecord(timestamp=1e300, level="info", node=HOSTILE, message=HOSTILE)]
    async with console(tmp_path, fleet, size=(160, 45)) as driven:
        for keys in ((), ("enter",), ("escape", "l")):
            await driven.press(*keys)
            await driven.until(lambda: "x1b" in driven.text and "[red]x" in driven.text)
            whole = "".join(
                segment.text
                for strip in driven.app.screen._compositor.render_strips()
                for segment in strip
            )
            assert whole.isprintable()


async def test_a_time_that_no_calendar_has_does_not_end_the_console(tmp_path: Path) -> None:
    fleet = FakeFleet(2)
    finding = m.Finding(
        cause="c", subject="s", text="broken", severity="fail", since=-1e300, event=True
    )
    fleet.put("arm001", state="fail", why="broken", since=-1e300, findings=[finding])
    fleet.judge()
    async with console(tmp_path, fleet, start="alerts") as driven:
        await driven.until("since ?")
    row = m.FleetRow(robot="x", since=1e300)
    assert any(text == " since ?" for line in inspector_lines(row, 0.0) for text, _ in line)


@pytest.mark.long
async def test_hostile_names_are_text_on_every_screen_and_in_dialogs(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    bad = HOSTILE.replace("/", "|")
    broken = edge("arm001", f"{bad}/{bad}", f"{bad}/x", broken=True, dataflow=bad)
    bad_node = node("arm001", bad, dataflow=bad, dataflow_name=bad, status="failed")
    top = m.Top(at=0.0, window=1.0, nodes=[bad_node], edges=[broken])
    fleet.top = lambda: top
    fleet.put("arm001", dataflow=bad, why=bad, state="warn")
    finding = m.Finding(
        cause=bad, subject=bad, text=bad, severity="fail", since=1.0, dataflow=bad, node=bad,
        event=True,
    )  # fmt: skip
    fleet.put("arm001", dataflow=bad, state="fail", why=bad, findings=[finding])
    fleet.judge()
    robot = RolloutRobot(
        rollout=1, robot=bad, batch=0, state="stuck", reachable=True, reason=bad, leases=[bad]
    )
    fleet.update = RolloutUpdate(
        rollouts=[
            RolloutSummary(
                rollout=1, dataflow=bad, release=bad, name=bad, phase="rolling", since=1.0, by=bad,
                created=1.0, size=1, state=bad, reason=bad, counts={"stuck": 1}, waiting={bad: 1},
            )
        ],
        robots=[robot],
    )  # fmt: skip
    fleet.messages = [("camera/image", pa.array([HOSTILE]), {HOSTILE: HOSTILE})]
    places = (
        ("graph", [bad]),
        ("top", []),
        ("alerts", []),
        ("rollout", []),
        ("topics", [bad]),
        ("topic", [bad, "camera/image", "echo"]),
        ("params", [bad, "planner"]),
        ("dataflows", []),
        ("releases", []),
        ("plan", [bad]),
    )
    fleet.params = {bad: [m.Param(key=bad, value=bad, declared=True, type=bad, description=bad)]}
    fleet.dataflows = [
        m.DataflowInfo(
            uuid=bad, name=bad, status="failed", nodes=1, cpu=0.0, memory=0, started_at=-1e300,
            ended_at=1e300, machines=[bad],
        )
    ]  # fmt: skip
    fleet.releases = [
        ReleaseInfo(
            id=bad, name=bad, sequence=1, created=1.0, put_at=-1e300, by=bad, files=1, size=1,
            targets=[], nodes=[bad],
        )
    ]  # fmt: skip
    async with console(tmp_path, fleet, size=(160, 45), shows="1 of 1") as driven:
        for place, words in places:
            driven.app.open_about(place, words)
            await driven.until(lambda: "x1b]0;evil" in driven.text and _is_clean(driven))
        driven.app.open_about("alerts", [])
        await driven.until("1 of 1, 1 new")
        await _act(driven, "k")
        assert "x1b]0;evil" in driven.text and _is_clean(driven)
        driven.app.copy_to_clipboard(HOSTILE)


async def test_names_of_any_length_and_width_stay_in_their_place(tmp_path: Path) -> None:
    text = "\x1b[2J\u202e\u6f22a\u200b\u0301\ufe0f\U0001f468\u200d" * 1000
    fleet = FakeFleet(1, nodes=1)
    finding = m.Finding(
        cause="c", subject="s", text=text, severity="fail", since=1.0, event=True, node=text
    )
    fleet.put(text, state="fail", why=text, release=text, version=text, findings=[finding])
    fleet.judge()
    (alert,) = fleet.book.alerts()
    fleet.book.ack(alert.id, text, 1.0)
    fleet.lines = [
        LogRecord(timestamp=1.0, level="info", node=text, machine=text, message=text, target=text)
    ]
    async with console(tmp_path, fleet, size=(160, 45), shows="2 of 2") as driven:
        for keys, shown in (
            ("", "FAIL 1"),
            ("\r", "FAIL"),
            ("\x1bl", "1 line"),
            (":alerts\r", "ack"),
        ):
            await driven.type(keys)
            lines = (await driven.until(shown)).splitlines()
            assert _is_clean(driven)
            assert all(cell_len(line) <= 160 for line in lines)


def _is_clean(driven: Driven) -> bool:
    strips = driven.app.screen._compositor.render_strips()
    return all(segment.text.isprintable() for strip in strips for segment in strip)


def test_the_filter_of_lines_replaces_control_characters_of_every_widget() -> None:
    segments = [Segment("fine"), Segment(f"a{HOSTILE}b")]
    found = VisibleText("…").apply(segments, Color(0, 0, 0))
    assert found[0] is segments[0]
    assert found[1].text.isprintable()
    assert "\\x1b]0;evil" in found[1].text


async def test_alerts_of_others_are_taken_over_together_with_new_ones(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm001")
    fleet.fail("arm002")
    first, second = fleet.book.alerts()
    fleet.book.ack(first.id, "bob", 1.0)
    async with console(tmp_path, fleet, start="alerts", shows="2 of 2, 1 new") as driven:
        await driven.press("space", "space", "a", "k")
        await driven.until("Type 2 to confirm")
        await driven.press("2", "enter")
        await driven.until("2 of 2, 0 new")
        assert {params.id for _, params in fleet.changes} == {first.id, second.id}
        assert {alert.acked_by for alert in fleet.book.alerts()} == {"ana"}
        await driven.press("a")
        await driven.until("Take the acknowledgement back")
