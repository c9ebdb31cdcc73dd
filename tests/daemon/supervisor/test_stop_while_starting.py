"""Stops and restarts while a process is being started, in any order of the loop's turns."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorad.dataflow.model import NodeSpec
from dorad.launch.model import Exit, LaunchError
from tests.daemon.fakes import DEADLINE_S, FakeProcess, Stage
from tests.daemon.flows import dataflow, node, restarted
from tests.harness.waiting import until

ENDS = "not started,started,started,turn,restart,restart,turn,turn,started,started,stop,started"
"""The dataflow ends in the turn of the loop in which the last command comes."""
ACTS = ("stop", "restart", "stop all", "started", "not started", "exit", "turn")
"""Commands, the end of a start, the exit of a process, and a turn of the event loop."""


@dataclass
class Starts(Stage):
    """A stage whose starts end when the test says so. Its processes end on STOP or a signal."""

    made: list[FakeProcess] = field(default_factory=list)
    """Every process that was started."""
    under_way: list[asyncio.Future[bool]] = field(default_factory=list)
    """Every start; its result is whether it succeeds."""
    late: bool = False
    """A start that is cancelled has its process already."""

    async def start(self, node: NodeSpec, config: str, restart_count: int) -> FakeProcess:
        self.under_way.append(asyncio.get_running_loop().create_future())
        try:
            succeeds = await self.under_way[-1]
        except asyncio.CancelledError:
            if not self.late:
                raise
            succeeds = True
        if not succeeds:
            raise LaunchError("it cannot be downloaded")
        self.made.append(FakeProcess(frozenset(), pid=1 + len(self.made)))
        return self.made[-1]

    def end_start(self, *, succeeds: bool = True) -> None:
        """End the start that is under way, if there is one."""
        for start in self.under_way:
            if not start.done():
                start.set_result(succeeds)

    def exit(self) -> None:
        """Let the process that runs exit."""
        for process in self.alive:
            process.end(Exit(code=1))

    @property
    def alive(self) -> list[FakeProcess]:
        """The processes that run."""
        return [process for process in self.made if not process.ended.done()]


async def _commanded(stage: Starts, command: str) -> bool:
    """Carry out a command; return False if it was refused."""
    with suppress(ControlError):
        await getattr(stage.supervisor.commands, command)("a", 0.0)
        return True
    return False


async def play(acts: Sequence[str], *, late: bool, stops_all: bool) -> None:
    """Do what `acts` say, and stop; then nothing runs and nothing is started."""
    other = node("other", dynamic=True)  # the dataflow goes on without `a`
    flow = dataflow(node("a", options=restarted(delay=0.001)), other)
    stage = Starts(flow, late=late, grace=0.0)
    run = asyncio.create_task(stage.supervisor.run(stage.start))
    await until(lambda: stage.under_way)
    commands: list[asyncio.Task[bool]] = []
    for act in acts:
        match act:
            case "stop" | "restart":
                commands.append(asyncio.create_task(_commanded(stage, act)))
            case "stop all":
                stage.supervisor.stop()
            case "started" | "not started":
                stage.end_start(succeeds=act == "started")
            case "exit":
                stage.exit()
            case "turn":
                await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        while not all(command.done() for command in commands):
            stage.end_start()  # a restart waits for it
            await asyncio.sleep(0)
        if stops_all or "stop all" in acts:
            stage.supervisor.stop()
            await run
        else:
            await _commanded(stage, "stop")
    starts = len(stage.under_way)
    assert stage.status("a") in ("stopped", "failed")
    assert not stage.alive
    stage.supervisor.stop()
    async with asyncio.timeout(DEADLINE_S):
        await run
    assert not stage.alive
    assert len(stage.under_way) == starts
    assert all(start.done() for start in stage.under_way)


@example(ENDS.split(","), False, False)
@given(st.lists(st.sampled_from(ACTS), max_size=12), st.booleans(), st.booleans())
def test_what_is_stopped_stays_stopped_in_whatever_order_things_happen(
    acts: list[str], late: bool, stops_all: bool
) -> None:
    asyncio.run(play(acts, late=late, stops_all=stops_all))


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stops_all", [False, True])
async def test_a_stop_at_any_turn_after_the_end_of_a_start_ends_its_process(
    turns: int, late: bool, stops_all: bool
) -> None:
    acts = ["started", *["turn"] * turns, "stop all" if stops_all else "stop"]
    await play(acts, late=late, stops_all=stops_all)
