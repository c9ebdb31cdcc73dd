"""What a plan selects, shows and refuses; it changes nothing."""

from __future__ import annotations

import re
import shlex
import zlib
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.commandline.durations import Duration
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import Group, ReleaseState
from dorad.dataflow.durations import parse_duration
from dorad.release.changes import Changes
from dorad.release.manifest import encode, id_of
from dorafleet.cli.rolloutstart import start
from dorafleet.coordinator.drift import Compared, drift_of
from dorafleet.coordinator.records import RobotAssignment
from dorafleet.rollout import messages as r
from dorafleet.rollout import windows
from dorafleet.rollout.plan import (
    HAS_IT,
    NO_NODE,
    Candidate,
    _nothing_left,
    select,
    with_params,
)
from dorafleet.rollout.plantext import plan_row
from dorafleet.rollout.strategy import (
    MAX_BATCHES,
    Batch,
    Budget,
    Strategy,
)

from .site import ID1, ID2, TWO, manifest, put, site, strategy

FLEET = [
    Candidate("r1", {"zone": "hall", "role": "canary"}, before=ID1),
    Candidate("r2", {"zone": "hall"}, before=ID1),
    Candidate("r3", {"zone": "yard"}, before=ID1, reachable=False),
    Candidate("r4", {}, before=ID1),
]
NODES = ["camera", "grip"]


def new(**keys):
    return r.RolloutNew(release="pick", **keys)


def batches(**keys):
    found = select(new(strategy=Strategy(**keys)), FLEET, 2, NODES)
    return {member.robot: member.batch for member in found.members}


def test_batches_follow_their_selectors_and_the_rest_comes_last():
    assert batches() == {"r1": 0, "r2": 1, "r3": 1, "r4": 1}
    assert batches(canary=0) == {"r1": 1, "r2": 1, "r3": 1, "r4": 1}
    assert batches(canary="50%") == {"r1": 0, "r2": 0, "r3": 1, "r4": 1}
    order = [Batch(selector={"zone": "yard"}), Batch(selector={"zone": "hall"}, limit=1)]
    assert batches(canary=0, batches=order) == {"r3": 1, "r1": 2, "r2": 3, "r4": 3}
    assert batches(canary_selector={"zone": "yard"}) == {"r3": 0, "r1": 1, "r2": 1, "r4": 1}


def test_a_canary_of_any_kind_is_one_that_answers():
    away = [Candidate("a", {}, reachable=False), Candidate("b", {})]
    found = select(new(), away, 1, NODES)
    assert [member.robot for member in found.members if member.batch == 0] == ["b"]


