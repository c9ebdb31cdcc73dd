"""Dataflows begin again, parameters are set, and rollouts are started, after a question."""

import re
from pathlib import Path

import pytest
from textual.widgets import Input

from dorad.control import messages as m
from dorad.control.paramtext import allowed_text
from dorad.release.changes import Changes
from dorafleet.console.model.params import with_value
from dorafleet.console.model.targets import Target
from dorafleet.console.options import ConsoleOptions
from dorafleet.console.widgets.ask import Ask
from dorafleet.console.widgets.confirm import Choose, Confirm
from dorafleet.console.widgets.grid import Grid
from dorafleet.coordinator.deploymentmessages import DeploymentInfo
from dorafleet.rollout.messages import ReleaseInfo, RolloutSummary, RolloutUpdate

from .driving import Driven, console
from .fakefleet import FakeFleet, node

UUID = "22222222-2222-4222-8222-222222222222"
SPEED = m.Param(
    key="speed", value=0.5, declared=True, type="float", default=1.0, minimum=0.0, maximum=2.0,
    description="metres a second",
)  # fmt: skip
MODE = m.Param(key="mode", value="slow", declared=True, type="string", default="slow")


def dataflow(name: str, uuid: str, status: m.Status, ended_at: float | None) -> m.DataflowInfo:
    return m.DataflowInfo(
        uuid=uuid, name=name, status=status, nodes=3, cpu=12.0, memory=50_000_000,
        started_at=1_000.0, ended_at=ended_at, machines=["arm001", "arm002"],
    )  # fmt: skip


def flows() -> FakeFleet:
    fleet = FakeFleet(2)
    fleet.dataflows = [
        dataflow("pick", "11111111-1111-4111-8111-111111111111", "running", None),
        dataflow("convoy", UUID, "finished", 2_000.0),
    ]
    return fleet


def with_params(*robots: str) -> FakeFleet:
    fleet = FakeFleet(len(robots))
    fleet.top = lambda: m.Top(
        at=0.0, window=3.0, nodes=[node(robot, "planner") for robot in robots], edges=[]
    )
    fleet.params = {f"{robot}/pick": [SPEED, MODE] for robot in robots}
    return fleet


def released() -> FakeFleet:
    fleet = FakeFleet(3)
    fleet.releases = [
        ReleaseInfo(
            id="ab" * 32, name="pick", sequence=4, created=1.0, put_at=1.0, by="ana", files=3,
            size=1_200_000, targets=[], nodes=["camera", "planner"],
        )
    ]  # fmt: skip
    summary = RolloutSummary(
        rollout=12, dataflow="pick", release="ab" * 32, name="pick@4", phase="rolling", since=1.0,
        by="ana", created=1.0, size=3, state="", reason="", counts={}, waiting={},
    )  # fmt: skip
    fleet.update = RolloutUpdate(rollouts=[summary], robots=[])
    return fleet


async def _confirmed(driven: Driven, number: str = "") -> None:
    """Answer the question that is to come with yes."""
    await driven.until(lambda: isinstance(driven.app.screen, Confirm))
    dialog = driven.app.screen
    assert isinstance(dialog, Confirm)
    await driven.until(lambda: dialog.readable)
    if number:
        await driven.type(number)
        await driven.until(lambda: dialog.query_one(Input).value == number)
    else:
        await driven.press("right")
        await driven.until(lambda: dialog.query_one("#go").has_focus)
    await driven.press("enter")


async def _chosen(driven: Driven, key: str) -> str:
    """Choose an action; return what there was to choose from."""
    await driven.press("a")
    await driven.until(lambda: isinstance(driven.app.screen, Choose))
    text = driven.text
    await driven.press(key)
    return text


