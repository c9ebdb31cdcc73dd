"""A coordinator joins the traces of its robots, also those that only one of them has chosen."""

import pytest

from dorad.control import messages as m
from dorad.daemon.api.traces import TracedDataflow, TraceMethods
from dorad.trace.machines import Part
from dorad.trace.store import TraceStore, choose
from tests.fleet.control.agents import FakeAgent
from tests.fleet.control.serving import TALK, leading
from tests.trace.test_linked import Machines
from tests.trace.test_machines import two_parts, with_clock

PATH = "camera/tick → camera → detector → planner"


async def with_parts(fleet) -> list[m.TraceQuery]:
    """Connect two robots that keep the parts of one trace; return what they are asked for."""
    asked: list[m.TraceQuery] = []
    parts: dict[str, Part] = {}
    for name in ("arm1", "arm2"):

        async def traces(_call, query: m.TraceQuery, name=name) -> m.TraceList:
            asked.append(query)
            part = parts[name]
            known = [(part.trace, lambda: part.trace)]
            chosen, left_out = choose(known, query)
            return m.TraceList(traces=chosen, counts=m.TraceCounts(records=4), left_out=left_out)

        async def paths(_call, _query: m.TracePathQuery) -> m.TracePaths:
            return m.TracePaths(paths=[], counts=m.TraceCounts())

        fleet.agents[name] = FakeAgent(name, fleet.port)
        fleet.agents[name].handlers = {"trace.list": traces, "trace.paths": paths}
        await fleet.connect(fleet.agents[name])
    alpha, beta = two_parts(50.0, ("arm1", "arm2"), (await fleet.start(TALK)).uuid)
    parts |= {"arm1": alpha, "arm2": with_clock(beta, -0.05)}
    return asked


@pytest.mark.parametrize(
    "query",
    [
        m.TraceQuery(spans=True),
        m.TraceQuery(spans=True, through=["planner"]),
        m.TraceQuery(spans=True, through=["planner", "camera"]),
        # Each part is shorter than that.
        m.TraceQuery(spans=True, min_duration=0.02),
    ],
)
async def test_a_trace_is_whole_whichever_robot_has_chosen_it(tmp_path, query):
    async with leading(tmp_path) as fleet:
        asked = await with_parts(fleet)
        answer = await fleet.call("trace.list", query)
        (trace,) = answer.traces
        assert (trace.path, trace.machine, answer.left_out) == (PATH, None, 0)
        assert trace.clocks["arm2"].offset == pytest.approx(0.05, abs=1e-4)
        if len(query.through) == 1:
            assert any(each.messages for each in asked), "arm1 was not asked for its part"
        for part in two_parts(50.0, ("arm1", "arm2"), trace.dataflow):
            by_id = m.TraceQuery(id=part.trace.id[:8])
            (same,) = (await fleet.call("trace.list", by_id)).traces
            assert (same.id, same.path, same.spans) == (trace.id, PATH, [])


async def test_the_figures_of_a_path_over_machines_are_there_with_those_of_each(tmp_path):
    async with leading(tmp_path) as fleet:
        await with_parts(fleet)
        (path,) = (await fleet.call("trace.paths", m.TracePathQuery())).paths
        assert (path.path, path.count, path.kept_only) == (PATH, 1, True)
        other = m.TracePathQuery(through=["elsewhere"])
        assert not (await fleet.call("trace.paths", other)).paths


async def test_without_the_other_robot_its_part_is_missing_and_it_is_named(tmp_path):
    async with leading(tmp_path) as fleet:
        await with_parts(fleet)
        await fleet.disconnect(fleet.agents["arm1"])
        answer = await fleet.call("trace.list", m.TraceQuery(spans=True))
        (trace,) = answer.traces
        assert (trace.machine, trace.origin.machine) == ("arm2", "alpha")
        assert "arm1" in answer.missing


async def test_a_part_that_a_robot_does_not_keep_is_fetched_while_it_still_has_it(tmp_path):
    async with leading(tmp_path) as fleet:
        stores: dict[str, TraceStore] = {}
        for name in ("arm1", "arm2"):

            async def traces(call, query: m.TraceQuery, name=name) -> m.TraceList:
                flows = [TracedDataflow(flow, "talk", None)]
                return await TraceMethods(stores[name], lambda _: flows).list_all(call, query)

            fleet.agents[name] = FakeAgent(name, fleet.port)
            fleet.agents[name].handlers = {"trace.list": traces}
            await fleet.connect(fleet.agents[name])
        flow = (await fleet.start(TALK)).uuid
        stores |= Machines(60, ("arm1", "arm2"), flow).stores
        kept = len([*stores["arm2"].kept(flow)])
        query = m.TraceQuery(slow=True, limit=1, spans=True)
        (trace,) = (await fleet.call("trace.list", query)).traces
        assert (trace.path, trace.gaps) == ("camera/tick → camera → detector", [])
        assert {span.machine for span in trace.spans} == {"arm1", "arm2"}
        assert len([*stores["arm2"].kept(flow)]) > kept, "it is not kept from now on"
        by_id = m.TraceQuery(id=trace.id, spans=True)
        assert (await fleet.call("trace.list", by_id)).traces == [trace]
