"""The `resources` block of a node: limits for all of its processes together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.settings import Resources
from dorad.dataflow.sizes import parse_size
from dorad.phrases import shorten

if TYPE_CHECKING:
    from dorad.dataflow.fields import Fields

_MAX_WEIGHT = 10_000
_MAX_TASKS = 1 << 22
_MIN_MEMORY = 1 << 20
_MIN_QUOTA = 0.01
_MAX_QUOTA = 10_000.0


def read_resources(node: Fields) -> Resources | None:
    """Return the block, or None."""
    block = node.inside("resources")
    if block is None:
        return None
    resources = Resources(
        memory_max=_memory(block, "memory_max"),
        memory_high=_memory(block, "memory_high"),
        memory_swap_max=block.size("memory_swap_max"),
        cpu_quota=block.checked("cpu_quota", parse_quota, None),
        cpu_weight=block.integer("cpu_weight", minimum=1, maximum=_MAX_WEIGHT),
        io_weight=block.integer("io_weight", minimum=1, maximum=_MAX_WEIGHT),
        tasks_max=block.integer("tasks_max", minimum=1, maximum=_MAX_TASKS),
    )
    block.finish({"cpu_max": "write `cpu_quota`", "memory": "write `memory_max`"})
    if (
        resources.memory_max
        and resources.memory_high
        and resources.memory_high > resources.memory_max
    ):
        block.problems.error(
            block.name_of("memory_high"), "is above `memory_max`, so it has no effect"
        )
    return resources


def parse_quota(text: str) -> float:
    """Return a CPU quota in cores: `"150%"` and `1.5` are 1.5 cores. Raises TextError."""
    number = text.strip().removesuffix("%").strip()
    try:
        quota = float(number)
    except ValueError:
        quota = math.nan
    if text.strip().endswith("%"):
        quota /= 100
    if not _MIN_QUOTA <= quota <= _MAX_QUOTA:
        raise TextError(
            f"`{shorten(text)}` is not a CPU quota",
            'write `"50%"` of one core, or `1.5` cores',
        )
    return quota


def _memory(block: Fields, name: str) -> int | None:
    size = block.checked(name, parse_size, None)
    if size is not None and size < _MIN_MEMORY:
        place = block.name_of(name)
        block.problems.error(place, "is too small: no program starts with less than 1 MB")
        return None
    return size
