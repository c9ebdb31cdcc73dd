"""One recording of a running dataflow, from an attached connection to the closed file."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from dorad import __version__
from dorad.node import logbridge
from dorad.record import extras, incidents
from dorad.record.embedded import FOLDER
from dorad.record.items import Item
from dorad.record.mcap import Attachment
from dorad.record.outcome import END_PARAM, MARK_PARAM, Marked, marked_line
from dorad.record.receive import Receiving
from dorad.record.recorder import Recorder
from dorad.record.ticks import Ticks
from dorad.record.triggers import Triggers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.record.incidents import Mark
    from dorad.record.items import Outcome, Progress
    from dorad.record.receive import Taken
    from dorad.record.settings import Settings

_log = logging.getLogger(__name__)

PROGRESS_S = 1.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_EVENTS = {
    "INPUT_CLOSED": "input-closed",
    "INPUT_RECOVERED": "input-recovered",
    "STOP": "stop",
}
"""Events of the recorder itself; those of all nodes come as HAPPENED."""


class Session:
    """Records the inputs of one attached node until they end, or `stop` is called."""

    def __init__(
        self,
        connection: DaemonConnection,
        settings: Settings,
        *,
        arguments: str = "",
        folder: str = "",
    ) -> None:
        """Create the file, then wait for the start barrier. `folder` is that of the dataflow.

        Raises:
            RuntimeError: the dataflow could not start.
            OSError: the file cannot be created.
        """
        self._connection = connection
        config = connection.config
        self._items: list[Item] = []
        self._events = 0
        self._stopping = ""
        self._node_id = config["node_id"]
        self._box = settings.box
        self._ordered: set[str] = set()
        """Incidents that a command has asked for, until they are made."""
        self._triggers = Triggers()
        recorded = config.get("recorded", {})
        params = recorded.get("params", {})
        self._receiving = Receiving(connection, self._take_event, discard=config["dynamic"])
        before = time.time_ns() - time.monotonic_ns()
        self._recorder = Recorder(
            settings,
            _about(config, arguments) | {FOLDER: folder},
            _attachments(config, params),
        )
        try:
            epoch_ns = connection.wait_for_start()
        except RuntimeError:
            self._recorder.end("the dataflow did not start", {}, complete=False)
            raise
        event = extras.event("start", epoch_ns=epoch_ns + before)
        self._put(extras.CONTROL_TOPIC, event)
        if any(params.values()):
            self._put(extras.PARAM_TOPIC, extras.event("params", params=params))
        self._ticks = Ticks(recorded.get("timers", {}), epoch_ns, time.monotonic_ns())

    @property
    def progress(self) -> Progress:
        """What has been recorded so far."""
        recorded = self._recorder.progress
        dropped = sum(self._receiving.dropped().values())
        return recorded._replace(dropped=recorded.dropped + dropped)

    def stop(self, reason: str) -> None:
        """End the recording after the next take, the second time without what is still queued.

        May be called by a signal handler.
        """
        if self._stopping:
            self._recorder.hurry()
        self._stopping = reason

    def hurry(self) -> None:
        """Finish within a few seconds; may be called by a signal handler."""
        self._receiving.hurry()
        self._recorder.hurry()

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> Outcome:
        """Record until the end; call `on_progress` about once a second."""
        receiving, recorder = self._receiving, self._recorder
        due_s = time.monotonic() + PROGRESS_S
        while True:
            finished = receiving.finished or bool(self._stopping)
            taken = receiving.take()
            now_ns = time.monotonic_ns()
            ticks = self._ticks.due(now_ns, time.time_ns() - now_ns)
            recorder.put([*self._items, *taken.items, *ticks])
            self._items.clear()
            self._mark(taken)
            if recorder.ended or (finished and not taken.items) or self._stopping:
                break
            if on_progress is not None and time.monotonic() >= due_s:
                due_s = time.monotonic() + PROGRESS_S
                on_progress(self.progress)
            receiving.pause(taken)
        ended = "the dataflow has ended" if receiving.stopped else "all recorded nodes have ended"
        reason = self._stopping or ended
        if receiving.lost and not receiving.stopped and not self._stopping:
            reason = "the connection to the daemon was closed"
        outcome = recorder.end(reason, receiving.dropped())
        self._report_incidents()
        return outcome

    def _take_event(self, event: Event) -> None:
        if event["type"] == "PARAM_UPDATE":
            if event["id"] == END_PARAM:
                self.stop(str(event["value"])[:100])
            elif event["id"] == MARK_PARAM:
                self._take_order(event["value"])
        if event["type"] == "HAPPENED":
            self._take_dataflow_event(event["id"], event["value"])
            return
        kind = _EVENTS.get(event["type"])
        if kind is None:
            return
        fields = {"id": event.get("id")}
        if "reason" in event:
            fields["reason"] = event["reason"]
        self._put(extras.CONTROL_TOPIC, extras.event(kind, **fields))

    def _take_dataflow_event(self, what: str, value: dict[str, Any]) -> None:
        """Record an event of the dataflow, and keep an incident if it is worth one."""
        if value.get("node") == self._node_id:
            return
        topic = extras.PARAM_TOPIC if what == "param-changed" else extras.CONTROL_TOPIC
        self._put(topic, extras.event(what, **value))
        mark = self._triggers.mark(what, value, time.time_ns())
        if mark is not None:
            _log.debug("%s is worth an incident: %s", what, mark.note)
            self._request(mark)

    def _mark(self, taken: Taken) -> None:
        """Keep incidents that nodes ask for, and report new ones."""
        for mark in taken.marks:
            self._request(mark)
        self._report_incidents()

    def _report_incidents(self) -> None:
        while self._recorder.incidents:
            name = self._recorder.incidents.pop(0)
            if name in self._ordered:
                self._ordered.remove(name)
                self._answer(made=True, text=f"incident {name} in {self._folder_of(name)}")
            else:
                _log.info("incident %s is kept", name)

    def _take_order(self, value: Any) -> None:
        """Make the incident that a command asks for; its answer is a line of the log."""
        if self._box is None:
            self._answer(made=False, text="no incident is made: the recorder is not a black box")
            return
        try:
            mark = msgspec.convert(value, incidents.Mark)
            self._ordered.add(incidents.request(self._box, mark))
        except (OSError, incidents.IncidentError, msgspec.ValidationError) as error:
            self._answer(made=False, text=f"no incident is made in {self._box}: {error}")

    def _folder_of(self, name: str) -> Path:
        assert self._box is not None
        return (self._box / incidents.INCIDENTS / name).absolute()

    def _answer(self, *, made: bool, text: str) -> None:
        logbridge.emit(marked_line(self._node_id, Marked(made, text)))

    def _request(self, mark: Mark) -> None:
        if self._box is None:
            return
        try:
            incidents.request(self._box, mark)
        except (OSError, incidents.IncidentError) as error:
            _log.warning("no incident is kept: %s", error)

    def _put(self, topic: str, message: Any) -> None:
        self._items.append(Item(time.time_ns(), topic, self._events, message))
        self._events += 1


def _about(config: Mapping[str, Any], arguments: str) -> dict[str, str]:
    """Return what the metadata `dora.recording` say."""
    try:
        boot_id = _BOOT_ID.read_text().strip()
    except OSError as error:
        _log.debug("no boot id: %s", error)
        boot_id = ""
    return {
        "id": str(uuid.uuid4()),
        "dataflow": str(config["dataflow_id"]),
        "robot": socket.gethostname(),
        "boot_id": boot_id,
        "version": __version__,
        "arguments": arguments,
        "start_ns": str(time.time_ns()),
        "pid": str(os.getpid()),
    }


def _attachments(
    config: Mapping[str, Any], params: Mapping[str, Mapping[str, Any]]
) -> list[Attachment]:
    """Return the dataflow without the recorder, and the parameters, as files."""
    descriptor = dict(config["descriptor"])
    descriptor["nodes"] = [
        {key: value for key, value in node.items() if value is not None}
        for node in descriptor.get("nodes", [])
        if isinstance(node, dict) and node.get("id") != config["node_id"]
    ]
    now = time.time_ns()
    text = yaml.safe_dump(descriptor, sort_keys=False, allow_unicode=True)
    found = [Attachment(now, "dataflow.yml", "application/yaml", text.encode())]
    if any(params.values()):
        flat = {
            f"{node}/{key}": value for node, own in params.items() for key, value in own.items()
        }
        text = yaml.safe_dump(flat, sort_keys=True, allow_unicode=True)
        found.append(Attachment(now, "params.yml", "application/yaml", text.encode()))
    return found
