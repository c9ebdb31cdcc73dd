"""One dataflow of the daemon, running or ended: its stored row and its run."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dorad.bell import Bell
from dorad.control.messages import (
    DataflowInfo,
    DataflowState,
    Failure,
    LinkPeer,
    NodeResult,
    Share,
    Status,
)
from dorad.daemon.rules.exits import Result
from dorad.daemon.rules.report import Block
from dorad.daemon.run import DataflowRun
from dorad.daemon.state import Row
from dorad.dataflow import params
from dorad.dataflow.errors import DataflowError
from dorad.dataflow.load import from_descriptor
from dorad.dataflow.model import Dataflow, NodeSpec
from dorad.dataflow.recording import recorded
from dorad.dataflow.share import share
from dorad.dataflow.support import unsupported

_LOST = "lost"
"""The key that the snapshot of a lost dataflow has."""


@dataclass(slots=True, eq=False)
class Record:
    """One dataflow. `run` is set while it runs."""

    row: Row
    dataflow: Dataflow | None = None
    """The current dataflow; None for one that ended under a previous daemon."""
    run: DataflowRun | None = None
    task: asyncio.Task[None] | None = None
    """The task that supervises the run."""
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parameters that were set at run time, by node and key."""
    bell: Bell = field(default_factory=Bell)
    """Rings at every change of this record."""
    lost: bool = False
    """Whether it ran under a previous daemon and could not be adopted; see `lose`. It is stored,
    because a daemon may be killed before it has started an enabled one again."""
    restarting: bool = False
    """Whether it is being stopped in order to start again."""
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the topology changes: one change at a time."""

    @property
    def uuid(self) -> str:
        """The UUID of the run."""
        return self.row.uuid

    @property
    def name(self) -> str | None:
        """The name that its user chose."""
        return self.row.name

    @property
    def title(self) -> str:
        """The name, or the UUID if it has none, for messages."""
        return self.row.name or self.row.uuid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.row.ended_at is None

    @property
    def status(self) -> Status:
        """The state of its life cycle."""
        return self.row.status

    def state(self) -> DataflowState:
        """Return the record as a reply."""
        run = self.run
        return DataflowState(
            uuid=self.uuid,
            name=self.name,
            status=self.status,
            ready=run is not None and run.supervisor.ready,
            links=self._links(),
            results=[NodeResult(**entry) for entry in self.row.results],
            failures=[Failure(**entry) for entry in self.row.failures],
        )

    def info(self, *, nodes: int, cpu: float, memory: int, why: str) -> DataflowInfo:
        """Return the record as a row of a list."""
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
            interrupted=self.row.interrupted,
            links=self._links(),
            strangers="" if self.run is None else self.run.link.links.strangers,
            why=why,
        )

    def _links(self) -> dict[str, LinkPeer]:
        return {} if self.run is None else self.run.link.links.peers()

    def initial_params(self, node: NodeSpec) -> dict[str, Any]:
        """Return the parameters that a process of the node starts with.

        Values that were set override declared ones, unless the declaration no longer allows them.
        """
        values = params.initial(node)
        for key, value in self.params.get(node.id, {}).items():
            with contextlib.suppress(ValueError):
                values[key] = params.check(node.declared.get(key), value)
        return values

    def lose(self, why: str) -> None:
        """Record that it ran under a previous daemon and could not be adopted."""
        self.lost = self.row.interrupted = True
        self.fail(f"could not be adopted: {why}")

    def fail(self, headline: str) -> None:
        """Record that the dataflow failed for a reason outside its nodes."""
        self.row.failures = [{"headline": headline, "lines": []}]
        self.row.status = "failed"

    def end(self) -> None:
        """Record that the dataflow ends now."""
        self.row.ended_at = time.time()
        self.row.snapshot = {_LOST: True} if self.lost else {}
        self.run = None

    def enable(self, *, enabled: bool) -> None:
        """Set whether it starts at boot. A lost one then waits for the boot, too."""
        self.row.enabled = enabled
        if self.lost:
            self.lost = False
            self.row.snapshot = {}


def is_lost(row: Row) -> bool:
    """Return True if an ended dataflow could not be adopted and was not started again since."""
    return row.ended_at is not None and _LOST in row.snapshot


def checked_dataflow(descriptor: dict[str, Any], path: str, part: Share | None = None) -> Dataflow:
    """Return what this machine runs of the dataflow that a descriptor describes.

    Raises DataflowError if the dataflow is invalid.
    """
    dataflow = from_descriptor(descriptor, path=Path(path))
    if part is not None:
        dataflow = share(dataflow, part.machine, part.placement)
    dataflow = recorded(dataflow, "" if part is None else part.machine)
    if problems := unsupported(dataflow, placed=part is not None):
        raise DataflowError(problems)
    return dataflow


def stored_result(result: Result) -> dict[str, Any]:
    """Return the result of a node as it is stored."""
    exit_ = result.exit
    return {
        "node": result.node,
        "outcome": str(result.outcome),
        "reason": result.reason,
        "code": None if exit_ is None else exit_.code,
        "signal": None if exit_ is None or exit_.signal is None else int(exit_.signal),
    }


def stored_failure(block: Block) -> dict[str, Any]:
    """Return one root cause as it is stored."""
    return {"headline": block.headline, "lines": list(block.lines)}
