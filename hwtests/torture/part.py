"""What one process of the torture test plays, as the harness tells it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """One incarnation of a node. `folder` is where its ledger and its complaints are."""

    node: str
    incarnation: int
    seed: int
    config: str
    folder: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Part:
        return cls(**fields | {key: tuple(fields[key]) for key in ("outputs", "inputs")})
