"""Copied commands do in a shell what the console does."""

import asyncio
import shlex
from pathlib import Path

import pytest

from dorad.cli.root import run_command as dora
from dorad.control.messages import Param
from dorafleet.cli.main import run_command as dorafleet
from dorafleet.console.model.commands import ACTIONS, shown
from dorafleet.console.model.targets import Target
from dorafleet.console.options import options_for
from dorafleet.coordinator.token import make_token
from dorafleet.rollout.messages import (
    ReleaseInfo,
    RolloutNew,
    RolloutRobot,
    RolloutSummary,
    RolloutUpdate,
)

from .driving import console
from .fakefleet import FakeFleet, serving

RELEASE = ReleaseInfo(
    id="ab" * 32, name="pick", sequence=4, created=1.0, put_at=1.0, by="ana", files=3,
    size=1_200_000, targets=[], nodes=["camera"],
)  # fmt: skip


def fleet() -> FakeFleet:
    """Return a fleet with an alert, and a rollout that `undo` need not follow any further."""
    made = FakeFleet(1)
    made.fail("arm001", name="it's $HOME")
    summary = RolloutSummary(
        rollout=12, dataflow="pick", release="a1", name="pick", phase="reverted", since=1.0,
        by="ana", created=1.0, size=1, state="", reason="", counts={}, waiting={},
    )  # fmt: skip
    made.update = RolloutUpdate(rollouts=[summary], robots=[])
    made.releases = [RELEASE]
    return made


def run(command: str) -> int:
    """Run a pasted command without the time that its interpreter takes to start."""
    program, *arguments = shlex.split(command)
    return {"dora": dora, "dorafleet": dorafleet}[program](arguments)


async def test_the_command_of_each_action_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fleet()
    (alert,) = made.book.alerts()
    target = Target(
        "pick",
        alert.node or "",
        "arm001",
        alert=alert.id,
        rollout=12,
        param=Param(key="it's", value={"a": [1.5, "\u202e"]}),
        plan=RolloutNew(
            release=RELEASE.id, robots=["arm001"], labels={"zone": "x y"}, if_version=1
        ),
    )
    (tmp_path / "dorafleet").mkdir()
    make_token(tmp_path / "dorafleet" / "token")
    async with serving(made, tmp_path):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setenv("DORA_COORDINATOR_ADDR", "127.0.0.1")
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(await made.listen()))
        for action in ACTIONS:
            if action.kind == "instance":
                target = target._replace(dataflow="arm001/pick", instance="arm001")
                assert made.update is not None
                made.past = made.update.rollouts
                made.update.robots = [
                    RolloutRobot(rollout=12, robot="arm001", batch=0, state="back", reachable=True)
                ]
            command = shown(action.argv(target))
            assert await asyncio.to_thread(run, command) == 0, command
            assert made.changes.pop() == (action.method.name, action.params(target))
            assert made.changes == []


async def test_a_command_names_the_server_of_the_console(tmp_path: Path) -> None:
    options = options_for({"DORA_COORDINATOR_ADDR": "fleet-a", "DORA_COORDINATOR_PORT": "6100"})
    async with console(tmp_path, FakeFleet(1), options=options, shows="1 of 1") as driven:
        await driven.press("y")
        await driven.until("$ DORA_COORDINATOR_ADDR=fleet-a DORA_COORDINATOR_PORT=6100 dorafleet")
        words = shlex.split(driven.app.copied)
        assert words[2:] == ["dorafleet", "robots", "--order", "worst"]
