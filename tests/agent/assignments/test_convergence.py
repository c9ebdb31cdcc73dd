"""After any events in any order, the robot ends up in the state of its last order."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dorad.agent.assignments.orders import take_run
from dorad.agent.assignments.runs import (
    Change,
    Conclude,
    Open,
    Present,
    RunRecord,
    Start,
    Stop,
    begin,
    conclude,
    decide,
    follow,
)
from dorad.control.errors import ControlError
from tests.agent.orders import NODE, order, run

UUIDS = [f"00000000-0000-4000-8000-{number:012}" for number in range(3)]
OTHER = {"nodes": [{"id": "b", "path": "b.py"}]}


class Robot:
    """A model of the agent's record on disk, and of dorad."""

    def __init__(self) -> None:
        self.boot = 0
        self.clock = 0.0
        self.record: RunRecord | None = None
        self.runs = {}
        self.contents = {}
        self.starts = []
        """The order of each start."""

    @property
    def now(self) -> Present:
        return Present(str(self.boot), "one")

    def obey(self, asked) -> None:
        try:
            self.record = take_run(self.record, asked, str(self.boot))
        except ControlError as error:
            assert error.code == "conflict"
            assert (asked.epoch, asked.generation) <= self.record.version

    def step(self, killed: str = "") -> bool:
        """Do one thing; with `killed`, the agent ends just before or after dorad has done it."""
        if self.record is None:
            return False
        self.record = msgspec.json.decode(msgspec.json.encode(self.record), type=RunRecord)
        action = decide(self.record, self.runs, self.now)
        self.clock += 1
        content = self.record.order.content
        match action:
            case None:
                return False
            case Start():
                assert self.record.order.enabled
                assert not any(each.active for each in self.runs.values())
                self.record = begin(self.record, self.now, action.previous)
                if killed != "before":
                    self.starts.append(self.record.version)
                    self.runs[content.uuid] = run(
                        "running", uuid=content.uuid, started_at=self.clock
                    )
                    self.contents[content.uuid] = content.descriptor
            case Change():
                if killed != "before":
                    self.contents[content.uuid] = content.descriptor
                if not killed:
                    self.record = follow(self.record, self.record.order, self.now)
            case Stop():
                if killed != "before":
                    self.end(action.uuid, "finished")
            case Open():
                raise AssertionError("nothing is held here")
            case Conclude() if not killed:
                self.record = conclude(self.record, action.status, self.clock, "", None)
        return True

    def end(self, uuid, status, *, interrupted=False) -> None:
        found = self.runs.get(uuid)
        if found is not None and found.active:
            began = found.info.started_at
            self.runs[uuid] = run(status, uuid=uuid, started_at=began, interrupted=interrupted)

    def reboot(self, status="failed") -> None:
        """Lose power; with `finished`, go down in order: dorad stops its dataflows."""
        self.boot += 1
        for uuid in list(self.runs):
            self.end(uuid, status, interrupted=True)

    def settle(self) -> None:
        for _ in range(20):
            if not self.step():
                return
        raise AssertionError("the agent does not come to rest")


ORDERS = st.builds(
    order,
    generation=st.integers(1, 6),
    epoch=st.integers(1, 3),
    enabled=st.booleans(),
    uuid=st.sampled_from(UUIDS),
    descriptor=st.sampled_from([NODE, OTHER]),
)
EVENTS = st.one_of(
    ORDERS,
    st.sampled_from(
        ["step", "before", "after", "reboot", "shutdown", "finished", "failed", "lost"]
    ),
)


def happen(robot: Robot, event) -> None:
    match event:
        case "step":
            robot.step()
        case "before" | "after":
            robot.step(event)
        case "reboot":
            robot.reboot()
        case "shutdown":
            robot.reboot("finished")
        case "finished" | "failed":
            for uuid in list(robot.runs):
                robot.end(uuid, event)
        case "lost":
            robot.runs.clear()
        case _:
            robot.obey(event)


@given(st.lists(EVENTS, max_size=40))
def test_the_last_order_wins(events):
    robot = Robot()
    for event in events:
        happen(robot, event)
    robot.settle()
    if robot.record is None:
        assert not robot.runs
        return
    wanted = robot.record.order
    active = [uuid for uuid, each in robot.runs.items() if each.active]
    if wanted.enabled and robot.record.ended is None:
        assert active == [wanted.content.uuid]
        assert robot.contents[wanted.content.uuid] == wanted.content.descriptor
    else:
        assert active == []
        assert robot.record.ended is not None


@given(st.lists(st.sampled_from(["step", "before", "after", "reboot", "shutdown"]), max_size=20))
def test_a_run_survives_reboots_and_kills_until_it_is_ended(events):
    robot = Robot()
    robot.obey(order())
    for event in events:
        happen(robot, event)
    robot.settle()
    assert [each.active for each in robot.runs.values()] == [True]
    assert len(robot.starts) <= 1 + events.count("reboot") + events.count("shutdown")


@given(st.lists(st.sampled_from(["step", "before", "after", "reboot", "shutdown"]), max_size=20))
def test_a_run_that_has_ended_by_itself_is_never_started_again(events):
    robot = Robot()
    robot.obey(order())
    robot.settle()
    happen(robot, "finished")
    for event in events:
        happen(robot, event)
    robot.settle()
    assert len(robot.starts) == 1
    assert robot.record.ended.status == "finished"
