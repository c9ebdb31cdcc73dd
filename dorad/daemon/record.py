"""One dataflow of the daemon, running or ended: what is stored of it, and its run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dorad.control.messages import (
    DataflowInfo,
    DataflowState,
    Failure,
    NodeResult,
    Status,
)
from dorad.daemon.bell import Bell

if TYPE_CHECKING:
    from dorad.daemon.rules.exits import Result
    from dorad.daemon.rules.report import Block
    from dorad.daemon.run import DataflowRun
    from dorad.daemon.state import Row
    from dorad.dataflow.model import Dataflow


@dataclass(slots=True, eq=False)
class Record:
    """One dataflow. `run` is there while it runs."""

    row: Row
    dataflow: Dataflow | None = None
    """As it is now; None for one that ended under an earlier daemon."""
    run: DataflowRun | None = None
    task: asyncio.Task[None] | None = None
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was set at run time, by node and key."""
    bell: Bell = field(default_factory=Bell)
    """Rings at every change of what follows from this record."""
    restarting: bool = False
    """Whether it is being stopped in order to be started again."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the topology changes: one change at a time."""

    @property
    def uuid(self) -> str:
        """Which run of a dataflow this is."""
        return self.row.uuid

    @property
    def name(self) -> str | None:
        """What its user called it."""
        return self.row.name

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.row.ended_at is None

    @property
    def status(self) -> Status:
        """Where in its life it is."""
        return self.row.status  # type: ignore[return-value]  # only statuses are ever stored

    def state(self) -> DataflowState:
        """Return it as a reply."""
        return DataflowState(
            uuid=self.uuid,
            name=self.name,
            status=self.status,
            results=[NodeResult(**entry) for entry in self.row.results],
            failures=[Failure(**entry) for entry in self.row.failures],
        )

    def info(self, *, nodes: int, cpu: float, memory: int) -> DataflowInfo:
        """Return it as a row of a list."""
        return DataflowInfo(
            uuid=self.uuid,
            name=self.name,
            status=self.status,
            nodes=nodes,
            cpu=cpu,
            memory=memory,
            started_at=self.row.started_at,
            ended_at=self.row.ended_at,
            enabled=self.row.enabled,
        )


def stored_result(result: Result) -> dict[str, Any]:
    """Return how a node ended, as it is stored."""
    exit_ = result.exit
    return {
        "node": result.node,
        "outcome": str(result.outcome),
        "reason": result.reason,
        "code": None if exit_ is None else exit_.code,
        "signal": None if exit_ is None or exit_.signal is None else int(exit_.signal),
    }


def stored_failure(block: Block) -> dict[str, Any]:
    """Return one root cause, as it is stored."""
    return {"headline": block.headline, "lines": list(block.lines)}