def test_the_canaries_that_a_label_selects_are_the_first_ones_also_if_they_are_away():
    both = [Candidate("a", {"role": "x"}, reachable=False), Candidate("b", {"role": "x"})]
    keys = {"strategy": Strategy(canary_selector={"role": "x"})}
    assert [each.batch for each in select(new(**keys), both, 1, NODES).members] == [0, 1]
    assert select(new(**keys), both, 1, NODES).members[0].robot == "a"


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        ({"robots": ["r11"]}, "not-found", "there is no robot `r11` (did you mean `r1`?)"),
        ({"labels": {"zone": "moon"}}, "refused", "no robot has zone=moon"),
        (
            {"strategy": Strategy(canary_selector={"zone": "moon"})},
            "refused",
            "canary_selector: none of the robots that change has zone=moon",
        ),
        (
            {"strategy": Strategy(batches=[Batch(selector={"zone": "moon"})])},
            "refused",
            "batches[0] selects none of the robots",
        ),
        (
            {"strategy": Strategy(disruption_budget=Budget(group_by="cell"))},
            "refused",
            "no robot has the label `cell`",
        ),
        (
            {"strategy": Strategy(disruption_budget=Budget(group_by="zone", max_unavailable="1%"))},
            "refused",
            "`r1` could never switch",
        ),
        (
            {
                "strategy": Strategy(
                    disruption_budget=Budget(group_by="zone", max_unavailable="30%")
                )
            },
            "refused",
            "max_unavailable 30% of 2 robots with `zone=hall` is 0",
        ),
        (
            {"strategy": Strategy(canary=0, canary_selector={"zone": "hall"})},
            "refused",
            "canary_selector: `canary` is 0",
        ),
        ({"strategy": Strategy(max_parallel=0)}, "bad-request", "max_parallel: 0 robots"),
        ({"strategy": Strategy(canary="lots")}, "bad-request", "canary: `lots` is neither"),
        ({"strategy": Strategy(failure_threshold="101%")}, "bad-request", "failure_threshold"),
        (
            {"strategy": Strategy(batches=[Batch(selector={})] * (MAX_BATCHES + 1))},
            "bad-request",
            f"batches: there are more than {MAX_BATCHES}",
        ),
        ({"strategy": Strategy(windows=["Mon 25:00-26:00"])}, "bad-request", "`25:00` in"),
        ({"strategy": Strategy(windows=["Xyz 01:00-02:00"])}, "bad-request", "is not a day"),
        ({"strategy": Strategy(windows=["01:00-02:00 Mars/X"])}, "bad-request", "time zone"),
        ({"strategy": Strategy(progress_deadline=1)}, "bad-request", "progress_deadline: 1 s"),
        ({"strategy": Strategy(busy_max=float("nan"))}, "bad-request", "busy_max"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(keys, code, words):
    with pytest.raises(ControlError) as caught:
        select(new(**keys), FLEET, 2, NODES)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_lower_sequence_is_refused_unless_it_is_allowed():
    fleet = [Candidate("r1", {}, sequence=7)]
    with pytest.raises(ControlError, match="its sequence 2 is below 7") as caught:
        select(new(), fleet, 2, NODES)
    assert "--allow-lower" in str(caught.value)
    assert select(new(allow_lower=True), fleet, 2, NODES).members
    assert select(new(), fleet, 7, NODES).members, "the same one is not lower"


def test_only_the_robots_that_are_named_or_have_the_labels_take_part():
    for keys, chosen in (
        ({}, ["r1", "r2", "r3", "r4"]),
        ({"robots": ["r3", "r1"]}, ["r1", "r3"]),
        ({"labels": {"zone": "hall"}}, ["r1", "r2"]),
        ({"robots": ["r2", "r3"], "labels": {"zone": "hall"}}, ["r2"]),
    ):
        found = select(new(**keys), FLEET, 2, NODES)
        assert sorted(each.robot for each in found.members) == chosen
        assert found.left_out == {}


def test_robots_that_have_it_or_failed_with_it_are_left_out():
    fleet = [
        Candidate("r1", {}, is_on_it=True),
        Candidate("r2", {}, failed="node grip failed"),
        Candidate("r3", {}),
    ]
    found = select(new(), fleet, 2, NODES)
    assert [member.robot for member in found.members] == ["r3"]
    assert found.left_out["r1"] == "it has it already"
    assert found.left_out["r2"] == ("it has failed there: node grip failed; `--retry` tries again")
    assert [each.robot for each in select(new(retry=True), fleet, 2, NODES).members] == ["r2", "r3"]


def test_of_an_instance_the_machine_that_failed_is_named():
    group = Group(instance="cell", uuid="u", share=Share(machine="r1", placement={"grip": "r1"}))
    fleet = [Candidate("r1", {}), Candidate("r2", {}, failed="node grip failed")]
    groups = {"r1": group, "r2": group}
    with pytest.raises(ControlError) as caught:
        select(new(scope="one"), fleet, 2, NODES, groups)
    assert "it has failed on `r2`: node grip failed" in str(caught.value)


def cells(**keys):
    """Return what is selected of two cells: r1 and r2 are one, r3 and r4 the other."""
    groups = {
        robot: Group(instance=cell, uuid="u", share=Share(machine=robot, placement={"grip": robot}))
        for robot, cell in (("r1", "a"), ("r2", "a"), ("r3", "b"), ("r4", "b"))
    }
    fleet = [*keys.pop("fleet", FLEET), Candidate("r5", {})]
    strategy = Strategy(**{"canary": 0, **keys})
    return select(new(scope="each:cell", strategy=strategy), fleet, 2, NODES, groups)


def test_machines_of_an_instance_are_in_one_batch_which_one_of_them_selects():
    def order(**keys):
        return {each.robot: each.batch for each in cells(**keys).members}

    assert order() == {"r1": 1, "r2": 1, "r3": 1, "r4": 1}
    assert order(canary=1, canary_selector={"role": "canary"}) == {
        "r1": 0, "r2": 0, "r3": 1, "r4": 1,
    }  # fmt: skip
    assert order(batches=[Batch(selector={"zone": "yard"})]) == {"r3": 1, "r4": 1, "r1": 2, "r2": 2}
    # An instance is one, and one without a machine that does not answer comes first.
    assert order(canary="50%") == {"r1": 0, "r2": 0, "r3": 1, "r4": 1}
    assert order(canary="50%", fleet=FLEET[::-1]) == {"r2": 0, "r1": 0, "r4": 1, "r3": 1}
    assert order(batches=[Batch(limit=1)]) == {"r1": 1, "r2": 1, "r3": 2, "r4": 2}
    found = cells()
    assert (found.left_out, found.scope) == ({"r5": NO_NODE}, "each:cell")
    assert [(each.instance, each.group.share.machine) for each in found.members] == [
        ("a", "r1"), ("a", "r2"), ("b", "r3"), ("b", "r4"),
    ]  # fmt: skip


@pytest.mark.parametrize(("most", "fits"), [(1, False), (2, True), ("50%", False), ("100%", True)])
def test_a_budget_must_have_room_for_the_machines_of_an_instance_at_once(most, fits):
    budget = Budget(group_by="zone", max_unavailable=most)
    if fits:
        assert len(cells(disruption_budget=budget).members) == 4
        return
    words = f"max_unavailable {most} is less than the 2 machines of `a` with `zone=hall`"
    with pytest.raises(ControlError, match=words):
        cells(disruption_budget=budget)


def test_an_instance_that_has_the_release_with_other_machines_has_something_to_do():
    group = Group(instance="a", uuid="u", share=Share(machine="r1", placement={"grip": "r1"}))
    other = msgspec.structs.replace(group, share=Share(machine="r1", placement={"grip": "r2"}))
    has_it = {"is_on_it": True, "before_group": group}
    fleet = [Candidate("r1", {}, **has_it), Candidate("r2", {}, **has_it)]
    both = {"r1": group, "r2": group}
    with pytest.raises(ControlError, match="all 2 robots have it already"):
        select(new(scope="one"), fleet, 2, NODES, both)
    found = select(new(scope="one"), fleet, 2, NODES, both | {"r2": other})
    assert [each.robot for each in found.members] == ["r1", "r2"]
    # One that has failed with it before is no hindrance once it has it.
    failed = [fleet[0], replace(fleet[1], failed="grip crashed")]
    assert select(new(scope="one"), failed, 2, NODES, both | {"r2": other}).members


def test_what_the_help_calls_the_default_is_the_default():
    found, defaults = {}, Strategy()
    for option in start.params:
        text = re.search(r"\[(\w+)\]$", getattr(option, "help", None) or "")
        if isinstance(option.type, Duration) and text:
            found[option.name] = parse_duration(text[1])
    assert len(found) == 7
    known = msgspec.structs.asdict(defaults) | msgspec.structs.asdict(defaults.rules)
    assert found == {name: known[name] for name in found}


def test_nothing_to_do_is_no_failure_but_says_so():
    fleet = [Candidate("r1", {}, is_on_it=True), Candidate("r2", {}, is_on_it=True)]
    with pytest.raises(ControlError, match="all 2 robots have it already") as caught:
        select(new(), fleet, 2, NODES)
    assert caught.value.code == "exists"


def test_a_node_with_another_parameter_is_replaced():
    changes = Changes(replaced=["grip"], untouched=["arm", "camera"])
    found = with_params(changes, {"camera/rate": 1, "arm/speed": 2}, {"camera/rate": True})
    assert found.params == ["arm/speed: 2 → default", "camera/rate: 1 → true"]
    assert (found.replaced, found.untouched) == (["arm", "camera", "grip"], [])
    unknown = Changes(replaced=["grip"], untouched=["arm"], uncompared=["camera"])
    found = with_params(unknown, {"camera/rate": 1, "arm/speed": 2}, {"camera/rate": True})
    assert (found.replaced, found.uncompared) == (["arm", "camera", "grip"], [])
    assert with_params(changes, {"camera/rate": 1}, {"camera/rate": 1}) is changes
    others = Changes(untouched=["arm", "camera"], uncompared=["grip", "map"])
    found = with_params(others, {"camera/rate": 1}, {"grip/force": 2})
    assert found.replaced == ["camera", "grip"]
    assert (found.untouched, found.uncompared) == (["arm"], ["map"])


def test_other_parameters_are_something_to_do_and_those_of_nodes_that_are_gone_go():
    fleet = [Candidate("r1", {}, is_on_it=True, params={"grip/force": 1, "arm/speed": 2})]
    with pytest.raises(ControlError, match="the robot has it already"):
        select(new(params={"grip/force": 1, "arm/speed": 2}), fleet, 2, [*NODES, "arm"])
    (member,) = select(new(params={"grip/force": 3}), fleet, 2, NODES).members
    assert member.params == {"grip/force": 3}
    fleet = [Candidate("r1", {}, params={"grip/force": 1, "arm/speed": 2})]
    (member,) = select(new(), fleet, 2, NODES).members
    assert member.params == {"grip/force": 1}
    assert member.before_params == {"grip/force": 1, "arm/speed": 2}
    with pytest.raises(ControlError, match=r"no node for the parameter `gripp/force`.*`grip`"):
        select(new(params={"gripp/force": 1}), fleet, 2, NODES)


# -- windows


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ("Mon-Fri 22:00-05:00", "2026-11-27T23:30", "2026-11-27T23:30"),  # Friday night
        ("Mon-Fri 22:00-05:00", "2026-11-28T04:59", "2026-11-28T04:59"),  # it began on Friday
        ("Mon-Fri 22:00-05:00", "2026-11-28T05:00", "2026-11-30T22:00"),  # next on Monday
        ("Fri-Mon 08:00-09:00", "2026-11-29T08:30", "2026-11-29T08:30"),  # over the week's end
        ("08:00-08:00", "2026-11-29T03:00", "2026-11-29T03:00"),  # the whole day
        ("Sun 02:00-03:00 Europe/Berlin", "2026-11-29T01:30", "2026-11-29T01:30"),
        ("Sun 02:00-03:00 Europe/Berlin", "2026-11-29T02:30", "2026-12-06T01:00"),
    ],
)
def test_windows_open_at_their_times(window, now, opens):
    assert windows.next_opening([windows.parse(window)], at(now)) == at(opens)


