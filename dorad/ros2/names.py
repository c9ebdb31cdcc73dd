"""Names in ROS 2: those of nodes and topics, as it makes them of those in a dataflow file."""

from __future__ import annotations

import re

SIM_TIME = "use_sim_time"
"""The parameter of a node that follows /clock."""


def ros_name(node_id: str) -> str:
    """Return the name of the ROS 2 node for a node's id, which may have other characters."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", node_id)
    return f"_{name}" if name[0].isdigit() else name


def full_name(name: str, namespace: str, node_name: str) -> str:
    """Return the full name of a topic as ROS 2 makes it of the name in a file."""
    if name.startswith("/"):
        return name
    if name.startswith("~"):
        name = f"{node_name}{name[1:]}"
    space = namespace.strip("/")
    return f"/{space}/{name}" if space else f"/{name}"
