"""The `resources` block of a node, and `user`."""

from typing import Any

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.nodes import read_one
from dorad.dataflow.settings import Resources


def read(**keys: Any) -> Any:
    return read_one({"id": "n", "path": "n.py", **keys})


def test_sizes_and_shares_are_read() -> None:
    block = {"memory_max": "1.5GB", "memory_high": 1 << 30, "cpu_quota": "150%", "tasks_max": 9}
    assert read(resources=block).resources == Resources(
        memory_max=3 << 29, memory_high=1 << 30, cpu_quota=1.5, tasks_max=9
    )
    assert read(resources={"cpu_quota": 0.5}).resources.cpu_quota == 0.5
    assert read().resources is None


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ({"memory_max": "12XB"}, "unknown unit"),
        ({"memory_max": 1000}, "less than 1 MB"),
        ({"cpu_quota": "lots"}, "is not a CPU quota"),
        ({"cpu_quota": 0}, "is not a CPU quota"),
        ({"cpu_weight": 0}, "from 1 to 10000"),
        ({"memory_max": "1MB", "memory_high": "2MB"}, "is above `memory_max`"),
        ({"memory": "1MB"}, "write `memory_max`"),
    ],
)
def test_errors_are_reported(block: dict[str, Any], error: str) -> None:
    with pytest.raises(DataflowError, match=error):
        read(resources=block)


def test_a_user_is_a_name() -> None:
    assert read(user="robot").user == "robot"
    with pytest.raises(DataflowError, match="is not a valid user name"):
        read(user="a b")
