"""What an agent reports: changes only, and never more than a frame."""

import msgspec

from dorad.agent.reports import Deltas
from dorad.control.limits import MAX_REQUEST
from dorad.control.messages import DataflowState, Failure, NodeResult
from dorad.control.messages.agent import AgentReport, ShareState
from dorad.control.messages.releases import Evidence, Lease, ReleaseState


def share(name: str) -> ShareState:
    failures = [Failure(headline=f"node n{n} failed", lines=["x" * 2000] * 20) for n in range(50)]
    results = [NodeResult(node=f"n{n}", outcome="failed", reason="code 1") for n in range(50)]
    outcome = DataflowState(
        uuid="u", name=name, status="failed", results=results, failures=failures
    )
    return ShareState(
        dataflow=name,
        uuid="u",
        epoch=1,
        generation=1,
        status="failed",
        since=0.0,
        reason="it failed",
        outcome=outcome,
    )


def release(name: str) -> ReleaseState:
    return ReleaseState(
        dataflow=name,
        epoch=1,
        generation=1,
        phase="probation",
        since=0.0,
        release="a" * 64,
        evidence=[Evidence(check=f"node n{n}", ok=n != 1500, text="y" * 100) for n in range(2000)],
        leases=[
            Lease(id=f"u/n/{n}", reason="r" * 200, owner="o" * 200, since=0) for n in range(5000)
        ],
    )


def test_dataflows_of_very_many_failures_and_leases_fit_into_one_report() -> None:
    deltas = Deltas()
    shares, _ = deltas.take({f"s{n}": share(f"s{n}") for n in range(20)})
    releases = deltas.take_releases({f"r{n}": release(f"r{n}") for n in range(20)})
    frame = msgspec.json.encode(AgentReport(time=0.0, shares=shares, releases=releases))
    assert len(frame) < MAX_REQUEST
    assert [each.node for each in shares[0].outcome.results] == [f"n{n}" for n in range(50)]
    assert releases[0].evidence[0].check == "node n1500"
    assert deltas.take({f"s{n}": share(f"s{n}") for n in range(20)}) == ([], [])


def test_a_usual_state_is_reported_as_it_is() -> None:
    usual = msgspec.structs.replace(release("r"), evidence=[], leases=[])
    assert Deltas().take_releases({"r": usual}) == [usual]
