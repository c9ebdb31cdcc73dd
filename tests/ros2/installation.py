"""A folder that looks like an installation of ROS 2 with two messages."""

import json
from pathlib import Path
from typing import Any

INT32, FLOAT32, TEXT, NESTED = 6, 10, 17, 1
UNBOUNDED = 3 * 48
"""Added to the number of a type, this is that of sequences of it."""


def install(prefix: Path) -> Path:
    """Write `demo_msgs/Stamp` and `demo_msgs/Level`, which has one; return the prefix."""
    stamp = [field("sec", INT32), field("frame", TEXT)]
    level = [
        field("stamp", NESTED, nested="demo_msgs/msg/Stamp"),
        field("value", FLOAT32),
        field("names", UNBOUNDED + TEXT),
    ]
    describe(prefix, "Stamp", {"demo_msgs/msg/Stamp": stamp})
    describe(prefix, "Level", {"demo_msgs/msg/Level": level, "demo_msgs/msg/Stamp": stamp})
    return prefix


def field(name: str, type_id: int, nested: str = "") -> dict[str, Any]:
    """Return a field as type descriptions have it."""
    kind = {"type_id": type_id, "capacity": 0, "string_capacity": 0, "nested_type_name": nested}
    return {"name": name, "type": kind, "default_value": ""}


def describe(prefix: Path, name: str, messages: dict[str, list[dict[str, Any]]]) -> None:
    """Write the type description of a message; it is the first of `messages`."""
    described = [{"type_name": each, "fields": fields} for each, fields in messages.items()]
    content = {
        "type_description_msg": {
            "type_description": described[0],
            "referenced_type_descriptions": described[1:],
        },
        "type_hashes": [{"type_name": each, "hash_string": f"RIHS01_{each}"} for each in messages],
    }
    folder = prefix / "share" / "demo_msgs" / "msg"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))
