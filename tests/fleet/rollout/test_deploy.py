"""`dorafleet deploy`, `history`, and the deployments in `status`: each deployment once."""

import json

import yaml

from dorad.control import messages as m
from dorafleet.coordinator.deploymentmessages import DeploymentRef

from .site import ID1, site, strategy
from .test_cells import CELLS, cells
from .test_commands import FAST, command_site

FLOW = {"nodes": [{"id": "a", "path": "a.py", "deploy": {"machine": "r1"}}]}


def written(folder, flow, name="flow.yml"):
    path = folder / name
    path.write_text(yaml.safe_dump(flow))
    (folder / "a.py").touch()
    return str(path)


def squeezed(text):
    return [" ".join(line.split()) for line in text.splitlines()]


async def test_the_plan_of_a_file_shows_machines_and_placement_and_changes_nothing(
    tmp_path, capsys
):
    path = written(tmp_path, FLOW)
    async with command_site(tmp_path, capsys, robots=2) as one:
        revision = one.control.fleet.next_generation
        code, out, err = await one.run("deploy", path, "demo", "--plan")
        assert code == 0, err
        lines = squeezed(out)
        assert "one instance, demo, inline, unsigned: r1" in lines
        assert "a r1" in lines
        assert "it replaces nothing" in lines
        code, out, _ = await one.run("deploy", path, "demo", "--plan", "--json")
        assert (code, json.loads(out)["placement"]) == (0, {"a": "r1"})
        assert one.control.fleet.next_generation == revision
        assert not one.control.fleet.deployments


async def test_a_file_is_deployed_as_dora_start_does_and_its_plan_names_what_it_replaces(
    tmp_path, capsys
):
    path = written(tmp_path, FLOW)
    async with command_site(tmp_path, capsys, robots=1) as one:
        code, out, err = await one.run("deploy", path, "demo")
        assert code == 0, err
        first = one.control.fleet.deployments["demo"].run
        assert f"dataflow started: {first.uuid}" in out
        code, _, err = await one.run("deploy", path, "demo", "--plan")
        assert code == 1
        assert "runs already" in err
        await one.fleet.call("dataflow.stop", m.Stop(dataflow="demo"))
        code, out, err = await one.run("deploy", path, "demo", "--plan")
        assert code == 0, err
        assert f"it replaces the run {first.uuid}, which has ended" in out


async def test_a_file_takes_no_options_of_a_rollout_and_a_release_takes_no_name(tmp_path, capsys):
    path = written(tmp_path, FLOW)
    async with command_site(tmp_path, capsys, robots=1) as one:
        for words in (("--scope", "each"), ("--canary", "1"), ("--retry",), ("-l", "a=b")):
            code, _, err = await one.run("deploy", path, "demo", *words)
            assert (code, "needs a release" in err) == (2, True), words
        code, _, err = await one.run("deploy", path, "demo", "--scope", "one", "--plan")
        assert code == 0, err
        code, _, err = await one.release("deploy", "pick@1", "other")
        assert (code, "leave out NAME" in err) == (2, True)
        assert not one.control.fleet.deployments


async def test_a_release_is_deployed_by_a_rollout_and_everything_lists_it_once(tmp_path, capsys):
    path = written(tmp_path, FLOW)
    async with command_site(tmp_path, capsys, robots=2) as one:
        code, out, err = await one.release("deploy", "pick@1", "--plan")
        assert code == 0, err
        assert "r1" in out and not one.control.rollouts.heads
        code, out, err = await one.release("deploy", "pick@1", *FAST)
        assert code == 0, err
        assert "rollout 1  pick@1 on 2 robots  succeeded" in out
        code, out, err = await one.run("deploy", path, "demo")
        assert code == 0, err

        code, out, err = await one.run("status")
        lines = squeezed(out)
        started = [line for line in lines if line.startswith("demo inline, unsigned one 1 ")]
        assert len(started) == 1 and "running" in started[0]
        released = [line for line in lines if line.startswith("pick release pick@1 each 2 ")]
        assert len(released) == 1 and "2 confirmed" in released[0]
        code, out, err = await one.run("history", "pick")
        lines = squeezed(out)
        assert "r2 r2 pick@1 confirmed" in lines
        assert any(
            line.startswith("1 ") and "rollout.start 1 release pick@1" in line for line in lines
        )
        code, out, err = await one.run("history", "pick", "--json")
        assert [json.loads(line)["release"] for line in out.splitlines()] == [ID1]
        code, out, err = await one.run("history", "pock")
        assert code == 1 and "did you mean `pick`" in err


async def test_a_cell_is_one_instance_with_all_its_machines(tmp_path):
    async with cells(tmp_path) as one:
        number = await one.start(scope=CELLS, robots=["r1", "r2"])
        await one.until(number, "succeeded", over=True)
        listed = (await one.fleet.call("deployment.list")).deployments
        assert [(each.name, each.source, each.scope) for each in listed] == [
            ("pick", "release", CELLS)
        ]
        assert [(each.instance, each.robots) for each in listed[0].instances] == [
            ("a", ["r1", "r2"])
        ]


async def test_robots_that_a_rollout_has_not_reached_are_instances_that_wait(tmp_path):
    async with site(tmp_path, 2) as one:
        one.agents["r1"].releases.fate = "probation"
        await one.start("pick@1", strategy=strategy(canary=1))
        await one.fleet.until(lambda: one.control.fleet.orders("r1"))
        listed = (await one.fleet.call("deployment.list")).deployments
        assert listed[0].state.startswith("rollout 1 canary: ")
        assert {each.instance for each in listed[0].instances} == {"r1", "r2"}
        assert listed[0].instances[1].state == "waiting"
        history = await one.fleet.call("deployment.history", DeploymentRef(name="pick"))
        assert [(each.what, each.by) for each in history.revisions] == [("rollout.start", "ann")]