@given(st.integers(0, 6), st.times(), st.times(), st.floats(1.7e9, 2e9))
def test_a_window_is_open_when_it_says_that_it_opens(day, first, last, now):
    text = f"{windows.DAYS[day]} {first:%H:%M}-{last:%H:%M} Europe/Berlin"
    parsed = windows.parse(text)
    opens = windows.next_opening([parsed], now)
    assert opens is not None
    assert opens >= now
    assert windows.next_opening([parsed], opens) == opens


# -- through the protocol


async def test_a_plan_shows_the_difference_of_each_robot(tmp_path):
    async with site(tmp_path, 3, {"r3": {"zone": "yard"}}) as one:
        await one.runs(ID1)
        plan = await one.plan("pick@2", labels={})
        assert plan.release.id == ID2
        assert plan.release.sequence == 2
        assert [(row.robot, row.batch, row.before) for row in plan.robots] == [
            ("r1", 0, ID1),
            ("r2", 1, ID1),
            ("r3", 1, ID1),
        ]
        (changes,) = plan.changes
        assert (changes.replaced, changes.untouched) == (["grip"], ["camera"])
        assert changes.files_changed == ["grip.py"]
        assert changes.size == 1
        assert plan.names == {ID1: "pick@1", ID2: "pick@2"}
        assert plan.robots[0].room is None
        assert not one.control.rollouts.heads
        assert one.agents["r1"].releases.orders == []


