"""Screen Rollout, and what it does to a rollout."""

import time
from pathlib import Path
from typing import Any

from dorad.control.messages.releases import Evidence
from dorafleet.console.model.targets import on_rollout
from dorafleet.console.screens.base import ConsoleScreen
from dorafleet.rollout.messages import RolloutAct, RolloutRobot, RolloutSummary, RolloutUpdate, Wave

from .driving import console
from .fakefleet import FakeFleet


def running(**fields: Any) -> RolloutUpdate:
    """Return what is said about one rollout."""
    given: dict[str, Any] = {"phase": "rolling", "since": time.time(), "created": time.time()}
    given |= {"rollout": 12, "dataflow": "pick", "release": "a1b2c3", "name": "pick@7"}
    return RolloutUpdate(rollouts=[RolloutSummary(**{"by": "ana", "size": 3, **given, **fields})])


async def test_a_rollout_shows_its_waves_and_the_robots_with_trouble_first(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    counts = {"confirmed": 2, "reverted": 1, "busy": 1, "waiting": 6}
    summary = RolloutSummary(
        rollout=12,
        dataflow="pick",
        release="a1b2c3",
        name="pick@7",
        phase="rolling",
        since=time.time() - 60,
        by="ana",
        created=time.time() - 3600,
        size=10,
        counts=counts,
        waves=[
            Wave(batch=0, size=2, confirmed=2),
            Wave(batch=1, size=8, moving=1, failed=1),
        ],
    )
    robots = [
        RolloutRobot(rollout=12, robot="arm001", batch=0, state="confirmed", reachable=True),
        RolloutRobot(
            rollout=12, robot="arm002", batch=1, state="reverted", reachable=True, reason="11.8/s"
        ),
        RolloutRobot(
            rollout=12, robot="arm003", batch=1, state="busy", reachable=True, leases=["pick 771"]
        ),
        RolloutRobot(
            rollout=12,
            robot="arm004",
            batch=1,
            state="probation",
            reachable=True,
            evidence=[
                Evidence(check="restarts", ok=True, text="0"),
                Evidence(check="output camera/image", ok=False, text="3.3/s, at least 5"),
            ],
        ),
    ]
    fleet.update = RolloutUpdate(rollouts=[summary], robots=robots)
    async with console(tmp_path, fleet, start="rollout") as driven:
        text = await driven.until("Rollouts > 12")
        assert "[canary 2/2]>[wave 1 0/8, 1 failed, 1 at once]" in text
        screen = driven.app.screen
        assert isinstance(screen, ConsoleScreen)
        piped = "\n".join(screen.text_lines())
        assert "pick@7" in piped and "[canary 2/2]" in piped and "11.8/s" in piped
        assert "(= 10)" in text
        rows = [row for row in text.splitlines() if " arm00" in row]
        order = ("arm002", "arm004", "arm003", "arm001")
        assert [name in row for name, row in zip(order, rows, strict=True)] == [True] * 4
        assert "11.8/s" in rows[0] and "output camera/image: 3.3/s, at least 5" in rows[1]
        assert "lease pick 771" in rows[2] and "canary" in rows[3]
        await driven.press("enter")
        await driven.until("Fleet > arm002")


async def test_a_rollout_is_acted_on_after_a_dialog(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.update = running(phase="awaiting_promotion")
    fleet.update.robots = [
        RolloutRobot(rollout=12, robot=f"arm{n:03}", batch=int(n > 1), state=state, reachable=True)
        for n, state in ((1, "confirmed"), (2, "waiting"), (3, "waiting"))
    ]
    async with console(tmp_path, fleet, start="rollout", shows="AWAITING_PROMOTION") as driven:
        await driven.press("a")
        text = await driven.until("Actions for rollout 12 of pick@7, 3 robots")
        for title in ("Pause the", "Promote the", "Abort the", "Undo the"):
            assert f"{title} rollout" in text
        assert "Continue" not in text
        await driven.press("m")
        text = await driven.until("$ dorafleet rollout promote 12")
        assert "Type 2 to confirm:" in text and "2 robots: arm002, arm003" in text
        assert "the same for each" not in text
        await driven.type("2")
        await driven.press("enter")
        await driven.until("Promote the rollout: done")
        assert fleet.changes == [("rollout.promote", RolloutAct(rollout=12))]


async def test_the_question_of_an_undo_names_only_the_robots_that_switch_back(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    fleet.update = running()
    fleet.update.robots = [
        RolloutRobot(
            rollout=12, robot=name, batch=at, state=state, reachable=True, goes_back=goes_back
        )
        for name, at, state, goes_back in (
            ("arm001", 1, "confirmed", True),
            ("arm002", 1, "reverted", False),
            ("arm003", 0, "probation", True),
        )
    ]
    async with console(tmp_path, fleet, start="rollout", shows="Rollouts > 12") as driven:
        await driven.press("a")
        await driven.until("Actions for rollout 12 of pick@7, 3 robots")
        await driven.press("U")
        text = await driven.until("Type 2 to confirm:")
        assert "2 robots: arm003, arm001" in text
        assert "arm002" not in text[text.index("Undo the rollout?") : text.index("$ dorafleet")]


async def test_one_instance_of_a_rollout_is_undone_after_its_robots_were_shown(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    fleet.update = running(scope="each:cell")
    fleet.update.robots = [
        RolloutRobot(
            rollout=12,
            robot=name,
            batch=at,
            state="confirmed",
            reachable=True,
            goes_back=True,
            instance=instance,
        )
        for name, at, instance in (
            ("arm001", 0, "cell1"),
            ("arm002", 1, "cell2"),
            ("arm003", 1, "cell2"),
        )
    ]
    async with console(tmp_path, fleet, start="rollout", shows="Rollouts > 12") as driven:
        await driven.press("down", "a")
        await driven.until("Undo the rollout on this instance only")
        await driven.press("I")
        text = await driven.until("Type 2 to confirm:")
        question = text[text.index("this instance only?") : text.index("Type 2")]
        assert "cell2 in rollout 12 of pick@7" in question
        assert "2 robots: arm002, arm003" in question and "arm001" not in question
        assert "$ dorafleet rollout undo cell2/pick" in question
        await driven.type("2")
        await driven.press("enter")
        await driven.until("this instance only: done")
        act = RolloutAct(rollout=12, instances=["cell2"])
        assert fleet.changes == [("rollout.undo", act)]


def test_what_the_server_would_refuse_to_undo_alone_is_not_offered() -> None:
    robots = [
        RolloutRobot(
            rollout=12, robot=name, batch=at, state="confirmed", reachable=True, goes_back=back
        )
        for name, at, back in (("arm001", 0, True), ("arm002", 1, True), ("arm003", 1, False))
    ]
    offered = {
        (phase, robot)
        for phase in ("canary", "rolling", "succeeded", "reverting")
        for robot in ("arm001", "arm002", "arm003", None)
        if "undo-instance" in on_rollout(running(phase=phase).rollouts[0], robots, robot).acts
    }
    assert offered == {
        ("canary", "arm002"),
        *((phase, robot) for phase in ("rolling", "succeeded") for robot in ("arm001", "arm002")),
    }


async def test_a_rollout_that_does_not_exist_is_not_a_server_without_rollouts(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(1)
    fleet.update = RolloutUpdate(rollouts=[])
    async with console(tmp_path, fleet, start="rollout 99") as driven:
        text = await driven.until("there is no rollout 99")
        assert "offers no rollouts" not in text


async def test_without_one_that_runs_the_newest_rollout_is_shown(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.update = RolloutUpdate(rollouts=[])
    async with console(tmp_path, fleet, start="rollout", shows="no rollout yet") as driven:
        fleet.past = running(phase="succeeded", over=True).rollouts
        await driven.press("question_mark")
        await driven.until("Keys")
        await driven.press("escape")
        await driven.until("SUCCEEDED")


async def test_other_rollouts_that_are_under_way_are_named_with_the_way_there(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    (newest,) = running().rollouts
    (other,) = running(rollout=11, name="battery@2", by="ben").rollouts
    (over,) = running(rollout=10, name="old@1", over=True).rollouts
    fleet.update = RolloutUpdate(rollouts=[newest, other, over])
    async with console(tmp_path, fleet, start="rollout") as driven:
        text = await driven.until("Rollouts > 12")
        assert "also under way: 11  battery@2  by ben   :rollout 11" in text
        assert "old@1" not in text


async def test_how_a_rollout_ended_is_shown_also_if_it_was_hidden_then(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.update = running()
    async with console(tmp_path, fleet, start="rollout", shows="ROLLING") as driven:
        await driven.press("question_mark")
        await driven.until("Keys")
        fleet.past = running(phase="aborted", over=True).rollouts
        fleet.update = RolloutUpdate(rollouts=[])
        await driven.press("escape")
        await driven.until("ABORTED")


async def test_the_last_rollouts_are_listed_and_lead_to_each(tmp_path: Path) -> None:
    fleet = FakeFleet(3)
    fleet.update = running(counts={"confirmed": 1, "switching": 2})
    (failed,) = running(
        rollout=11, name="arm@9", phase="reverted", over=True, by="ben",
        reason="the canary failed: `arm002` (exit code 1)", counts={"reverted": 1, "left": 2},
    ).rollouts  # fmt: skip
    fleet.past = [failed]
    async with console(tmp_path, fleet, start="rollouts") as driven:
        text = await driven.until("2 of 2")
        rows = [line for line in text.splitlines() if "@" in line]
        assert "12 rolling" in rows[0] and "pick@7" in rows[0] and "1/3" in rows[0]
        assert "11 reverted" in rows[1] and " ben " in rows[1] and "0/3" in rows[1]
        await driven.press("down")
        await driven.until("left 2  reverted 1  (= 3)")
        await driven.press("slash")
        await driven.type("by=ben\r")
        await driven.until("1 of 2")
        await driven.press("enter")
        await driven.until("Rollouts > 11")
        await driven.press("escape")
        await driven.until("1 of 2")


async def test_back_from_a_rollout_leads_to_the_list_and_from_there_to_the_screen_before(
    tmp_path: Path,
) -> None:
    fleet = FakeFleet(3)
    fleet.update = running()
    async with console(tmp_path, fleet, shows="3 of 3") as driven:
        driven.app.go_to("rollout")
        await driven.until("Rollouts > 12")
        await driven.press("escape")
        await driven.until("1 of 1")
        await driven.press("minus")
        await driven.until("Rollouts > 12")
        await driven.press("escape", "escape")
        await driven.until("3 of 3")
