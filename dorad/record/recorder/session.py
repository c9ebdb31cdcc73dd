"""One recording of a running dataflow, from an attached connection to the closed file."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from dorad import __version__
from dorad.node import logbridge
from dorad.record.box import incidents
from dorad.record.box.incidents import Mark
from dorad.record.embedded import FOLDER
from dorad.record.encoding import extras
from dorad.record.encoding.extras import HOPS
from dorad.record.mcap.items import Item, make_item
from dorad.record.mcap.layout import Attachment
from dorad.record.recorder.inputs import RecorderInputs
from dorad.record.recorder.leftovers import BEGIN, Leftovers, Origin
from dorad.record.recorder.outcome import END_PARAM, MARK_PARAM, Marked, marked_line
from dorad.record.recorder.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.record.recorder.inputs import Taken
    from dorad.record.recorder.outcome import Progress, RecordingOutcome
    from dorad.record.recorder.settings import Settings

MAX_KNOWN = 1000
_NOTE_LENGTH = 1000


def reason_for(what: str, value: Mapping[str, Any]) -> str | None:
    """Return why an event is worth an incident; None if it is not.

    These are nodes that fail, whether or not they are started again, and inputs that break.
    """
    failed = what == "node-failed" or (what == "node-restarting" and value.get("failed") is True)
    if not failed and what != "input-broken":
        return None
    return f"node {value.get('node')}: {value.get('text')}"[:_NOTE_LENGTH]


class Triggers:
    """Makes one mark of many similar events: a node may crash every second."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], int] = {}

    def mark(self, what: str, value: Mapping[str, Any], now_ns: int) -> Mark | None:
        """Return the incident that an event asks for at `now_ns`, in ns since 1970.

        None if it asks for none, or if the last incident of the same node has not ended.
        """
        reason = reason_for(what, value)
        if reason is None:
            return None
        key = (what, str(value.get("node")))
        made = Mark(now_ns, note=reason, source=what)
        if now_ns <= self._until.get(key, 0) <= made.end_ns:
            return None
        if len(self._until) >= MAX_KNOWN:
            self._until.clear()
        self._until[key] = made.end_ns
        return made


MIN_INTERVAL_NS = 500_000
"""Faster timers are not recorded: their ticks would cost more than the messages."""

MAX_DUE = 10_000
"""Ticks of one timer that are recorded at once, after the machine was suspended."""


