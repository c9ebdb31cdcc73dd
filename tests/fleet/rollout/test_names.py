"""`NAME` and `INSTANCE/NAME` mean the same in every method about a dataflow: a table of both."""

import os
from contextlib import aclosing, asynccontextmanager

import msgspec
import pytest

from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorad.control.server import Call
from dorafleet.coordinator.messages import METHODS, Explain
from dorafleet.coordinator.onerobot import with_robots

from .test_cells import CELLS, cells
from .test_devices import release

TALK = {
    "nodes": [
        {"id": "talker", "path": "a.py", "outputs": ["out"], "deploy": {"machine": "r1"}},
        {"id": "hearer", "path": "b.py", "inputs": {"in": "talker/out"},
         "deploy": {"machine": "r2"}},
    ]
}  # fmt: skip

OWN_WAY = (
    "logs.read",
    "incident.list",
    "incident.mark",
    "dataflow.explain",
    "trace.list",
    "trace.paths",
)
"""Methods about several robots at once, or about nothing that runs: each finds it itself."""

ABOUT = {
    name: method
    for name, method in METHODS.items()
    if "dataflow" in method.params.__struct_fields__
    and method.role != "coordinator"
    # The first two no coordinator answers; of the others it is half of a key, or a deployment.
    and name not in ("dataflow.open", "dataflow.update")
    and not name.startswith(("desired.", "rollout.", "incidents."))
}

FORMS = {
    # Who answers with the scope `any`, and about what it is asked; then with the scope `placed`.
    "talk": ("fleet talk", "fleet talk"),  # started through the coordinator
    "UUID": ("fleet UUID", "fleet UUID"),
    "r1/talk": ("fleet talk", "fleet talk"),
    "look": ("r3 look", "refused"),  # a release that one robot runs
    "r3/look": ("r3 look", "refused"),
    "pick": ("ambiguous", "refused"),  # a release that two cells run
    "a/pick": ("fleet a/pick", "refused"),
    "r2/pick": ("r2 pick", "refused"),  # the part of one machine
    "survey": ("r4 survey", "refused"),  # started on the robot itself
    "r4/survey": ("r4 survey", "refused"),
    "r1/nowhere": ("r1 nowhere", "refused"),  # only that robot could know it
    "r9/look": ("not-found", "not-found"),
    "nowhere": ("fleet nowhere", "fleet nowhere"),  # which does not know it
}


def keeps(name, who):
    """Return a handler that answers with who was asked about which dataflow."""

    async def handler(_call, params):
        raise ControlError("busy", f"{who} {params.dataflow}")

    async def stream(_call, params):
        raise ControlError("busy", f"{who} {params.dataflow}")
        yield

    return stream if METHODS[name].stream else handler


async def described(_call, params):
    if params.dataflow in ("pick", "look", "survey", "nowhere"):
        raise ControlError("busy", f"robot {params.dataflow}")
    info = m.DataflowInfo(
        uuid=params.dataflow, name=None, status="running", nodes=2, cpu=0.0, memory=0, started_at=0
    )
    nodes = [{"id": "camera", "path": "c.py"}, {"id": "grip", "path": "g.py"}]
    return m.DataflowDetail(info=info, descriptor={"nodes": nodes}, path="/x.yml", log_dir="")


@asynccontextmanager
async def fleet_of_all_kinds(folder):
    async with cells(folder) as one:
        for id_ in ("r1", "r2", "r3", "r4"):
            agent = one.agents[id_]
            await one.fleet.disconnect(agent)
            agent.handlers = {name: keeps(name, id_) for name in ABOUT if METHODS[name].scope}
            agent.handlers["dataflow.info"] = described
            await one.fleet.connect(agent)
        await one.register(release("look", "eye"))
        await one.until(await one.start(scope=CELLS), "succeeded", over=True)
        await one.until(await one.start("look@1", robots=["r3"]), "succeeded", over=True)
        one.control.robots.get("r4").dataflows = ("pick", "survey")
        one.uuid = (await one.fleet.start(TALK)).uuid
        await one.fleet.wait("running")
        yield one


def params_of(method, dataflow):
    """Return complete parameters about a dataflow."""
    given = {"node": "talker", "key": "k", "value": 1, "topic": "talker/out", "data": [1],
             "source": "talker/out", "target": "hearer/in", "definition": {}}  # fmt: skip
    required = [each.name for each in msgspec.structs.fields(method.params) if each.required]
    return method.params(
        **{name: given[name] for name in required if name != "dataflow"}, dataflow=dataflow
    )


async def outcome(table, method, dataflow):
    """Return who is asked about which dataflow, or the code of the error."""
    params = params_of(method, dataflow)
    call = Call(1, method.name, Peer(0, os.getuid(), os.getgid(), name="ann"), "test 1")
    with pytest.raises(ControlError) as caught:
        if method.stream:
            async with aclosing(table[method.name](call, params)) as stream:
                await anext(stream)
        else:
            await table[method.name](call, params)
    error = caught.value
    return (error.message, error.hint) if error.code == "busy" else (error.code, error.hint)