async def test_a_plan_names_a_changed_timer_without_the_files_of_a_release(tmp_path):
    async with site(tmp_path, 1) as one:
        releases = []
        for sequence, timer in ((4, "dora/timer/hz/10"), (5, "dora/timer/hz/20")):
            plain = manifest(sequence, camera="1", grip="2")
            nodes = {
                name: msgspec.structs.replace(
                    node, inputs={"tick": timer} if name == "grip" else {}
                )
                for name, node in plain.nodes.items()
            }
            flow, *others = plain.files
            files = [msgspec.structs.replace(flow, sha256=str(sequence) * 64), *others]
            releases.append(msgspec.structs.replace(plain, format=2, nodes=nodes, files=files))
        await one.register(*releases)
        await one.runs(id_of(encode(releases[0])), 4)
        plan = await one.plan("pick@5")
        (changes,) = plan.changes
        assert changes.inputs == ["grip/tick: dora/timer/hz/10 → dora/timer/hz/20"]
        assert (changes.replaced, changes.untouched, changes.uncompared) == ([], ["camera"], [])
        assert plan_row(plan, plan.robots[0])[4] == "1 with other inputs, 1 untouched"


async def test_a_plan_names_robots_whose_disk_is_too_full(tmp_path):
    async with site(tmp_path, 2) as one:
        for robot, room in (("r1", 10**9), ("r2", 0)):
            one.agents[robot].room = room
        await one.runs(ID1)
        await one.fleet.until(lambda: one.control.robots.get("r2").room == 0)
        plan = await one.plan("pick@2")
        assert [plan_row(plan, row)[-2:] for row in plan.robots] == [
            ("1.0 GB", ""),
            ("0 B", "its disk is too full for the new content"),
        ]


