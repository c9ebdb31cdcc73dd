"""`[agent]` of dorad.toml: what a robot takes from its coordinator."""

import msgspec
import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Accepts
from tests.agent.fleet import robot, send
from tests.agent.orders import NODE, UUID, order
from tests.harness.waiting import until

ONLY_RELEASES = "[agent]\ninline = false\n"


async def test_a_robot_that_takes_only_releases_refuses_every_unsigned_program(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        (agent.folder / "dorad.toml").write_text(ONLY_RELEASES)
        control = await coordinator.attach()
        ways = [
            (m.DATAFLOW_START, m.Start(descriptor=NODE, path="/srv/f.yml")),
            (
                m.DATAFLOW_UPDATE,
                m.Update(
                    dataflow=UUID,
                    descriptor=NODE,
                    share=m.Share(machine="arm1", placement={}),
                ),
            ),
            (m.NODE_ADD, m.NodeAdd(definition={"id": "b", "path": "b.py"})),
            (m.NODE_REPLACE, m.NodeReplace(node="a", definition={"id": "a", "path": "b.py"})),
        ]
        for method, params in ways:
            with pytest.raises(ControlError, match="runs only signed releases") as caught:
                await control.client.call(method, params)
            assert caught.value.code == "refused"
        with pytest.raises(ControlError, match="runs only signed releases"):
            await send(control, order())
        assert (dorad.started, dorad.updates) == ([], [])
        # Nothing is left that a restart of the agent would start.
        assert all(not report.shares for report in control.reports)


@pytest.mark.parametrize(
    ("key", "others", "reason"),
    [
        ("nodes = ['*/b', 'other/*']", {}, "`nodes` in .agent. .* does not have `flow/a`"),
        ("params = ['flow/b']", {"params": {"a": {"speed": 1}}}, "`params` .* have `flow/a`"),
        ("max_param = 3", {"params": {"a": {"speed": "fast"}}}, "`flow/a/speed` has 6 bytes"),
        (
            "peers = ['arm2', 'cell1-*']",
            {"placement": {"a": "arm1", "b": "cell2-cam"}},
            "cell2-cam",
        ),
        ("peers = []", {"connect_to": ["arm2"]}, "`peers` .* does not have `arm2`"),
        ("networks = ['10.1.0.0/16']", {"connect": ["tls/10.2.0.1:5456"]}, "10.2.0.1"),
        ("networks = ['10.1.0.0/16']", {"connect": ["tls/router.example:5456"]}, "router.example"),
    ],
)
async def test_what_a_coordinator_decides_stays_within_the_bounds_of_the_file(
    folder, key, others, reason
):
    params = others.get("params", {})
    asked = order()
    share = msgspec.structs.replace(
        asked.content.share, **{name: each for name, each in others.items() if name != "params"}
    )
    content = msgspec.structs.replace(asked.content, share=share, params=params)
    asked = msgspec.structs.replace(asked, content=content)
    async with robot(folder) as (coordinator, agent, dorad):
        (agent.folder / "dorad.toml").write_text(f"[agent]\n{key}\n")
        control = await coordinator.attach()
        with pytest.raises(ControlError, match=reason) as caught:
            await send(control, asked)
        assert caught.value.code == "refused"
        assert str(agent.folder / "dorad.toml") in caught.value.hint
        # Neither comes a program by another way.
        with pytest.raises(ControlError, match="bounds what it runs"):
            await control.client.call(
                m.DATAFLOW_START, m.Start(descriptor=NODE, path="/srv/f.yml", params=params)
            )
        assert dorad.started == []
        (agent.folder / "dorad.toml").write_text("")
        await send(control, asked)
        await until(lambda: len(dorad.started) == 1)


async def test_a_parameter_is_set_only_where_the_file_allows_it(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        (agent.folder / "dorad.toml").write_text(
            "[agent]\nparams = ['flow/a']\nmax_param = '1 KB'\n"
        )
        control = await coordinator.attach_running()
        fine = m.ParamSet(node="a", key="speed", value=1)
        await control.client.call(m.PARAM_SET, fine)
        # The daemon is told which dataflow was judged.
        assert dorad.params == [msgspec.structs.replace(fine, dataflow=UUID)]
        for wrong in (
            m.ParamSet(node="b", key="speed", value=1, dataflow="flow"),
            m.ParamSet(node="a", key="speed", value="x" * 1024, dataflow=UUID),
        ):
            with pytest.raises(ControlError, match=r"dorad\.toml") as caught:
                await control.client.call(m.PARAM_SET, wrong)
            assert caught.value.code == "refused"
        with pytest.raises(ControlError, match="`params`"):
            await control.client.call(m.PARAM_DELETE, m.ParamRef(node="b", key="speed"))
        assert len(dorad.params) == 1


async def test_the_coordinator_learns_what_a_robot_takes_and_each_change_of_it(folder):
    async with robot(folder) as (coordinator, agent, _dorad):
        file = agent.folder / "dorad.toml"
        file.write_text(ONLY_RELEASES)
        control = await coordinator.attach()
        assert control.attached.accepts == Accepts(inline=False)
        await until(lambda: control.reports)
        file.write_text("[agent]\nnodes = ['flow/*']\nnetworks = ['10.1.0.0/16']\n")
        newer = Accepts(nodes=["flow/*"], networks=["10.1.0.0/16"])
        await until(lambda: newer in [each.accepts for each in control.reports])
        file.write_text("[agent]\nnodes = flow\n")
        await until(
            lambda: any("refuses what it is to run" in str(r.warnings) for r in control.reports)
        )
        known = [each.accepts for each in control.reports if each.accepts is not None]
        # Each is reported once.
        assert len(known) == 3
        assert "dorad.toml:2" in known[-1].problem


async def test_what_runs_unsigned_can_be_stopped_and_is_not_changed(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach_running()
        # No restart is needed.
        (agent.folder / "dorad.toml").write_text(ONLY_RELEASES)
        with pytest.raises(ControlError, match="runs only signed releases"):
            await send(control, order(2, descriptor={"nodes": []}))
        assert dorad.updates == []
        await send(control, order(3, enabled=False))
        await control.reaches("stopped", generation=3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[agent]\ninline = 0\n", "inline"),
        ("[agent]\ninlin = false\n", "inlin"),
        ("[agent\ninline = false\n", "not valid TOML"),
        ("agent = 1\n", "agent"),
        ("\udcff", "does not say"),
        ("[agent]\nnodes = ['flow']\n", "DATAFLOW/NODE"),
        ("[agent]\nnetworks = ['10.0.0.1/8']\n", "is no network"),
        ("[agent]\nmax_param = 'much'\n", "is not a size"),
        ("[agent]\npeers = ['arm 2']\n", "names no machine"),
    ],
)
async def test_a_mistake_in_the_file_lets_nothing_unsigned_through(folder, text, reason):
    async with robot(folder) as (coordinator, agent, dorad):
        file = agent.folder / "dorad.toml"
        file.write_bytes(text.encode(errors="surrogateescape"))
        control = await coordinator.attach()
        with pytest.raises(ControlError, match=reason) as caught:
            await send(control, order())
        assert caught.value.code == "refused"
        assert "does not say what it takes" in str(caught.value)
        # The sections of dorad itself are not the agent's.
        file.write_text("[nodes]\nuser = 'x'\n[agent]\ninline = true\n")
        await send(control, order())
        await control.reaches("running")
        assert len(dorad.started) == 1
