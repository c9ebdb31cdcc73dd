"""The description of one process of the torture test, sent to the fork server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

FAULTS_FILE = "faults"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process of a node; its ledger and the faults it finds are in `folder`."""

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
    def from_json(cls, fields: dict[str, Any]) -> ProcessSpec:
        return cls(**fields | {key: tuple(fields[key]) for key in ("outputs", "inputs")})