async def test_a_dataflow_that_has_ended_begins_again(tmp_path: Path) -> None:
    fleet = flows()
    async with console(tmp_path, fleet, start="dataflows") as driven:
        text = await driven.until("2 of 2")
        assert text.index("pick ") < text.index("convoy")
        await driven.press("a")
        text = await driven.until("Stop the dataflow")
        assert "Begin" not in text
        await driven.press("escape", "down")
        await driven.press("enter")  # its name may be that of a later run
        await driven.until(f"Logs > {UUID[:8]}")
        await driven.press("escape")
        await driven.until("2 of 2")
        text = await _chosen(driven, "b")
        assert "Begin the ended dataflow again" in text and "Stop the dataflow" not in text
        text = await driven.until(f"$ dora restart {UUID}")
        assert "convoy (22222222)" in text
        await _confirmed(driven)
        await driven.until("Begin the ended dataflow again: done")
        assert fleet.changes == [("dataflow.restart", m.Stop(dataflow=UUID))]


async def test_dataflows_that_robots_run_by_themselves_are_listed_and_lead_to_them(
    tmp_path: Path,
) -> None:
    fleet = flows()  # pick of the server on arm001 and arm002
    fleet.put("arm001", dataflow="convoy, nav, pick", release="nav@1")
    fleet.put("arm002", dataflow="nav, pick, test", release="nav@1")
    fleet.put("arm003", dataflow="old", known=False)
    fleet.deployments = [
        DeploymentInfo(name="nav", source="release", state="2 confirmed", label="nav@1"),
        DeploymentInfo(name="pick", source="inline", state="running"),
    ]
    async with console(tmp_path, fleet, start="dataflows") as driven:
        text = await driven.until("5 of 5")
        text = await driven.until("release nav@1")
        names = re.findall(r"^[> ] (\w+) +(\w+).* (?:running|finished)", text, re.MULTILINE)
        assert names == [
            ("pick", "inline"),
            ("convoy", "local"),
            ("nav", "release"),
            ("test", "local"),
            ("convoy", "inline"),
        ]
        await driven.press("down", "down", "down", "enter")
        await driven.until("Fleet > arm002/test")
        await driven.press("escape", "a")
        await driven.until("Stop the dataflow")
        await driven.press("escape", "up", "enter")
        text = await driven.until("filter: dataflow=nav")
        assert "2 of 3" in text
        assert fleet.changes == []


async def test_a_server_without_deployments_shows_no_sources(tmp_path: Path) -> None:
    fleet = flows()
    fleet.without = ("deployment.list",)
    async with console(tmp_path, fleet, start="dataflows") as driven:
        text = await driven.until("2 of 2")
        assert "SOURCE" not in text and "inline" not in text


async def test_a_parameter_is_set_to_a_value_that_its_declaration_allows(tmp_path: Path) -> None:
    fleet = with_params("arm001")
    fleet.delivers = False
    async with console(tmp_path, fleet, start="robot arm001", shows="1 of 1 nodes") as driven:
        await driven.press("P")
        text = await driven.until("2 of 2")
        assert "metres a second" in text and "0..2" in text
        await driven.press("end")
        await _chosen(driven, "v")
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        assert "value, as JSON: float, 0..2" in driven.text
        value = driven.app.screen.query_one(Input)
        assert value.value == "0.5"
        for typed, wrong in (
            ("fast", "this is not JSON"),
            ("3", "speed must be from 0.0 to 2.0, not 3"),
            ('"1"', "speed must be a number, not `1` (without quotes)"),
        ):
            value.value = typed
            await driven.press("enter")
            await driven.until(wrong)
        value.value = "2"
        await driven.press("enter")
        text = await driven.until("$ dora param set planner speed 2.0 -d arm001/pick")
        assert "arm001/pick/planner speed: 0.5 -> 2.0" in text
        await _confirmed(driven)
        await driven.until("it gets the value when it starts")
        wanted = m.ParamSet(node="planner", key="speed", value=2.0, dataflow="arm001/pick")
        assert fleet.changes == [("param.set", wanted)]