async def test_releases_are_refused_before_anything_changes(tmp_path):
    async with site(tmp_path, 2) as one:
        content = encode(TWO)
        for bad, words in (
            (b"no zlib", "not compressed"),
            (zlib.compress(b"{}"), "the manifest is not valid"),
            (zlib.compress(content), "there is no SSH signature"),
            (zlib.compress(content)[:-4], "not complete"),
            (zlib.compress(b"x" * (5 << 20)), "at most"),
        ):
            with pytest.raises(ControlError, match=words):
                await one.fleet.call("release.put", r.ReleasePut(content=bad, signature="s"))
        with pytest.raises(ControlError, match="signature is missing"):
            await one.fleet.call(
                "release.put", r.ReleasePut(content=zlib.compress(content), signature="")
            )
        changed = r.ReleasePut(
            content=zlib.compress(content.replace(b"pick", b"pack")), signature=put(TWO).signature
        )
        with pytest.raises(ControlError, match="the signature does not fit the manifest"):
            await one.fleet.call("release.put", changed)
        other = manifest(9, arch="riscv64")
        await one.fleet.call("release.put", put(other))
        with pytest.raises(ControlError, match="robot `r1` and 1 more: it is for riscv64"):
            await one.start("pick@9")
        with pytest.raises(ControlError, match="`dorafleet plan pick@77` registers it"):
            await one.start("pick@77")
        with pytest.raises(ControlError, match=r"no release `pic` .*did you mean `pick`"):
            await one.start("pic")
        assert not one.control.rollouts.heads


async def test_a_dataflow_that_was_started_by_hand_and_a_release_exclude_each_other(tmp_path):
    flow = {"nodes": [{"id": "a", "path": "a.py", "deploy": {"machine": "r1"}}]}
    async with site(tmp_path, 2) as one:
        await one.fleet.start(flow, name="pick")
        for robots in ([], ["r2"]):  # one name is one deployment, also on other robots
            with pytest.raises(ControlError, match="`pick` was started by hand on r1") as caught:
                await one.start("pick@1", robots=robots)
            assert "dora stop pick" in str(caught.value)
        await one.fleet.call("dataflow.stop", m.Stop(dataflow="pick"))
        number = await one.start("pick@1", robots=["r2"], strategy=strategy(canary=0))
        with pytest.raises(ControlError, match=f"rollout {number} is|belongs to the release"):
            await one.fleet.start(flow, name="pick")
        await one.until(number, "succeeded")
        await one.fleet.call("dataflow.clean")
        with pytest.raises(ControlError, match="belongs to the release"):
            await one.fleet.start(flow, name="pick")


async def test_a_deployment_records_each_change_of_what_should_run(tmp_path):
    flow = {"nodes": [{"id": "a", "path": "a.py", "deploy": {"machine": "r1"}}]}
    async with site(tmp_path, 2) as one:
        await one.fleet.start(flow, name="pick")
        started = one.control.fleet.deployments["pick"]
        assert started.source == "inline" and started.run is not None
        await one.fleet.call("dataflow.stop", m.Stop(dataflow="pick"))
        number = await one.start("pick@1", labels={}, robots=["r2"], params={"grip/force": 2})
        released = one.control.fleet.deployments["pick"]
        assert (released.source, released.rollout) == ("release", number)
        assert (released.robots, released.params) == (["r2"], {"grip/force": 2})
        await one.until(number, "succeeded")
        await one.act("undo", number)
        await one.fleet.call("dataflow.clean")
        last = one.control.fleet.deployments["pick"]
        assert last.run is None
        assert [(each.number, each.what, each.release) for each in last.history] == [
            (1, "dataflow.start", ""),
            (2, "dataflow.stop", ""),
            (3, "rollout.start", ID1),
            (4, "rollout.undo", ID1),
        ]
        assert last.history[0].run == started.run.uuid
        known = dict(one.control.fleet.deployments)
        await one.control.fleet.load()
        assert one.control.fleet.deployments == known


