"""The agent program with signed releases, a coordinator and a real dorad."""

import hashlib
import uuid
from textwrap import dedent

import pytest
import yaml

from dorad.agent.assignments.files import TreeLibrary
from dorad.agent.folder import releases_folder, signers_folder
from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.agent import RELEASE_ORDER
from dorad.control.messages.releases import Group, ReleaseOrder
from dorad.release.machine import this_machine
from dorad.release.manifest import NodeContent
from dorad.release.signature import ALLOWED, Signers
from dorad.release.trees import Trees
from tests.agent.assignments.robot import QUICK, SINK, SOURCE, eventually, flow
from tests.agent.fleet import fleet
from tests.harness.daemon import daemon
from tests.harness.flows import seen
from tests.harness.waiting import until
from tests.release import samples

pytestmark = pytest.mark.timeout(240)


def signed(folder, *, sequence=1, sink=SINK, key=samples.KEY):
    """Return a release that counts."""
    scripts = {"source": dedent(SOURCE).encode(), "sink": dedent(sink).encode()}
    nodes = {
        name: NodeContent(hashlib.sha256(content).hexdigest(), python=True)
        for name, content in scripts.items()
    }
    files = {f"nodes/{name}.py": content for name, content in scripts.items()}
    files["nodes/dataflow.yml"] = yaml.safe_dump({"nodes": flow(folder)}).encode()
    return samples.release(
        files,
        sequence=sequence,
        key=key,
        machine=this_machine(),
        entry="nodes/dataflow.yml",
        nodes=nodes,
    )


def receive(agent, release):
    """Put a release where it arrives; return its id."""
    trust(agent)
    trees = Trees(releases_folder(agent.folder), Signers(signers_folder(agent.folder)))
    trees.put_manifest(release.content, release.signature)
    for wanted, content in release.objects.items():
        with trees.objects.open_partial(wanted.sha256) as file:
            file.write(content)
        trees.objects.finish(wanted)
    return release.id


def trust(agent, key=samples.KEY):
    folder = signers_folder(agent.folder)
    folder.mkdir(exist_ok=True)
    (folder / ALLOWED).write_text(f"ada@example.org {samples.public(key)}\n")


async def order(control, release, generation, **more):
    asked = ReleaseOrder(
        epoch=1, generation=generation, dataflow="flow", release=release, rules=QUICK, **more
    )
    return await control.client.call(RELEASE_ORDER, asked)


async def reaches(control, phase, generation, **fields):
    def holds():
        state = control.releases.get("flow")
        return (
            state is not None
            and (state.phase, state.generation) == (phase, generation)
            and all(getattr(state, name) == value for name, value in fields.items())
        )

    try:
        await eventually(holds)
    except AssertionError:
        raise AssertionError(f"not {phase}: {control.releases}") from None
    return control.releases["flow"]


@pytest.mark.long
async def test_signed_releases_are_staged_switched_and_reported(folder):
    with daemon() as dorad:
        async with fleet(folder, dorad.paths.control) as (coordinator, agent):
            control = await coordinator.attach()
            first = signed(folder)
            state = await order(control, first.id, 1)
            assert (state.phase, state.generation) == ("pending", 1)
            await reaches(control, "pending", 1, waiting="files")
            receive(agent, first)
            await reaches(control, "staged", 1, waiting="switch")
            await order(control, first.id, 1, switch=True)
            await reaches(control, "confirmed", 1, running=first.id)
            second = signed(folder, sequence=2, sink=dedent(SINK) + "# changed\n")
            receive(agent, second)
            await order(control, second.id, 2, switch=True)
            # A kill of the agent at any moment changes nothing.
            agent.kill()
            await control.close()
            agent.start()
            control = await coordinator.attach()
            state = await reaches(control, "confirmed", 2, running=second.id)
            assert (state.restarted, state.previous) == (["sink"], first.id)
            # The file that `status` shows is written a moment after the coordinator is told.
            line = f"flow: confirmed (ordered {second.id[:12]}, runs"
            await eventually(lambda: line in agent.command("status").stdout)
            with pytest.raises(ControlError, match="older"):
                await order(control, first.id, 1)
            await order(control, first.id, 3, switch=True)
            state = await reaches(control, "pending", 3, refused=True)
            assert "its sequence 1 is below 2" in state.reason
            foreign = signed(folder, sequence=3, key=samples.OTHER)
            trust(agent, samples.OTHER)
            trees = Trees(releases_folder(agent.folder), Signers(signers_folder(agent.folder)))
            trees.put_manifest(foreign.content, foreign.signature)
            trust(agent)
            await order(control, foreign.id, 4, switch=True)
            state = await reaches(control, "pending", 4, refused=True)
            assert "not in" in state.reason
            assert state.running == second.id
            await order(control, None, 5)
            await until(lambda: control.releases["flow"].release == "")
            await control.close()
    numbers = seen(folder)
    assert numbers == list(range(len(numbers)))


@pytest.mark.long
async def test_a_kill_of_the_agent_costs_no_vote_and_no_commit(folder):
    with daemon() as dorad:
        async with fleet(folder, dorad.paths.control) as (coordinator, agent):
            control = await coordinator.attach()
            assert control.attached.groups
            release = signed(folder)
            receive(agent, release)
            placement = {"source": "arm1", "sink": "arm1"}
            group = Group("cell1", str(uuid.uuid4()), Share("arm1", placement))
            await order(control, release.id, 1, switch=True, group=group)
            waits = {"healthy": True, "reason": "it waits for the other machines of cell1"}
            await reaches(control, "probation", 1, confirmed="", **waits)
            for committed in (False, True):
                if committed:
                    await order(control, release.id, 1, switch=True, group=group, committed=True)
                agent.kill()
                await control.close()
                agent.start()
                control = await coordinator.attach()
                if not committed:
                    await reaches(control, "probation", 1, confirmed="", **waits)
            await reaches(control, "confirmed", 1, running=release.id, healthy=False)
            await order(control, None, 2)
            await until(lambda: control.releases["flow"].release == "")
            await control.close()
    numbers = seen(folder)
    assert numbers == list(range(len(numbers)))


def test_a_tree_has_the_environment_of_each_node_that_uses_one(tmp_path):
    robot = samples.Robot(tmp_path / "robot", this_machine())
    wheel = {"site/thing.py": b"x = 1\n"}
    release = samples.release(packages={"thing": wheel}, machine=this_machine())
    library = TreeLibrary(robot.trees)
    assert library.files(release.id) == "missing"
    robot.receive(release)
    assert library.files(release.id) == "received"
    library.stage(release.id)
    assert library.files(release.id) == "staged"
    bundle = library.bundle(release.id)
    assert bundle.environments == {"a": robot.folder / "releases" / release.id / "env"}
    assert "VIRTUAL_ENV" not in (bundle.descriptor.get("env") or {})