class Ticks:
    """The ticks of a dataflow's timers since the recorder has joined."""

    def __init__(self, timers: Mapping[str, int], epoch_ns: int, now_ns: int) -> None:
        """`timers` are the intervals in ns by `node/input`; the times are on CLOCK_MONOTONIC."""
        self._epoch_ns = epoch_ns
        self._next: dict[str, int] = {}
        self._intervals = {}
        for name, interval_ns in timers.items():
            if interval_ns < MIN_INTERVAL_NS:
                _log.info("the ticks of %s are not recorded: they are too many", name)
                continue
            self._intervals[name] = interval_ns
            self._next[name] = max(0, -((epoch_ns - now_ns) // interval_ns))

    def due(self, now_ns: int, difference_ns: int) -> Iterator[Item]:
        """Yield the ticks that were due since the last call.

        `difference_ns` is the wall clock minus CLOCK_MONOTONIC.
        """
        for name, interval_ns in self._intervals.items():
            topic = f"{extras.TICK_TOPIC}/{name}"
            last = (now_ns - self._epoch_ns) // interval_ns
            first = max(self._next[name], last - MAX_DUE + 1)
            for number in range(first, last + 1):
                stamp = self._epoch_ns + number * interval_ns + difference_ns
                yield make_item((stamp, topic, number, extras.TICK))
            self._next[name] = max(first, last + 1)


_log = logging.getLogger(__name__)

PROGRESS_S = 1.0
KEPT_BYTES = 256 << 20
"""Freed memory that the process of a recorder keeps."""
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
        on_event: Callable[[str, Mapping[str, Any]], object] = lambda what, value: None,
        lacking: Callable[[], Sequence[str]] = tuple,
        before: Collection[Path] = (),
        report: Callable[[str], object] = print,
    ) -> None:
        """Create the file, then wait for the start barrier. `folder` is that of the dataflow.

        `on_event` gets the events of the dataflow, in the thread that takes messages. `lacking`
        says at the end what was not recorded, and why. `before` are files that a crash may have
        left: they are recovered meanwhile, and `report` gets a line about each.

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
        self._on_event = on_event
        self._lacking = lacking
        recorded = config.get("recorded", {})
        params = recorded.get("params", {})
        self._receiving = RecorderInputs(connection, self._take_event, discard=config["dynamic"])
        difference_ns = time.time_ns() - time.monotonic_ns()
        self._recorder = Recorder(
            settings,
            _about(config, arguments)
            | {FOLDER: folder, HOPS: str(int(extras.HOPS_TOPIC in self._receiving.begin))}
            | {f"{BEGIN}{topic}": str(n) for topic, n in self._receiving.begin.items() if n},
            attachments_of(config, params, Path(folder)),
        )
        try:
            epoch_ns = connection.wait_for_start()
        except RuntimeError:
            self._recorder.end("the dataflow did not start", {}, complete=False)
            raise
        event = extras.event("start", epoch_ns=epoch_ns + difference_ns)
        self._put(extras.CONTROL_TOPIC, event)
        if any(params.values()):
            self._put(extras.PARAM_TOPIC, extras.event("params", params=params))
        self._ticks = Ticks(recorded.get("timers", {}), epoch_ns, time.monotonic_ns())
        self._left = Leftovers(
            Origin(config["dataflow_id"], config["node_id"]),
            self._receiving.begin,
            report,
            before,
        )

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

    def run(self, on_progress: Callable[[Progress], None] | None = None) -> RecordingOutcome:
        """Record until the end; another thread calls `on_progress` about once a second."""
        with self._reported(on_progress):
            reason = self._take_all()
        # Without reports: the recorder counts now what the queues have dropped.
        return self._end(reason)

    @contextlib.contextmanager
    def _reported(self, on_progress: Callable[[Progress], None] | None) -> Iterator[None]:
        """Report the progress while the block runs.

        A terminal that stands still blocks who prints: never the thread that takes messages.
        """
        if on_progress is None:
            yield
            return
        ended = threading.Event()

        def report() -> None:
            try:
                while not ended.wait(PROGRESS_S):
                    on_progress(self.progress)
            except OSError as error:
                _log.debug("no more progress is shown: %s", error)

        thread = threading.Thread(target=report, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(PROGRESS_S)

    def _take_all(self) -> str:
        """Take messages until the end; return its reason."""
        receiving, recorder = self._receiving, self._recorder
        while True:
            finished = receiving.finished or bool(self._stopping)
            taken = receiving.take()
            now_ns = time.monotonic_ns()
            ticks = self._ticks.due(now_ns, time.time_ns() - now_ns)
            recorder.put([*self._items, *taken.items, *ticks])
            self._items.clear()
            self._mark(taken)
            at_end = bool(self._stopping) or (finished and not taken.items)
            if recorder.ended or (at_end and not receiving.copying):
                break
            receiving.pause(taken)
        ended = "the dataflow has ended" if receiving.stopped else "all recorded nodes have ended"
        reason = self._stopping or ended
        if receiving.lost and not receiving.stopped and not self._stopping:
            reason = "the connection to the daemon was closed"
        return reason

    def _end(self, reason: str) -> RecordingOutcome:
        receiving, recorder = self._receiving, self._recorder
        missing = [*self._lacking()]
        dropped = Counter(receiving.dropped())
        lost = self._left.lost()
        if lost is None:
            missing.append("what the crash of the recorder has lost is not counted")
        else:
            dropped.update(lost)
        outcome = recorder.end("; ".join((reason, *missing)), dropped, complete=not missing)
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
        self._on_event(what, value)
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
        "node": str(config["node_id"]),
        "robot": socket.gethostname(),
        "boot_id": boot_id,
        "version": __version__,
        "arguments": arguments,
        "start_ns": str(time.time_ns()),
        "pid": str(os.getpid()),
    }


def attachments_of(
    config: Mapping[str, Any], params: Mapping[str, Mapping[str, Any]], folder: Path
) -> list[Attachment]:
    """Return the dataflow without the recorder, the parameters, and the types of its topics of
    ROS 2, as files. `folder` is that of the dataflow.
    """
    descriptor = dict(config["descriptor"])
    descriptor["nodes"] = [
        {key: value for key, value in node.items() if value is not None}
        for node in descriptor.get("nodes", [])
        if isinstance(node, dict) and node.get("id") != config["node_id"]
    ]
    now = time.time_ns()
    text = yaml.safe_dump(descriptor, sort_keys=False, allow_unicode=True)
    attachments = [Attachment(now, "dataflow.yml", "application/yaml", text.encode())]
    if any(params.values()):
        flat = {
            f"{node}/{key}": value for node, own in params.items() for key, value in own.items()
        }
        text = yaml.safe_dump(flat, sort_keys=True, allow_unicode=True)
        attachments.append(Attachment(now, "params.yml", "application/yaml", text.encode()))
    if any("ros2" in node for node in descriptor["nodes"]):
        attachments += _ros_types(descriptor, folder, now)
    return attachments


def _ros_types(descriptor: Mapping[str, Any], folder: Path, now: int) -> Iterator[Attachment]:
    """Yield the definitions of the types of topics of ROS 2, as far as they are installed."""
    # Few dataflows need what these import.
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.load import from_descriptor
    from dorad.record.rostopics import RosTypes, bridged_topics, definition_name
    from dorad.ros2.definitions import DefinitionError
    from dorad.ros2.environment import SetupError
    from dorad.ros2.messagetext import definition_text

    try:
        bridged = bridged_topics(from_descriptor(descriptor, path=folder / "dataflow.yml"))
    except DataflowError as error:
        _log.warning("the recording has no types of ROS 2: %s", error)
        return
    types = RosTypes(folder, os.environ)
    for kind, topic in {each.type: each for each in bridged}.items():
        try:
            text = definition_text(types.message(topic))
        except (DefinitionError, SetupError) as error:
            _log.warning("the recording does not have the type %s: %s", kind, error)
            continue
        yield Attachment(now, definition_name(kind), "text/plain", text.encode())
