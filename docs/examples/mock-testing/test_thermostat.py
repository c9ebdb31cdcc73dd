"""Tests the thermostat without a dataflow: temperatures in, switches out."""

import pyarrow as pa
import thermostat
from dora.testing import MockNode


def switches(*temperatures: float) -> list[bool]:
    node = MockNode([("celsius", pa.array([celsius])) for celsius in temperatures])
    thermostat.run(node)
    return [value[0].as_py() for value in node.outputs.get("heating", [])]


def test_stays_off_in_a_warm_room() -> None:
    assert switches(22.0, 20.0, 19.0) == []


def test_heats_until_it_is_warm_not_until_it_is_less_cold() -> None:
    assert switches(18.5, 19.5, 20.5, 21.5) == [True, False]


def test_logs_why_it_switched() -> None:
    node = MockNode([("celsius", pa.array([18.0]))])
    thermostat.run(node)
    assert "heating on at 18.0 degrees" in str(node.logs)
