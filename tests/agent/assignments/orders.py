"""Orders about releases, and what the agent sees, for tests."""

from dorad.agent.assignments.model import Health, Observation, Plan, ReleaseRecord
from dorad.control.messages import Share
from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import Evidence, Group, HealthRules, ReleaseOrder

A, B, C = "a" * 64, "b" * 64, "c" * 64
SEQUENCES = {A: 1, B: 2, C: 3}
UUID = "00000000-0000-4000-8000-000000000009"
OTHER_UUID = "00000000-0000-4000-8000-000000000007"
RULES = HealthRules(min_healthy_time=30, healthy_deadline=300, confirm_deadline=600)


def order(release=A, generation=1, *, epoch=1, switch=True, **more):
    more.setdefault("rules", RULES)
    return ReleaseOrder(
        epoch=epoch,
        generation=generation,
        dataflow="flow",
        release=release,
        switch=switch,
        **more,
    )


def record(first=None, **more):
    return ReleaseRecord(first or order(), UUID, "boot-1", since=0.0, **more)


def plan(release=A):
    return Plan({"camera": release}, ["camera"], SEQUENCES[release])


def share(generation=1, status="running", reason=""):
    return ShareState(
        dataflow="flow",
        uuid=UUID,
        epoch=0,
        generation=generation,
        status=status,
        since=0.0,
        reason=reason,
    )


def seen(now=0.0, *, boot="boot-1", release=A, **more):
    more.setdefault("files", "staged")
    if more["files"] == "staged":
        more.setdefault("plan", plan(release))
    more.setdefault("notices", [])
    return Observation(now=now, wall=1e9 + now, boot=boot, **more)


def health(*, healthy=True, fatal="", rates=None):
    return Health(
        [Evidence(check="node camera", ok=healthy, text="runs")],
        healthy,
        fatal,
        {"camera/image": 30.0} if rates is None else rates,
        ["camera"],
    )


def group(uuid=OTHER_UUID, *, machine="r1", placement=None, **more):
    """Return the machines `r1` and `r2` of the instance `cell1`: `camera` runs on the first."""
    placed = {"camera": "r1", "arm": "r2"} if placement is None else placement
    return Group(instance="cell1", uuid=uuid, share=Share(machine, placed, **more))
