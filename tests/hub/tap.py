"""The events that the tap of a case has written, by input."""

from pathlib import Path
from typing import Any

from tests.harness.dataflow import json_lines

Event = dict[str, Any]


class Tap:
    """The events that a tap saw, in order."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = json_lines(folder / "tap.jsonl")

    def inputs(self, input_id: str) -> list[Event]:
        """Return the INPUT events of one input."""
        return [e for e in self.events if e["type"] == "INPUT" and e["id"] == input_id]

    def values(self, input_id: str) -> list[list[Any]]:
        """Return the (at most 16) first values of each of its arrays."""
        return [event["head"] for event in self.inputs(input_id)]