@pytest.mark.parametrize(("size", "ascii_only"), [((60, 15), False), ((80, 24), True)])
async def test_a_question_about_long_values_leaves_room_for_its_answers(
    tmp_path: Path, size: tuple[int, int], ascii_only: bool
) -> None:
    fleet = with_params("arm001")
    fleet.params = {"arm001/pick": [m.Param(key="joints", value=[*range(500)])]}
    start = ConsoleOptions(start="params arm001/pick planner", ascii_only=ascii_only)
    async with console(tmp_path, fleet, options=start, size=size, shows="1 of 1") as driven:
        await _chosen(driven, "v")
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        wanted = [*range(500, 1000)]
        driven.app.screen.query_one(Input).value = str(wanted)
        await driven.press("enter")
        text = await driven.until("Do it")
        assert "Set the value of the parameter?" in text and "Cancel" in text
        assert "-> [500, 501" in text and ("~" if ascii_only else "…") in text
        assert text.isascii() == ascii_only
        await _confirmed(driven)
        await driven.until("Set the value of the parameter: done")
        assert [params.value for _, params in fleet.changes] == [wanted]


async def test_a_value_that_is_given_up_changes_nothing(tmp_path: Path) -> None:
    fleet = with_params("arm001")
    async with console(tmp_path, fleet, start="params arm001/pick planner") as driven:
        await driven.until("2 of 2")
        await _chosen(driven, "v")
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        await driven.press("escape")
        await driven.until(lambda: not isinstance(driven.app.screen, Ask))
        assert fleet.changes == []


async def test_a_parameter_is_set_on_marked_robots_and_each_result_is_told(tmp_path: Path) -> None:
    fleet = with_params("arm001", "arm002", "arm003")
    fleet.refuses = {"arm002/pick": "arm002 is not connected"}
    async with console(tmp_path, fleet, start="top", shows="3 of 3 nodes") as driven:
        await driven.press("space", "space", "space", "P")
        await driven.until("6 of 6")
        await driven.type("/parameter=speed\r")
        await driven.until("3 of 6")
        await driven.press("space", "space", "space")
        await _chosen(driven, "v")
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        assert "3 parameters" in driven.text
        await driven.type("1.5\r")
        await driven.until("Type 3 to confirm")
        await _confirmed(driven, "3")
        text = await driven.until("Set the value of the parameter: 2 of 3 done")
        assert "arm002/pick/planner speed: 0.5 -> 1.5: arm002 is not connected" in " ".join(
            text.split()
        )
        assert sorted(params.dataflow for _, params in fleet.changes) == [
            "arm001/pick", "arm002/pick", "arm003/pick",
        ]  # fmt: skip


async def test_the_only_parameter_of_marked_nodes_is_marked(tmp_path: Path) -> None:
    fleet = with_params("arm001", "arm002", "arm003")
    fleet.params = {key: [SPEED] for key in fleet.params}
    async with console(tmp_path, fleet, start="top", shows="3 of 3 nodes") as driven:
        await driven.press("space", "space", "P")
        await driven.until("2 of 2")
        await _chosen(driven, "v")
        await driven.until("2 parameters")
        await driven.press("escape", "escape")  # the marks
        await _chosen(driven, "v")
        await driven.until("arm001/pick/planner speed")
        assert "2 parameters" not in driven.text


async def test_a_robot_whose_parameters_are_not_known_is_named(tmp_path: Path) -> None:
    fleet = with_params("arm001")
    async with console(
        tmp_path, fleet, start="params arm001/pick planner arm002/pick planner", size=(160, 45)
    ) as driven:
        await driven.until("2 of 2")
        assert "arm002/pick/planner: no dataflow is named" in driven.text


