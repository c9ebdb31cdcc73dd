"""The dora-rs wheel, which nearly every third-party node pulls in, does not get in our way."""

from .conftest import Case


def test_a_node_started_by_us_gets_our_dora_beside_the_wheel(run_case: Case) -> None:
    outcome = run_case("wheel", "wheel.yml", stop_after=20).expect(0)
    assert "WHEEL 1.1.0" in outcome.output, outcome.output
    assert "dorad/compat/dora/" in outcome.output, f"another dora was imported: {outcome.output}"