async def test_every_method_takes_both_forms_of_names(tmp_path):
    async with fleet_of_all_kinds(tmp_path) as one:
        control = one.control
        inner = {name: keeps(name, "fleet") for name in ABOUT}
        table = with_robots(inner, *(control.fleet, control.robots), control._instances,
                            control._streams)  # fmt: skip
        wrong = []
        for name, method in ABOUT.items():
            if name in OWN_WAY:
                assert method.scope == "server"
                continue
            column = ("any", "placed").index(method.scope)
            for form, expected in FORMS.items():
                given = one.uuid if form == "UUID" else form
                found, hint = await outcome(table, method, given)
                found = found.replace(one.uuid, "UUID").replace("robot ", f"{expected[0][:2]} ")
                if found != expected[column]:
                    wrong.append(f"{name} {form}: {found}, not {expected[column]}")
                elif found in ("refused", "ambiguous"):
                    assert hint, f"{name} {form}: no next step"
        assert not wrong


LINES_FROM = {
    "talk": "r1 r2",
    "r1/talk": "r1",
    "look": "r3",
    "r3/look": "r3",
    "pick": "r1 r2 r3 r4",
    "a/pick": "r1 r2",
    "r2/pick": "r2",
    "survey": "r4",
    "r4/survey": "r4",
}


async def test_lines_incidents_and_traces_come_from_all_robots_that_a_name_means(tmp_path):
    async with fleet_of_all_kinds(tmp_path) as one:
        found = {}
        for id_, agent in one.agents.items():
            await one.fleet.disconnect(agent)

            async def boxes(_call, _params, id_=id_):
                found.setdefault("boxes", set()).add(id_)
                return m.IncidentList(boxes=[])

            async def read(_call, _params, id_=id_):
                found.setdefault("lines", set()).add(id_)
                yield m.LogLines(dataflow="x", lines=[])

            async def traces(_call, params, id_=id_):
                found.setdefault("traces", set()).add(id_)
                traces = [
                    m.Trace(id=f"{id_}.{number}", dataflow="x", start=int(id_[1:]), duration=0.0,
                            path="", span_count=1)
                    for number in range(2)
                ]  # fmt: skip
                return m.TraceList(traces=traces, counts=m.TraceCounts(records=5), left_out=1)

            async def paths(_call, _params, id_=id_):
                found.setdefault("paths", set()).add(id_)
                return m.TracePaths(paths=[], counts=m.TraceCounts(drops=1))

            agent.handlers |= {
                "incident.list": boxes,
                "logs.read": read,
                "trace.list": traces,
                "trace.paths": paths,
            }
            await one.fleet.connect(agent)
        for form, robots in LINES_FROM.items():
            found.clear()
            await one.fleet.call("incident.list", m.Ref(dataflow=form))
            async for _ in one.fleet.stream("logs.read", m.LogRead(dataflow=form)):
                pass
            listed = await one.fleet.call("trace.list", m.TraceQuery(dataflow=form, limit=1))
            assert [each.machine for each in listed.traces] == [max(robots.split())]
            count = len(robots.split())
            assert (listed.left_out, listed.counts.records) == (3 * count - 1, 5 * count)
            figures = await one.fleet.call("trace.paths", m.TracePathQuery(dataflow=form))
            assert figures.counts.drops == count
            kinds = ("boxes", "lines", "traces", "paths")
            assert found == {kind: set(robots.split()) for kind in kinds}, form


async def test_a_deployment_or_an_instance_is_explained(tmp_path):
    async with fleet_of_all_kinds(tmp_path) as one:

        async def explained(name):
            return await one.fleet.call("dataflow.explain", Explain(dataflow=name))

        for name in ("talk", one.uuid, "r1/talk"):
            assert {each.node: each.machine for each in (await explained(name)).nodes} == {
                "talker": "r1", "hearer": "r2",
            }, name  # fmt: skip
        for name in ("a/pick", one.control.fleet.find("a/pick").uuid):
            assert {each.node: each.machine for each in (await explained(name)).nodes} == {
                "camera": "r2", "grip": "r1",
            }, name  # fmt: skip
        rows = {each.robot: each for each in (await explained("pick")).robots}
        assert [(each.instance, each.nodes) for each in rows.values()] == [
            ("a", ["grip"]), ("a", ["camera"]), ("b", ["grip"]), ("b", ["camera"]),
        ]  # fmt: skip
        assert rows["r1"].reason == "rollout 1 is for all robots; its label `cell` is `a`"
        rows = {
            each.robot: (each.instance, each.reason) for each in (await explained("look")).robots
        }
        assert rows["r3"] == ("r3", "rollout 2 names it")
        assert rows["r1"] == ("", "rollout 2 does not name it")
        for name in ("nowhere", "c/pick", "r9/talk"):
            with pytest.raises(ControlError, match=f"there is no deployment `{name}`") as caught:
                await explained(name)
            assert caught.value.hint
