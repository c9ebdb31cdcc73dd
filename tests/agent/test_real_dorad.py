"""The agent with a real dorad and real nodes, which are not to notice what happens to the agent."""

import asyncio
import uuid
from pathlib import Path

import apsw
import msgspec
import pytest

from dorad.control.messages.agent import SHARE_OPEN, ShareRef
from tests.agent.fleet import fleet, send
from tests.agent.orders import order
from tests.harness.daemon import daemon
from tests.harness.flows import SINK, SOURCE, write_flow
from tests.harness.waiting import until

pytestmark = pytest.mark.long


def counting(folder):
    """Return an order for a dataflow that counts, and the file of what has arrived."""
    seen = folder / "seen"
    nodes = [
        {
            "id": "source",
            "path": "source.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "outputs": ["number"],
        },
        {
            "id": "sink",
            "path": "sink.py",
            "inputs": {"number": {"source": "source/number", "queue_size": 1000}},
            "env": {"SEEN": str(seen)},
        },
    ]
    path = write_flow(folder / "flow", nodes, source=SOURCE, sink=SINK)
    asked = order(uuid=str(uuid.uuid4()), path=str(path), descriptor={"nodes": nodes}, hold=20)
    asked.content.share.placement = {"source": "arm1", "sink": "arm1"}
    return asked, seen


def numbers(seen):
    return [int(line) for line in seen.read_text().splitlines()] if seen.exists() else []


async def growing(seen):
    """Wait until more messages arrive."""
    before = len(numbers(seen))
    await until(lambda: len(numbers(seen)) > before + 5)


def pretend_reboot(agent):
    """Change the boot id that the agent has stored."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    database = apsw.Connection(str(agent.folder / "shares.db"))
    for name, content in list(database.execute("SELECT dataflow, record FROM assignment")):
        changed = content.replace(boot.encode(), b"the-boot-before")
        assert changed != content
        database.execute("UPDATE assignment SET record = ? WHERE dataflow = ?", (changed, name))
    database.close()


async def test_nodes_notice_nothing_of_kills_of_the_agent_and_of_dorad(folder, chance):
    with daemon() as dorad:
        async with fleet(folder, dorad.paths.control) as (coordinator, agent):
            asked, seen = counting(folder)
            control = await coordinator.attach()
            await send(control, asked)
            await control.reaches("ready")
            assert numbers(seen) == []
            ref = ShareRef(epoch=1, generation=1, dataflow="flow")
            await control.client.call(SHARE_OPEN, ref)
            await control.reaches("running")
            await growing(seen)
            for _ in range(4):
                agent.kill()
                await control.close()
                agent.start()
                # Also while it starts.
                await asyncio.sleep(chance.uniform(0, 1))
                agent.kill()
                agent.start()
                control = await coordinator.attach()
                await control.reaches("running")
                await growing(seen)
            dorad.kill()
            await until(lambda: control.reports and control.reports[-1].daemon)
            await growing(seen)
            dorad.start()
            await until(lambda: not control.reports[-1].daemon)
            await control.reaches("running")
            await growing(seen)
            asked.generation, asked.enabled = 2, False
            await send(control, asked)
            ended = await control.reaches("stopped", generation=2)
            assert {result.node for result in ended.outcome.results} == {"source", "sink"}
            await control.close()
    found = numbers(seen)
    assert found == list(range(len(found)))


async def test_an_order_that_is_killed_while_it_arrives_is_carried_out_once(folder, chance):
    with daemon() as dorad:
        async with fleet(folder, dorad.paths.control) as (coordinator, agent):
            asked, _ = counting(folder)
            asked.hold = None
            control = await coordinator.attach()
            for attempt in range(6):
                asked.generation = attempt + 1
                asked.enabled = attempt % 2 == 0
                sending = asyncio.create_task(send(control, asked))
                await asyncio.sleep(chance.uniform(0, 0.15))
                agent.kill()
                await asyncio.wait([sending])
                sending.exception()
                await control.close()
                agent.start()
                control = await coordinator.attach()
                await send(control, asked)
                await control.reaches(
                    "running" if asked.enabled else "stopped", generation=asked.generation
                )
                with dorad.client() as client:
                    flows = [flow for flow in client.list() if flow.ended_at is None]
                assert [flow.uuid for flow in flows] == [asked.content.uuid] * asked.enabled
            await control.close()


async def test_after_a_reboot_without_a_network_the_share_runs_again(folder):
    """A reboot, as far as this machine can have one: dorad and its nodes are gone."""
    with daemon() as dorad:
        async with fleet(folder, dorad.paths.control) as (coordinator, agent):
            asked, seen = counting(folder)
            control = await coordinator.attach()
            await send(control, asked)
            await control.reaches("ready")
            ref = ShareRef(epoch=1, generation=1, dataflow="flow")
            await control.client.call(SHARE_OPEN, ref)
            await control.reaches("running")
            await growing(seen)
            await control.close()
            await coordinator.stop()
            agent.kill()
            dorad.kill()
            dorad.clear()
            pretend_reboot(agent)
            dorad.start()
            agent.start()
            await growing(seen)
            assert numbers(seen).count(0) == 2
            await coordinator.start()
            control = await coordinator.attach()
            await control.reaches("running")
            asked.generation, asked.enabled = 2, False
            await send(control, asked)
            await control.reaches("stopped", generation=2)
            await control.close()


def pids(dorad):
    with dorad.client() as client:
        return {node.node: node.pid for node in client.nodes("flow")}


async def test_a_share_changes_while_it_runs_and_a_bad_change_is_reported(folder):
    with daemon() as dorad:
        async with fleet(folder, dorad.paths.control) as (coordinator, _):
            asked, seen = counting(folder)
            asked.hold = None
            control = await coordinator.attach()
            await send(control, asked)
            await control.reaches("running")
            await growing(seen)
            before = pids(dorad)
            more = folder / "more"
            added = {
                "id": "added",
                "path": "sink.py",
                "inputs": {"number": {"source": "source/number", "queue_size": 1000}},
                "env": {"SEEN": str(more)},
            }
            changed = msgspec.json.decode(msgspec.json.encode(asked), type=type(asked))
            changed.generation = 2
            changed.content.descriptor["nodes"].append(added)
            changed.content.share.placement["added"] = "arm1"
            await send(control, changed)
            await control.reaches("running", generation=2)
            await growing(more)
            assert before.items() <= pids(dorad).items()
            wrong = msgspec.json.decode(msgspec.json.encode(changed), type=type(asked))
            wrong.generation = 3
            wrong.content.descriptor["nodes"][-1]["id"] = "wrong"
            wrong.content.descriptor["nodes"][-1]["path"] = "missing.py"
            wrong.content.share.placement["wrong"] = wrong.content.share.placement.pop("added")
            await send(control, wrong)
            refused = await control.reaches("running", generation=3)
            assert "missing.py" in refused.reason
            await growing(seen)
            assert before.items() <= pids(dorad).items()
            wrong.generation, wrong.enabled = 4, False
            await send(control, wrong)
            await control.reaches("stopped", generation=4)
            await control.close()
    found = numbers(seen)
    assert found == list(range(len(found)))
