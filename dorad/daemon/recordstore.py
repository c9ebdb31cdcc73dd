"""The records of dataflows in the state file. A broken disk does not stop any dataflow."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dorad.control.alertbook import StoredAlert
from dorad.control.errors import ControlError
from dorad.daemon.database import StateError
from dorad.daemon.record import Record, is_lost
from dorad.daemon.state import State
from dorad.daemon.userpool import Assignment
from dorad.dataflow.model import Dataflow

_log = logging.getLogger(__name__)


class RecordStore:
    """Stores records. Failures do not stop dataflows; the first of successive ones is reported."""

    def __init__(self, state: State, warn: Callable[[str], None]) -> None:
        """Report failures to the operator with `warn`."""
        self._state = state
        self._warn = warn
        self._write_failed = False
        self._sync_failed = False
        self._block_errors: list[StateError] | None = None
        """The failures within the block of `atomically`; None outside of it."""

    @property
    def path(self) -> Path:
        """The state file in use."""
        return self._state.path

    def load(self) -> list[Record]:
        """Return the records of all dataflows, the oldest first. Raises StateError."""
        return [
            Record(row, params=self._state.params(row.uuid), lost=is_lost(row))
            for row in self._state.rows()
        ]

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """Store the changes of the block all at once, or none if it raises or the disk fails.

        The whole block runs in any case.
        """
        with self._reporting(), self._state.atomically():
            outer, errors = self._block_errors, list[StateError]()
            self._block_errors = errors
            try:
                yield
            finally:
                self._block_errors = outer
            for error in errors:
                raise error

    def put(self, record: Record) -> None:
        """Store a record, or its changes."""
        with self._reporting():
            self._state.put(record.row)

    def put_snapshot(self, record: Record) -> None:
        """Store only the snapshot of a record, which changes most often."""
        with self._reporting():
            self._state.put_snapshot(record.uuid, record.row.snapshot)

    def put_dataflow(self, record: Record, dataflow: Dataflow) -> None:
        """Store a record with its topology and the present state of its run, in one write.

        They belong together: the next daemon cannot continue from a mixture of before and after.
        """
        if dataflow is not record.dataflow:
            _log.debug("dataflow %s has changed to %d nodes", record.uuid, len(dataflow.nodes))
            record.dataflow = dataflow
            record.row.descriptor = dataflow.descriptor
        if record.run is not None:
            record.row.snapshot = record.run.snapshot()
        self.put(record)

    def set_param(self, record: Record, node: str, key: str, value: Any) -> None:
        """Store a parameter that was set. Raises ControlError if that fails."""
        try:
            self._state.set_param(record.uuid, node, key, value)
        except StateError as error:
            raise ControlError("internal", f"the parameter cannot be stored: {error}") from error
        record.params.setdefault(node, {})[key] = value

    def delete_param(self, record: Record, node: str, key: str) -> None:
        """Store that a parameter was deleted. Raises ControlError if that fails."""
        try:
            self._state.delete_param(record.uuid, node, key)
        except StateError as error:
            raise ControlError("internal", f"the parameter cannot be stored: {error}") from error
        record.params.get(node, {}).pop(key, None)

    def replace_params(self, record: Record, node: str, values: Mapping[str, Any]) -> None:
        """Store the parameters of a node in place of earlier ones. Raises ControlError."""
        with self.atomically():
            for key in record.params.get(node, {}).keys() - values.keys():
                self.delete_param(record, node, key)
            for key, value in values.items():
                self.set_param(record, node, key, value)

    def load_assignments(self) -> list[Assignment]:
        """Return the users of dataflows. Raises StateError."""
        return self._state.assignments()

    def put_assignment(self, assignment: Assignment) -> None:
        """Store the user of a dataflow; a failure is reported to the operator."""
        with self._reporting():
            self._state.put_assignment(assignment)

    def delete_assignment(self, dataflow: str) -> None:
        """Delete the user of a dataflow; a failure is reported to the operator."""
        with self._reporting():
            self._state.delete_assignment(dataflow)

    def load_alerts(self) -> list[StoredAlert]:
        """Return the alerts of the daemon before. Raises StateError."""
        return self._state.alerts()

    def put_alerts(self, alerts: Sequence[StoredAlert]) -> None:
        """Store all alerts; a failure is reported to the operator."""
        with self._reporting():
            self._state.put_alerts(alerts)

    def delete(self, records: Iterable[Record]) -> None:
        """Delete records. Raises StateError if that fails."""
        self._state.forget(record.uuid for record in records)

    def discard(self, record: Record) -> None:
        """Delete one record; a failure is reported to the operator."""
        with self._reporting():
            self._state.forget([record.uuid])

    async def sync(self) -> None:
        """Flush all changes to the disk, so that they survive a power cut.

        Those in memory move to the disk once it has room.
        """
        if self._state.move_back():
            self._write_failed = False
        try:
            await asyncio.to_thread(self._state.sync)
            self._sync_failed = False
        except StateError as error:
            if not self._sync_failed:
                self._warn(f"the state cannot be written to the disk: {error}")
            self._sync_failed = True

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
            self._write_failed = False
        except StateError as error:
            if self._block_errors is not None:
                self._block_errors.append(error)
                return
            if not self._write_failed:
                self._warn(f"the state cannot be written, so a restart would lose it: {error}")
            self._write_failed = True