async def test_a_rollout_is_started_from_its_plan_and_only_as_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dorafleet.console.screens.plan.EVERY_S", 0.2)
    fleet = released()
    async with console(tmp_path, fleet, start="releases", shows="pick@4") as driven:
        await driven.press("enter")
        text = await driven.until("3 of 3 robots would switch")
        assert "at most 2 at a time, 1 may fail" in text
        assert "nodes replaced: planner" in text and "nodes untouched: camera" in text
        await driven.type("/from=nothing to=pick@4 bytes<2G !canary\r")
        await driven.until(lambda: len(driven.app.screen.query_one(Grid).ids) == 2)
        await driven.press("escape")
        await driven.until(lambda: len(driven.app.screen.query_one(Grid).ids) == 3)
        await _chosen(driven, "N")
        text = await driven.until("Type 3 to confirm")
        assert "$ dorafleet rollout start abababab" in text
        assert "pick@4 on 3 robots" in text
        fleet.plan_version = 2  # another operator has started one meanwhile
        await _confirmed(driven, "3")
        await driven.until("the plan is no longer valid")
        planned = fleet.plans
        await driven.until(lambda: fleet.plans > planned + 1)
        await _chosen(driven, "N")
        await _confirmed(driven, "3")
        await driven.until("Start the rollout: done; `:rollout 12` follows it")
        assert [(method, params.if_version) for method, params in fleet.changes] == [
            ("rollout.start", 1), ("rollout.start", 2),
        ]  # fmt: skip
        assert {params.release for _, params in fleet.changes} == {"ab" * 32}


async def test_a_plan_for_chosen_robots_names_them_in_its_command(tmp_path: Path) -> None:
    async with console(tmp_path, released(), start="plan pick@4 arm002 zone=yard") as driven:
        await driven.until("1 of 1 robot would switch")
        await driven.press("y")
        await driven.until("$ dorafleet plan pick@4 --robots arm002 --label zone=yard")


async def test_from_a_plan_l_leads_to_the_logs_of_its_dataflow_on_the_robot_that_runs_it(
    tmp_path: Path,
) -> None:
    fleet = released()
    fleet.running = {"arm002": "cd" * 32}
    async with console(tmp_path, fleet, start="plan pick@4") as driven:
        assert "l logs" not in await driven.until("3 of 3 robots would switch")
        await driven.press("down")
        await driven.until("l logs")
        await driven.press("l")
        await driven.until("Logs > arm002/pick")


async def test_a_plan_that_the_server_refuses_is_not_taken_for_no_answer(tmp_path: Path) -> None:
    async with console(tmp_path, released(), start="plan pick@9") as driven:
        await driven.until("no release `pick@9` is registered")
        text = await driven.until("there is no plan")
        assert "no answer" not in text


async def test_a_long_plan_leaves_room_for_its_robots(tmp_path: Path) -> None:
    fleet = released()
    names = [f"a-long-name-of-a-node-{number}" for number in range(12)]
    fleet.planned = Changes(added=names, replaced=names, files_added=names, packages=names)
    async with console(tmp_path, fleet, start="plan pick@4", size=(60, 15)) as it:
        text = await it.until("3 of 3 robots would switch")
        assert "> arm001     canary nothing    pick@4" in text and "lines more; `y` copies" in text


async def test_where_there_is_no_coordinator_the_screen_of_releases_says_so(tmp_path: Path) -> None:
    fleet = released()
    fleet.without = ("release.list", "rollout.plan")
    async with console(tmp_path, fleet, start="releases") as driven:
        await driven.until("they need a coordinator")


async def test_an_incident_is_marked_from_a_row_with_a_note(tmp_path: Path) -> None:
    fleet = FakeFleet(2)
    fleet.put("arm001", release="pick@4")  # its recorder does it, too
    fleet.unmarked = {"arm002": "the disk is full"}
    async with console(tmp_path, fleet, shows="2 of 2") as driven:
        text = await _chosen(driven, "i")
        assert "Stop the dataflow" not in text
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        await driven.type("missed the dock\r")
        text = await driven.until("Do it")
        assert "$ dora record mark -d arm001/pick --note 'missed the dock'" in text
        assert "the last 60 s and the next 20 s" in text
        await _confirmed(driven)
        text = await driven.until("Mark an incident: keep what was recorded: done")
        told = " ".join(text.split())
        assert "arm001: incident 20260501 in /box, arm002: FAILED: the disk is full" in told
        wanted = m.IncidentMark(dataflow="arm001/pick", note="missed the dock")
        assert fleet.changes == [("incident.mark", wanted)]


