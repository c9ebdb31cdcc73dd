"""Names of units, and the paths of their D-Bus objects."""

from __future__ import annotations

import re

PREFIX = "dorad-"
SUFFIX = ".service"
PATTERN = f"{PREFIX}*{SUFFIX}"
_PART = 90
"""Maximum number of characters of a dataflow's or node's name in a unit's name (limit: 255)."""
_OBJECTS = "/org/freedesktop/systemd1/unit/"


def unit_name(dataflow: str, node: str, number: int) -> str:
    """Return `dorad-<dataflow>-<node>-<number>.service`, escaped as unit names require."""
    return f"{PREFIX}{_escape(dataflow)}-{_escape(node)}-{number}{SUFFIX}"


def without_number(name: str) -> str:
    """Return the common beginning of the names of all units of a node."""
    return name.rpartition("-")[0]


def number_of(name: str) -> int:
    """Return the number at the end of a unit's name, 0 if there is none."""
    match = re.fullmatch(r".*-(\d+)\.service", name)
    return int(match[1]) if match else 0


def object_path(unit: str) -> str:
    """Return the D-Bus path of a unit."""
    return _OBJECTS + re.sub(
        r"[^A-Za-z0-9]|^[0-9]",
        lambda match: "".join(f"_{byte:02x}" for byte in match[0].encode()),
        unit,
    )


def _escape(text: str) -> str:
    escaped = re.sub(
        r"[^A-Za-z0-9_.:-]",
        lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()),
        text,
    )
    # Remove an escaped byte that was cut.
    return re.sub(r"\\(x.?)?$", "", escaped[:_PART])