async def test_an_unknown_version_of_a_plan_starts_nothing(tmp_path):
    async with site(tmp_path, 1) as one:
        for version in (None, 77):
            with pytest.raises(ControlError):
                await one.fleet.call("rollout.start", one.new("pick@1", if_version=version))
        with pytest.raises(ControlError, match="there is no rollout yet"):
            await one.status()
        with pytest.raises(ControlError, match="there is no rollout 7"):
            await one.act("pause", 7)


async def test_drift_names_each_difference_and_the_way_back(tmp_path):
    async with site(tmp_path, 3) as one:
        await one.runs(ID1)
        one.agents["r1"].releases.fate = "reverted"
        keys = {"strategy": strategy(canary=0, auto_revert=False, failure_threshold=5)}
        number = await one.start("pick@2", **keys)
        await one.until(number, "succeeded_partially", over=True)
        await one.fleet.until(lambda: one.control.robots.get("r1").releases["pick"].running == ID1)
        one.agents["r2"].releases.runs("pick", ID1)
        await one.agents["r3"].stop()
        await one.fleet.until(lambda: one.control.robots.get("r2").releases["pick"].running == ID1)
        found = await one.fleet.call("drift.list")
        rows = {row.robot: row for row in found.rows if row.what == "release"}
        assert (rows["r2"].desired, rows["r2"].found) == ("pick@2", "pick@1")
        assert "r3" not in rows
        assert (
            rows["r1"].found
            == "pick@1: dataflow pick went back to what it ran before: node grip failed"
        )
        assert rows["r1"].way_back.startswith("dorafleet rollout start pick@2 --robots r1 --retry")


def confirmed(**fields):
    return ReleaseState(
        dataflow="pick", epoch=1, generation=4, phase="confirmed", since=0.0, **fields
    )


@pytest.mark.parametrize(("lower", "option"), [(False, ""), (True, " --allow-lower")])
def test_the_way_back_of_a_dataflow_that_has_ended_starts_the_same_release_again(lower, option):
    state = confirmed(release=ID1, confirmed=ID1, reason="the dataflow has finished")
    orders = {"pick": RobotAssignment(4, ID1, rollout=3, allow_lower=lower)}
    compared = Compared("r1", orders=orders, releases={"pick": state})
    (row,) = drift_of(compared, lambda release: "pick@1" if release == ID1 else "?")
    assert (row.desired, row.found) == (
        "pick@1",
        "nothing: dataflow pick does not run: the dataflow has finished",
    )
    assert row.way_back == f"dorafleet rollout start pick@1 --robots r1{option}"


@pytest.mark.parametrize("reachable", [True, False])
def test_drift_names_damaged_files_and_the_command_that_sends_them_again(reachable):
    state = confirmed(
        release=ID2, running=ID2, damaged={ID1: "files/grip.py is damaged or missing"}
    )
    orders = {"pick": RobotAssignment(4, ID2, rollout=3)}
    trouble = "" if reachable else "it is off"
    compared = Compared("r1", reachable, trouble, orders=orders, releases={"pick": state})
    *_, row = drift_of(compared, {ID1: "pick@1", ID2: "pick@2"}.__getitem__)
    assert (row.what, row.desired) == ("files", "pick@1")
    assert row.found == "files/grip.py is damaged or missing"
    if reachable:
        assert row.way_back == "dorafleet release push pick@1 FILE --only r1"
    else:
        assert row.way_back.endswith("it is off")


def test_a_name_that_a_robot_has_made_up_is_one_word_of_the_way_back():
    state = confirmed(release=ID1, running=ID1, damaged={";id #": ""})
    compared = Compared(
        "r1",
        orders={"pick": RobotAssignment(4, ID1)},
        releases={"pick": state},
        stopped=["pick/;reboot #"],
    )
    words = [shlex.split(row.way_back) for row in drift_of(compared, lambda id_: id_)]
    assert ["dora", "node", "restart", ";reboot #", "-d", "r1/pick"] in words
    assert ["dorafleet", "release", "push", ";id #", "FILE", "--only", "r1"] in words