async def test_the_menu_says_where_no_black_box_can_keep_an_incident(tmp_path: Path) -> None:
    fleet = FakeFleet(1)
    fleet.boxless = {"arm001/pick"}
    async with console(tmp_path, fleet, shows="1 of 1") as driven:
        await driven.press("a")
        await driven.until("i   no incident: no black box (`record: {keep: 60s}` adds one)")
        await driven.press("i")
        assert isinstance(driven.app.screen, Choose), "the key does nothing"
        await driven.press("escape")
        # One that types faster than the server answers is told before a note is asked for.
        fleet.tells_boxes.clear()
        text = await _chosen(driven, "i")
        assert "Mark an incident: keep what was recorded" in text
        fleet.tells_boxes.set()
        await driven.until("no incident: no black box")
        await driven.until(lambda: not driven.app.acting.asks)
        assert fleet.changes == []


async def test_of_several_rows_those_without_a_black_box_are_left_out_of_an_incident(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    fleet.put("arm001", dataflow="nav, pick")
    fleet.boxless = {"arm001/nav", "arm002/pick"}
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        await driven.press("space", "space", "space")
        await _chosen(driven, "i")
        await driven.until(lambda: isinstance(driven.app.screen, Ask))
        await driven.press("enter")
        text = await driven.until("Type 2 to confirm")
        assert "Left out, without a black box: arm002" in text
        await driven.press("escape")
        await driven.until("nothing was changed")
        assert fleet.changes == []


async def test_a_question_says_what_stops_and_what_gets_nothing_any_more(tmp_path: Path) -> None:
    fleet = FakeFleet(2, nodes=2)
    fleet.descriptors["arm001/pick"] = ["camera", "planner"]
    async with console(tmp_path, fleet, shows="2 of 2") as driven:
        await _chosen(driven, "S")
        await driven.until("Stops 2 nodes on arm001: camera, planner.")
        await driven.press("escape")
        await driven.until("nothing was changed")
        await driven.press("down")
        await _chosen(driven, "R")
        text = await driven.until("Do it")
        told = " ".join(text.split())
        assert "What it changes is not known of arm002: pick: no dataflow is named" in told
        await driven.press("escape", "enter")
        await driven.until("2 of 2 nodes")
        await _chosen(driven, "s")
        await driven.until("Get nothing any more: planner/image.")
        await driven.press("escape")
        await driven.until("nothing was changed")
        assert fleet.changes == []


@pytest.mark.parametrize("start", ["dataflows", "params arm001/pick planner", "plan pick@4"])
async def test_a_viewer_may_look_but_is_offered_none_of_it(tmp_path: Path, start: str) -> None:
    fleet = released()
    fleet.role = "viewer"
    fleet.dataflows = flows().dataflows
    fleet.params = with_params("arm001").params
    async with console(tmp_path, fleet, start=start) as driven:
        await driven.until(lambda: any(grid.ids for grid in driven.app.screen.query("Grid")))
        await driven.press("a")
        await driven.until("your role here is viewer; it takes operator")
        assert not isinstance(driven.app.screen, Choose)


@pytest.mark.parametrize(
    ("minimum", "maximum", "text"),
    [(0.0, 2.0, "0..2"), (-5.0, 16777217.0, "-5..16777217"), (None, 0.1234567, "..0.1234567"),
     (1e20, None, "1e+20.."), (None, None, "")],
)  # fmt: skip
def test_bounds_are_shown_with_all_their_digits(
    minimum: float | None, maximum: float | None, text: str
) -> None:
    param = m.Param(key="a", value=1, minimum=minimum, maximum=maximum)
    assert allowed_text(param) == text


def test_a_parameter_without_a_declaration_takes_any_json() -> None:
    free = Target("pick", "planner", title="x", param=m.Param(key="free", value=None))
    for text, value in (("null", None), ("[1, 2]", [1, 2]), ('{"a": "b"}', {"a": "b"})):
        found = with_value([free], text)
        assert not isinstance(found, str)
        assert found[0].param is not None and found[0].param.value == value
    assert "not JSON" in str(with_value([free], "NaN"))
    assert "does not fit" in str(with_value([free], str(2**70)))
    assert "not JSON" in str(with_value([free], '"\udc80"'))
