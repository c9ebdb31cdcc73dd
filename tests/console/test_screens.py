"""Screens against a server of 500 robots with 40 nodes each, over a real socket."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from textual.events import Key

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.console.widgets.confirm import Dialog
from dorafleet.console.widgets.grid import Grid
from dorafleet.console.widgets.lines import LogView
from dorafleet.coordinator.messages import AlertReceiver, AlertReceivers

from .driving import console
from .fakefleet import FakeFleet, edge, line, node


async def test_the_fleet_shows_the_worst_robots_first_and_how_many_there_are(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet()
    fleet.fail("arm017")
    fleet.put("arm101", state="unreach", why="no contact, was well", known=False)
    async with console(tmp_path, fleet, shows="500 of 500") as driven:
        await driven.until("NEEDS YOU  1 new")
        # On a busy machine a console without news for three seconds says so instead.
        text = await driven.until("FAIL 1", "UNREACH 1", "OK 498", "gripper failed (signal 11)")
        rows = [row for row in text.splitlines() if "arm" in row]
        assert "arm017" in rows[0] and "gripper failed (signal 11)" in rows[0]
        assert "FAIL" in rows[1] and "39/40" in rows[1]
        assert re.search(r"\b\dm\d\ds\b", rows[1]), "since when"
        assert "UNREACH" in rows[2] and "arm101" in rows[2] and "-/40" in rows[2]


async def test_ten_robots_are_in_the_order_of_their_numbers_and_all_is_well_if_all_are(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(0)
    for number in (10, 9, 2, 1):
        fleet.put(f"arm{number}", dataflow="battery, nav, pick", release="battery@1, pick@3")
    async with console(tmp_path, fleet) as driven:
        text = await driven.until("all is well")
        assert re.findall(r"OK +(arm\d+)", text) == ["arm1", "arm2", "arm9", "arm10"]
        assert "3 flows" in text and "2 releases" in text
        fleet.put("arm9", release="battery@1, pick@4")  # a rollout has reached it
        text = await driven.until("pick@4")
        assert text.count("pick@3") == 3 and "2 releases" not in text
        fleet.put("arm2", state="warn", why="its clock is 26 h behind")  # no alert yet
        text = await driven.until("NEEDS YOU  no alert")
        assert "all is well" not in text


async def test_alerts_that_do_not_reach_people_are_said_beside_the_robots(tmp_path: Path) -> None:
    fleet = FakeFleet(5)
    since = time.time() - 130.0
    failing = AlertReceiver(
        name="mail", place="mail.example:25", failing_since=since, error="it answers 450"
    )
    fleet.receivers = AlertReceivers(receivers=[failing])
    async with console(tmp_path, fleet) as driven:
        await driven.until("NEEDS YOU  0 new  alerts by mail: mail.example:25 has not taken any")
        fleet.receivers = AlertReceivers(receivers=[], problem="line 3: no such key")
        await driven.until("alerts: the old configuration is in use: line 3")
        fleet.receivers = AlertReceivers(receivers=[])
        await driven.until("NEEDS YOU  all is well")


async def test_the_key_of_an_alert_opens_the_logs_of_its_node(tmp_path: Path) -> None:
    fleet = FakeFleet(5)
    fleet.fail("arm003")
    fleet.lines = [line("all fine"), line("segfault soon", node="gripper")]
    async with console(tmp_path, fleet, shows="NEEDS YOU  1 new") as driven:
        await driven.press("shift+tab")
        await driven.until(lambda: driven.app.screen.query_one("#needs", Grid).has_focus)
        await driven.press("l")
        text = await driven.until("segfault soon")
        assert "Logs > arm003/pick > gripper" in text
        assert "all fine" not in text


async def test_forty_robots_with_one_cause_are_one_line(tmp_path: Path) -> None:
    fleet = FakeFleet(60)
    for number in range(1, 41):
        fleet.fail(f"arm{number:03}")
    async with console(tmp_path, fleet) as driven:
        text = await driven.until("40 robots", "NEEDS YOU  1 new")
        assert text.count("40 robots") == 1
        await driven.press("shift+tab", "enter")
        await driven.until("40 of 60")
        driven.app.go_to("alerts")
        await driven.until("Alerts")
        await driven.press("enter")
        await driven.until("40 of 60")


async def test_the_failed_node_of_a_robot_is_on_top_and_its_key_opens_its_logs(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1, nodes=12)
    why = "ModuleNotFoundError: No module named 'cv2'"
    fleet.fail("arm001", "node09", error=why)
    names = [f"node{n:02}" for n in range(12)]
    nodes = [
        node("arm001", name, status="failed" if name == "node09" else "running") for name in names
    ]
    fleet.top = lambda: m.Top(at=time.time(), window=3.0, nodes=nodes, edges=[])
    fleet.lines = [line("all fine", node="node00"), line("no camera", node="node09")]
    async with console(tmp_path, fleet, size=(80, 24)) as driven:
        in_why, in_alert = "node09: ModuleNotFoundE", "node09 failed: ModuleNotFoundError: No mo"
        await driven.until("FAIL 1", in_why, in_alert)
        await driven.press("enter")
        await driven.until("12 of 12 nodes", "order: worst", "> node09", f"node09 failed: {why}")
        await driven.press("l")
        text = await driven.until("no camera")
        assert "all fine" not in text
        await driven.press("escape", "shift+tab")
        await driven.until(f"> x node09 failed: {why}")
        await driven.press("enter")
        await driven.until("Logs > arm001/pick > node09")


async def test_an_older_server_without_the_order_worst_sends_rows_by_name(tmp_path: Path) -> None:
    fleet = FakeFleet(1, nodes=2)
    watch = fleet._top

    async def old(call: object, params: m.TopWatch) -> AsyncIterator[m.TopPart]:
        if params.order == "worst":
            raise ControlError("bad-request", "Invalid enum value 'worst'")
        async for part in watch(call, params):  # type: ignore[arg-type]
            yield part

    fleet._top = old  # type: ignore[method-assign,assignment]
    async with console(tmp_path, fleet, start="top") as driven:
        await driven.until("order: name   2 of 2 nodes")


async def test_a_robot_is_enough_to_name_its_dataflow(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.lines = [line("here I am")]
    async with console(tmp_path, fleet, start="logs arm002 camera", shows="here I am") as driven:
        assert "Logs > arm002/pick > camera" in driven.text
        driven.app.go_to("graph arm003")
        await driven.until("Fleet > arm003/pick")


async def test_a_graph_begins_with_the_node_that_it_was_opened_from(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(1, nodes=20), shows="1 of 1") as driven:
        await driven.press("enter")
        await driven.until("20 of 20 nodes")
        await driven.press("down", "down", "down", "g")
        await driven.until("neighbours of node03")


async def test_keys_of_a_graph_are_about_the_node_that_the_drawing_marks(tmp_path: Path) -> None:
    fleet = FakeFleet(1, nodes=4)
    fleet.edges = [edge("arm001", f"node{n:02}/out", f"node{n + 1:02}/in") for n in range(3)]
    async with console(tmp_path, fleet, start="graph pick node00") as driven:
        for keys, node in ((), "node00"), (("down",), "node02"), (("up", "enter"), "node01"):
            await driven.press(*keys)
            await driven.until(f">{node}")
            await driven.press("a")
            await driven.until(f"Actions for pick/{node}")
            await driven.press("escape")


async def test_minus_opens_a_screen_with_the_cursor_on_its_row(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(1, nodes=5), shows="1 of 1") as driven:
        await driven.press("enter")
        await driven.until("5 of 5 nodes")
        await driven.press("down", "down")
        await driven.until("> node02")
        await driven.press("escape")
        await driven.type("-")
        await driven.until("> node02")
        driven.app.go_to("help")
        await driven.until("Help")
        await driven.type("-")
        await driven.until("> node02")
        await driven.press("down")
        await driven.until("> node03")


async def test_minus_goes_to_and_fro_between_two_screens(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(3), start="top", shows="Top") as driven:
        await driven.type("-")
        await driven.until("3 of 3")
        driven.app.go_to("robot arm002")
        await driven.until("Fleet > arm002")
        driven.app.go_to("fleet")
        await driven.until("3 of 3")
        await driven.type("-")
        await driven.until("Fleet > arm002")
        await driven.type("-")
        await driven.until("3 of 3")
        await driven.press("escape")
        await driven.until("Fleet > arm002")
        await driven.type("-")
        await driven.until("3 of 3")


@pytest.mark.long
async def test_enter_opens_the_robot_under_the_cursor_while_robots_reorder(tmp_path: Path) -> None:
    fleet = FakeFleet(100, nodes=2)
    async with console(tmp_path, fleet, shows="100 of 100") as driven:
        grid = driven.app.screen.query_one("#robots", Grid)
        for attempt in range(4):
            await driven.press("down")
            under = grid.cursor
            for number in range(1, 101):
                state = "warn" if (number + attempt) % 3 else "ok"
                fleet.put(f"arm{number:03}", state=state, why=state)
            await driven.pilot.pause(0.02)
            await driven.press("enter")
            await driven.until(f"Fleet > {under}")
            await driven.press("escape")
            await driven.until("100 of 100")


async def test_nodes_and_edges_of_one_robot(tmp_path: Path) -> None:
    fleet = FakeFleet(20)
    async with console(tmp_path, fleet, shows="20 of 20") as driven:
        await driven.press("enter")
        text = await driven.until("40 of 40 nodes, 39 of 39 edges")
        assert "Fleet > arm001" in text
        assert "node00/out -> node01/in" in text
        await driven.enter("slash", "node=node07")
        text = await driven.until("1 of 1 nodes, 2 of 2 edges")


async def test_top_asks_the_server_only_for_what_is_shown(tmp_path: Path) -> None:
    fleet = FakeFleet(500)
    async with console(tmp_path, fleet, shows="500 of 500") as driven:
        await driven.enter("colon", "top")
        await driven.until("200 of 20000 nodes")


@pytest.mark.parametrize("size", [(80, 24), (100, 30)])
async def test_top_over_a_fleet_names_the_robot_of_each_row(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    fleet = FakeFleet(3, nodes=2)
    async with console(tmp_path, fleet, size=size, start="top") as driven:
        text = await driven.until("6 of 6 nodes, 3 of 3 edges")
        rows = [row.split() for row in text.splitlines() if "node00" in row]
        nodes, edges = rows[:3], rows[3:]
        robots = ["arm001", "arm002", "arm003"]
        assert [[word for word in row if word in robots] for row in nodes] == [[r] for r in robots]
        assert [[word for word in row if word in robots] for row in edges] == [[r] for r in robots]
        assert text.count("ROBOT") == 2
        await driven.press("y")
        await driven.until("$ dora top ")
        driven.app.go_to("robot arm002")
        await driven.until("2 of 2 nodes")
        await driven.press("y")
        await driven.until("$ dora top --machine arm002 ")


async def test_logs_follow_until_they_are_scrolled_up(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line(f"line {n}") for n in range(100)]
    async with console(tmp_path, fleet, start="logs pick", shows="line 99") as driven:
        await driven.press("pageup")
        text = await driven.until("scrolled up")
        assert "line 99" not in text
        fleet.lines.append(line("line 100"))
        fleet.bell.ring()
        await driven.until("101 lines")
        assert "line 100" not in driven.text
        await driven.press("end")
        await driven.until("line 100")


async def test_lines_that_came_while_the_link_was_down_are_read_once(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.lines = [line("before")]
    async with console(tmp_path, fleet, start="logs pick", shows="before") as driven:
        await fleet.close()
        await driven.until("STALE")
        fleet.lines.append(line("meanwhile"))
        await fleet.serve(tmp_path / "control.sock")
        await driven.until("meanwhile")
        view = driven.app.screen.query_one(LogView)
        assert len(view.items) == 2


async def test_a_topic_of_numbers_is_a_plot_and_one_of_pixels_a_picture(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.messages = [("camera/image", pa.array([float(n), 2.0]), {}) for n in range(20)]
    async with console(tmp_path, fleet, start="topic pick camera/image") as driven:
        text = await driven.until("[0] 19")
        assert "last 30 s" in text and "[1] 2" in text
        assert fleet.subscriptions[0].max_rate_hz == 10.0
        assert fleet.subscriptions[0].preview is not None
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[:, :30] = 255
        fleet.messages.append(
            (
                "camera/image",
                pa.array(pixels.reshape(-1)),
                {"width": 60, "height": 40, "encoding": "rgb8"},
            )
        )
        fleet.bell.ring()
        await driven.until("▀" * 20)
        await driven.press("v")
        await driven.until("view: echo")


async def test_a_large_dataflow_shows_the_neighbours_of_what_is_worst(tmp_path: Path) -> None:
    fleet = FakeFleet(1, nodes=20)
    fleet.edges = [edge("arm001", f"node{n:02}/out", f"node{n + 1:02}/in") for n in range(19)]
    fleet.edges[7] = edge("arm001", "node07/out", "node08/in", broken=True)
    async with console(tmp_path, fleet, start="graph pick", shows="[ node08] XX broken") as driven:
        await driven.press("enter")
        text = await driven.until("neighbours of node08")
        assert "XX broken" in text and "1 broken" in text
        assert "node07" in text and "node09" in text
        assert "node12" not in text
        await driven.press("o")
        await driven.until("order: all")


async def test_the_server_that_ends_makes_every_screen_stale_and_nothing_is_forgotten(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(50)
    async with console(tmp_path, fleet, shows="50 of 50") as driven:
        await driven.press("down", "down", "space", "slash")
        await driven.type("zone=hall")
        await driven.press("enter")
        text = await driven.until("25 of 50")
        grid = driven.app.screen.query_one("#robots", Grid)
        cursor, marks = grid.cursor, set(grid.marks)
        began = time.monotonic()
        await fleet.close()
        text = await driven.until(lambda: "retry in" in driven.text and "~ STALE" in driven.text)
        assert time.monotonic() - began < 20.0
        assert "not known now" in text
        assert "OK" not in text and "all is well" not in text
        assert "was well" in text
        await fleet.serve(tmp_path / "control.sock")
        await driven.until("live")
        assert (grid.cursor, grid.marks) == (cursor, marks)
        assert "zone=hall" in driven.text


async def test_what_the_server_lacks_is_reported(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    async with console(tmp_path, fleet, start="rollout") as driven:
        await driven.until("dorafleet 1.0 offers no rollouts")
        assert fleet.streams == 0


async def test_the_copied_command_says_what_is_shown(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(4), shows="4 of 4") as driven:
        await driven.press("slash")
        await driven.type("zone=hall !ok")
        await driven.press("enter", "y")
        await driven.until("$ dorafleet robots --order worst --filter 'zone=hall !ok'")
        await driven.press("down")
        await driven.until(lambda: "$ dorafleet robots" not in driven.text)


async def test_a_pipe_gets_all_rows_also_those_that_are_not_visible(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    async with console(tmp_path, FakeFleet(200), shows="200 of 200") as driven:
        await driven.press("vertical_line")
        await driven.until("pipe into: less")
        await driven.type(f"cat > {out}\r")  # instead of `less`
        await driven.until(lambda: out.exists() and out.read_text().count("arm") == 200)
        assert "\x1b" not in out.read_text()


async def test_a_terminal_that_is_too_small_says_so_in_one_line(tmp_path: Path) -> None:
    async with console(tmp_path, FakeFleet(5), shows="5 of 5") as driven:
        await driven.pilot.resize_terminal(40, 10)
        text = await driven.until("needs 60x15, has 40x10")
        assert len(text.strip().splitlines()) == 1
        # Nobody sees what a key would do.
        await driven.press("down", "enter", "l", "minus", "question_mark", "space", "a")
        assert driven.app.screen.NAME == "fleet"
        await driven.pilot.resize_terminal(10, 3)
        await driven.pilot.resize_terminal(100, 30)
        await driven.until("5 of 5")
        await driven.until("> + OK      arm001")
        await driven.press("down")
        await driven.until("> + OK      arm002")


async def test_from_140_columns_an_inspector_shows_the_chosen_robot(tmp_path: Path) -> None:
    fleet = FakeFleet(5)
    fleet.fail("arm002")
    async with console(tmp_path, fleet, size=(160, 45)) as driven:
        text = await driven.until("what is wrong")
        assert "zone = yard" in text


async def _repaint_until_it_is_gone(screen: ConsoleScreen) -> None:
    while screen.children:
        screen.repaint()
        await asyncio.sleep(0)


async def test_a_screen_may_be_asked_to_paint_at_any_moment_while_it_comes_and_goes(
    tmp_path: Path,
) -> None:
    async with console(tmp_path, FakeFleet(3), shows="3 of 3") as driven:
        for place in ("robot arm002", "logs pick", "topics pick", "topic pick camera/image"):
            driven.app.go_to(place)
            screen = driven.app.screen
            assert isinstance(screen, ConsoleScreen)
            while not screen.is_mounted:
                screen.repaint()
                await asyncio.sleep(0)
            driven.app.trail.go_back()
            await _repaint_until_it_is_gone(screen)
            await driven.until("3 of 3")
        screen = driven.app.screen
        assert isinstance(screen, ConsoleScreen)
        ending = asyncio.create_task(_repaint_until_it_is_gone(screen))
    await ending


async def test_names_of_robots_are_shown_whole_before_figures(tmp_path: Path) -> None:
    fleet = FakeFleet(0)
    names = [f"warehouse-robot-{number:04}" for number in range(1, 4)]
    for name in names:
        fleet.put(name)
    async with console(tmp_path, fleet, size=(80, 24)) as driven:
        text = await driven.until("3 of 3")
        assert all(name in text for name in names)
        await driven.pilot.resize_terminal(60, 15)
        await driven.until(lambda: all(name[:8] in driven.text for name in names))


async def test_alerts_that_are_over_are_below_those_that_are_open(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm001")
    async with console(tmp_path, fleet, start="alerts") as driven:
        text = await driven.until("1 of 1, 1 new")
        assert "OVER" not in text
        (alert,) = fleet.book.alerts()
        fleet.book.ack(alert.id, "ana", 1.0)
        fleet.put("arm001")
        fleet.judge()
        fleet.judge(60.0)
        text = await driven.until("OVER, the last first")
        (line,) = [line for line in text.splitlines() if " to " in line]
        assert line.endswith("arm001    ack ana node gripper failed (signal 11)")
        assert "no alert" in text
        # A program that reads the screen gets them, too.
        screen = driven.app.screen
        assert isinstance(screen, ConsoleScreen)
        assert line.strip() in [each.strip() for each in screen.text_lines()]
        # One that comes and goes while another screen is shown.
        driven.app.go_to("help")
        await driven.until("Help")
        fleet.fail("arm002")
        fleet.put("arm002")
        fleet.judge(120.0)
        fleet.judge(180.0)
        await driven.press("escape")
        await driven.until("arm002            node gripper failed")


async def test_an_empty_table_says_why(tmp_path: Path) -> None:
    fleet = FakeFleet(1, nodes=0)
    async with console(tmp_path, fleet, shows="1 of 1") as driven:
        await driven.press("slash")
        await driven.until("keys: state robot why")
        await driven.type("nosuch")
        await driven.press("enter")
        await driven.until("no robot matches the filter (esc removes it)")
        driven.app.go_to("robot arm001")
        text = await driven.until("no node")
        assert "no edge" in text
        driven.app.go_to("alerts")
        await driven.until("no alert")


async def test_a_dialog_on_a_narrow_terminal_shows_the_whole_command(tmp_path: Path) -> None:
    fleet = FakeFleet(0)
    fleet.put("warehouse-robot-0001")
    fleet.fail("warehouse-robot-0001", cause="node-restarts")
    async with console(tmp_path, fleet, size=(60, 15), shows="1 of 1") as driven:
        await driven.press("a")
        await driven.until("Actions for")
        await driven.press("r")
        text = await driven.until("Restart the node?")
        words = " ".join(line.strip(" │") for line in text.splitlines())
        assert "Messages in its inputs are kept." in words
        assert "$ dora node restart gripper -d warehouse-robot-0001/pick" in words


async def test_what_is_under_a_dialog_continues_and_a_terminal_that_gets_too_small_cancels(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    fleet.fail("arm002", cause="node-restarts")
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        await driven.press("a")
        await driven.until("Actions for")
        await driven.press("r")
        await driven.until("Restart the node?")
        await fleet.close()
        text = await driven.until("STALE")
        assert "Restart the node?" in text
        await driven.pilot.resize_terminal(40, 10)
        text = await driven.until("needs 60x15, has 40x10")
        assert len(text.strip().splitlines()) == 1
        await driven.pilot.resize_terminal(100, 30)
        await driven.until("nothing was changed")
        assert fleet.changes == []


async def test_keys_that_come_after_the_end_of_a_dialog_close_nothing_else(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        for keys in (("escape",) * 3, ("R", "R", "R"), ("S", "escape", "escape")):
            await driven.press("a")
            await driven.until("Actions for")
            dialog = driven.app.screen
            for key in keys:  # all of them before the dialog sees the first one
                dialog.post_message(Key(key, None if key == "escape" else key))
            while driven.app.acting.asks:
                # The second question may come late.
                if isinstance(driven.app.screen, Dialog) and driven.app.screen is not dialog:
                    await driven.press("escape")
                await driven.pilot.pause(0.02)
            await driven.until("3 of 3")
        assert fleet.changes == []


async def test_a_pipe_gets_whole_columns(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.fail("arm001", error="ModuleNotFoundError: No module named 'cv2'")
    async with console(tmp_path, fleet, size=(80, 24), shows="FAIL 1") as driven:
        lines = "\n".join(driven.app.screen.text_lines())
        assert "gripper failed: ModuleNotFoundError: No module named 'cv2' (signal 11)" in lines
        assert "CPU%" in lines, "also columns for which there is no room"
