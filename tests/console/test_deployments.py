"""Instances over several machines, as the screens Fleet, Releases and Rollout show them."""

import time
from pathlib import Path

import pytest

from dorafleet.coordinator.deploymentmessages import DeploymentInfo, DeploymentInstance
from dorafleet.rollout.messages import ReleaseInfo, RolloutRobot, RolloutSummary, RolloutUpdate

from .driving import console
from .fakefleet import FakeFleet

SIZES = [(80, 24), (160, 45)]


def cells() -> FakeFleet:
    """Return four robots in two cells, of which one has the new release."""
    fleet = FakeFleet(4, nodes=2)
    for number, cell, release in ((1, "a", 7), (2, "a", 7), (3, "b", 8), (4, "b", 8)):
        robot = f"arm{number:03}"
        instances = [f"cell-{cell}/pick"]
        fleet.put(robot, dataflow="pick, log", release=f"pick@{release}", instances=instances)
    instance = DeploymentInstance
    fleet.deployments = [
        DeploymentInfo(
            "pick", "release", "2 confirmed", label="pick@8", scope="each:cell", rollout=12,
            instances=[
                instance("cell-a", ["arm001", "arm002"], "pick@7", "confirmed"),
                instance("cell-b", ["arm003", "arm004"], "pick@8", "confirmed"),
            ],
        ),
        DeploymentInfo("log", "inline", "running"),
    ]  # fmt: skip
    fleet.releases = [
        ReleaseInfo(
            id=f"{number}" * 64, name="pick", sequence=number, created=1.0, put_at=time.time(),
            by="ana", files=3, size=2_000_000, targets=[], nodes=["camera", "gripper"],
        )
        for number in (8, 7, 6)
    ]  # fmt: skip
    summary = RolloutSummary(
        rollout=12, dataflow="pick", release="8" * 64, name="pick@8", phase="rolling",
        since=time.time(), by="ana", created=time.time(), size=4, scope="each:cell",
        counts={"confirmed": 2, "reverted": 1, "back": 1},
    )  # fmt: skip
    robots = [
        RolloutRobot(12, f"arm{number:03}", batch, state, reachable=True, instance=cell)
        for number, batch, state, cell in (
            (1, 1, "confirmed", "cell-a"),
            (2, 1, "reverted", "cell-a"),
            (3, 0, "confirmed", "cell-b"),
            (4, 0, "confirmed", "cell-b"),
        )
    ]
    fleet.update = RolloutUpdate(rollouts=[summary], robots=robots)
    return fleet


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("size", SIZES)
async def test_fleet_names_the_instance_of_a_robot_and_filters_by_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with console(tmp_path, cells(), size=size, shows="4 of 4") as driven:
        if size[0] > 100:
            assert "cell-a/pick, log" in await driven.until("cell-a/pick")
        await driven.press("/")
        await driven.type("instance=cell-b/pick")
        await driven.press("enter")
        text = await driven.until("2 of 4")
        assert "arm003" in text and "arm001" not in text


@pytest.mark.parametrize("size", SIZES)
async def test_releases_say_how_many_instances_run_each(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with console(tmp_path, cells(), size=size, start="releases") as driven:
        text = await driven.until("1/2 each:cell")
        lines = [line for line in rows(text) if "pick@" in line]
        assert [line.count("1/2 each:cell") for line in lines] == [1, 1, 0]


@pytest.mark.parametrize("size", SIZES)
async def test_a_rollout_keeps_the_machines_of_an_instance_together(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async with console(tmp_path, cells(), size=size, start="rollout") as driven:
        text = await driven.until("4 of 4 robots in 2 instances")
        assert "12 pick@8 each:cell ROLLING" in " ".join(text.split())
        lines = [line.removeprefix(">").strip() for line in rows(text) if "arm00" in line]
        assert [line.split()[:3] for line in lines] == [
            ["confirmed", "cell-a", "arm001"], ["reverted", "cell-a", "arm002"],
            ["confirmed", "cell-b", "arm003"], ["confirmed", "cell-b", "arm004"],
        ]  # fmt: skip
        (tmp_path / "screen.txt").write_text(text)
