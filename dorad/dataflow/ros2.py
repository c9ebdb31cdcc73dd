"""The `ros2:` block of a node: a declared bridge to ROS 2 topics, a service or an action."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ros2Bridge:
    """What a `ros2:` node bridges."""