@pytest.mark.parametrize("reachable", [True, False])
def test_drift_names_nodes_that_have_ended_of_a_confirmed_release(reachable):
    state = ReleaseState(
        dataflow="pick", epoch=1, generation=3, phase="confirmed", since=0.0, release=ID1,
        running=ID1, confirmed=ID1, failed={"con": "has failed: it exited with code 1"},
        ended={"idle": "has ended: its inputs closed", "log": "was stopped by a command"},
    )  # fmt: skip
    order = RobotAssignment(generation=3, release=ID1, rollout=7)
    compared = Compared(
        robot="r1", reachable=reachable, orders={"pick": order}, releases={"pick": state},
        stopped=["pick/log"],
    )  # fmt: skip
    rows = list(drift_of(compared, {ID1: "pick@1"}.__getitem__))
    rows = [row for row in rows if row.what != "contact"]
    again = "dorafleet rollout start pick@1 --robots r1 --retry starts them again; or "
    back = f"{again}dorafleet rollout undo 7"
    assert [(row.what, row.desired, row.found) for row in rows] == [
        ("node", "con runs", "node con has failed: it exited with code 1"),
        ("node", "idle runs", "node idle has ended: its inputs closed"),
        ("node", "log runs", "log was stopped by a command"),
    ]
    assert rows[0].way_back == (back if reachable else f"once it can be reached: {back}")
    assert rows[2].way_back.endswith("dora node restart log -d r1/pick")
    assert {row.known for row in rows} == {reachable}


def test_drift_names_dead_nodes_of_a_dataflow_that_was_started():
    def finding(cause, node, dataflow="flow"):
        text = f"node {node} failed"
        return m.Finding(
            cause=cause, subject=f"flow/{node}", text=text, severity="fail", since=0.0,
            dataflow=dataflow, node=node,
        )  # fmt: skip

    share = ShareState(
        dataflow="flow", uuid="u", epoch=1, generation=1, status="running", since=0.0
    )
    compared = Compared(
        robot="r1", shares={"flow": share},
        wanted={"flow": RobotAssignment(generation=1, uuid="u")},
        findings=[
            finding("node-failed", "con"), finding("node-ended", "idle"),
            finding("input-broken", "x"), finding("node-failed", "y", "other"),
        ],
    )  # fmt: skip
    rows = list(drift_of(compared, lambda id_: id_))
    assert [row.desired for row in rows] == ["con runs", "idle runs"]
    assert rows[0].way_back == "dora node restart con -d flow"


def test_drift_names_nodes_that_a_command_has_stopped_of_dataflows_that_shall_run():
    orders = {
        "pick": RobotAssignment(4, ID1, rollout=3),
        "old": RobotAssignment(5, ID1, enabled=False),
    }
    state = confirmed(release=ID1, running=ID1)
    share = {"dataflow": "map", "uuid": "u", "epoch": 1, "generation": 1}
    compared = Compared(
        "r1",
        orders=orders,
        releases={"pick": state},
        wanted={"map": RobotAssignment(1, uuid="u")},
        shares={"map": ShareState(**share, status="running", since=0.0)},
        stopped=["pick/grip10", "pick/grip2", "map/slam", "old/arm", "by hand/lab"],
    )
    rows = list(drift_of(compared, lambda _: "pick@1"))
    rows = [row for row in rows if row.what == "node"]
    assert [row.found for row in rows] == [
        "slam was stopped by a command",
        "grip2 was stopped by a command",
        "grip10 was stopped by a command",
    ]
    assert [row.desired for row in rows] == ["slam runs", "grip2 runs", "grip10 runs"]
    assert rows[0].way_back == "dora node restart slam -d map"
    assert rows[1].way_back == "dora node restart grip2 -d r1/pick"
    away = replace(compared, reachable=False, trouble="it is off")
    (row, *_) = [each for each in drift_of(away, lambda _: "pick@1") if each.what == "node"]
    assert (row.known, row.way_back) == (
        False,
        "once it can be reached: dora node restart slam -d map",
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "`r0`: it is off"), (2, "`r0` and 1 more: it is off"), (3, "`r0` and 2 more: it is off")],
)
def test_a_rollout_of_no_robot_names_the_first_and_how_many_there_are_besides(count, words):
    error = _nothing_left({f"r{number}": "it is off" for number in range(count)})
    assert error.message == f"there is nothing to do: {words}"
    error = _nothing_left({f"r{number}": HAS_IT for number in range(count)})
    robots = "the robot has" if count == 1 else f"all {count} robots have"
    assert error.message == f"there is nothing to do: {robots} it already"
