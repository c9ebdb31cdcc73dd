"""Running the operators of a node: from their files to the exit code of the process.

An operator that is alone has the main thread; of several each has a thread of its own, so that a
slow one holds up nobody else.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dorad.node import attach, forking, inputs, logbridge
from dorad.node.attachment import SPIN_US, lock_memory, type_checks
from dorad.node.clock import Clock, StampCounter
from dorad.node.inputfactory import InputFactory
from dorad.node.peers import ring_at
from dorad.node.receiver import Receiver
from dorad.node.runtime import lines
from dorad.node.runtime.config import from_environment
from dorad.node.runtime.handed import HandedInput
from dorad.node.runtime.inbox import Inbox
from dorad.node.runtime.operatorevents import OperatorEvents, own_item, split
from dorad.node.runtime.outbox import OperatorSender, Outbox
from dorad.node.runtime.program import OperatorError, Program
from dorad.node.runtime.pulse import Pulse
from dorad.node.runtime.scheduler import OperatorScheduler
from dorad.node.runtime.status import DoraStatus
from dorad.shm.layout import RING_LATCHED
from dorad.shm.pool import DEFAULT_KEEP
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.inputs import RingInput
    from dorad.node.nodeinputs import Input
    from dorad.node.runtime.program import Send
    from dorad.node.typecheck import PortCheck, TypeChecks
    from dorad.shm.ring import Inlet

LAST_WORDS_S = 2.0
"""Seconds that operators have to end when another one of their process has failed."""

TURN_S = 0.001
"""Seconds that an operator which computes in Python keeps the others from going on, at a time."""

_HERE = str(Path(__file__).parent)
_OF_A_RING = frozenset({"id", "ring", "interval_ns", "source", "blocking"})
"""What is known of an input whose queue is nothing special."""


def run() -> None:
    """Run the operators that the environment names; return when all have ended well.

    Raises:
        RuntimeError: the process was not started for an operator node.
        SystemExit: an operator failed, or the dataflow could not start.
    """
    entries = from_environment(os.environ)
    place = attach.decide(None, None, os.environ)
    if not isinstance(place, attach.Spawned):
        raise RuntimeError("operators run in a dataflow only: start it with `dora run`")
    logbridge.bridge(place.node_id)
    if os.environ.get(attach.WRITE_EVENTS):
        text = f"{attach.WRITE_EVENTS} is not followed: what operators receive is not recorded"
        logbridge.emit(logbridge.line(place.node_id, "warn", text))
    if len(entries) > 1:
        lines.install()
        sys.setswitchinterval(TURN_S)
    try:
        programs = [Program(entry) for entry in entries]
    except OperatorError as error:
        _report(error)
        sys.exit(1)
    try:
        runtime = Runtime(attach.connect(place), programs)
    except RuntimeError as error:
        print(f"node {place.node_id}: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    well = runtime.run()
    lines.flush()
    if not well:
        _exit_failed()


class _OperatorParts(NamedTuple):
    """All that one operator has."""

    program: Program
    inbox: Inbox
    receiver: Receiver
    outbox: Outbox
    sender: OperatorSender


class _OwnTypes:
    """The types of one operator's inputs, by its own names for them; see `TypeChecks.input`."""

    def __init__(self, types: TypeChecks, operator: str) -> None:
        self._types = types
        self._operator = operator

    def input(self, input_id: str, source: str | None, inlet: Inlet, clock: Clock) -> RingInput:
        served = self._types.input(f"{self._operator}/{input_id}", source, inlet, clock)
        served.id = input_id
        return served


class Runtime:
    """The operators of one node and what they share. Made when the start barrier opens."""

    def __init__(self, connection: DaemonConnection, programs: Sequence[Program]) -> None:
        """Attach the operators to the dataflow.

        Raises:
            RuntimeError: the dataflow could not start.
        """
        self._connection = connection
        self._config = config = connection.config
        names = [program.id for program in programs]
        self._operator_events = connection.daemon_events = OperatorEvents(
            config["inputs"], connection.params, names
        )
        for program in programs:
            program.describe(dict(config["descriptor"]))
        if config.get("lock_memory"):
            lock_memory(connection)
        self._types = type_checks(config)
        inputs.warm_up(config)
        self._epoch_ns = connection.wait_for_start()
        self._pulse = Pulse(connection) if connection.watched else None
        self._handed: dict[int, HandedInput] = {}
        self._ending = threading.Lock()
        self._alive = set(names)
        self._over = threading.Event()
        self._failed = False
        self._scheduler = OperatorScheduler(connection) if len(programs) > 1 else None
        self._inboxes: dict[str, Inbox] = {}
        self._desks = [self._desk_of(program) for program in programs]
        connection.catch_up = self._catch_up
        self._catch_up()
        forking.watch(self)
        gc.freeze()

    def _desk_of(self, program: Program) -> _OperatorParts:
        connection, name = self._connection, program.id
        clock = Clock(StampCounter(self._config["node_id"], connection.box.words))
        make = functools.partial(self._input_of, name, clock)
        # Two that look at once would only keep each other from working.
        spin_us = self._config.get("spin_us")
        alone = self._scheduler is None and len(os.sched_getaffinity(0)) > 1
        spin = Spin((SPIN_US if spin_us is None else spin_us) if alone else 0)
        served = [
            make(own_item(item)) for item in self._config["inputs"] if split(item["id"])[0] == name
        ]
        inbox = Inbox(
            connection, self._operator_events.of[name], served, spin, make, self._scheduler
        )
        self._inboxes[name] = inbox
        keep = self._config["keep_bytes"]
        beat = self._beat_of(name)
        sender = OperatorSender(
            name, connection, clock, DEFAULT_KEEP if keep is None else keep, beat
        )
        warn = functools.partial(self._log, "warn")
        outbox = Outbox(name, connection, sender, clock, self._handed, beat, warn)
        if self._types is not None:
            outbox.check(self._types.sender(sender))
        return _OperatorParts(program, inbox, Receiver(inbox), outbox, sender)

    def _beat_of(self, operator: str) -> Callable[[], None]:
        return functools.partial(self._pulse.beat, operator) if self._pulse else lambda: None

    def _input_of(self, operator: str, clock: Clock, item: dict[str, Any]) -> Input:
        """Return what serves an input of an operator."""
        connection = self._connection
        full = f"{operator}/{item['id']}"
        within = item["source"] == self._config["node_id"]
        latched = connection.box.words[item["ring"] + RING_LATCHED]
        if not within or latched or any(item[key] for key in item.keys() - _OF_A_RING):
            types = _OwnTypes(self._types, operator) if self._types else None
            return InputFactory(connection, clock, self._epoch_ns, types)(item)
        ring = ring_at(connection.box.words, item["ring"])
        wake = functools.partial(self._wake, operator)
        handed = HandedInput(item["id"], connection.box.words, ring, clock, wake)
        if self._types is not None:
            check = self._types.check_of(full, item["source"])
            if check is not None:
                handed.look = functools.partial(_look, handed, check, self._config["node_id"])
        self._handed[handed.ring] = handed
        return handed

    def _catch_up(self) -> bool:
        """Let each sender give new receivers what was sent last; see `Sender.catch_up`."""
        busy = [parts for parts in self._desks if not parts.sender.catch_up()]
        return not busy

    def _wake(self, operator: str) -> None:
        if self._scheduler is not None:
            self._scheduler.wake(self._inboxes[operator])

    def abandon(self) -> None:
        """Leave the node to the parent: this process is a forked child of it."""
        for parts in self._desks:
            forking.refuse(parts.inbox)
            forking.refuse(parts.receiver)
            forking.refuse(parts.outbox)
            forking.refuse(parts.sender)
        forking.detach(self._connection.box)
        self._connection.hang_up()

    # -- working -----------------------------------------------------------------------------

    def run(self) -> bool:
        """Run all operators to their ends; tell whether all ended well."""
        if self._scheduler is None:
            self._serve(self._desks[0])
        else:
            self._serve_all()
        if not self._failed:
            self._connection.done()
        return not self._failed

    def _serve_all(self) -> None:
        threads = [
            threading.Thread(
                target=self._serve, args=(parts,), name=f"operator {parts.program.id}", daemon=True
            )
            for parts in self._desks
        ]
        for thread in threads:
            thread.start()
        self._over.wait()
        deadline = time.monotonic() + LAST_WORDS_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, parts: _OperatorParts) -> None:
        """Give one operator its events until it has ended."""
        try:
            self._events_of(parts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process fails with it
            self._fail(error)
        parts.inbox.close()
        with self._ending:
            self._alive.discard(parts.program.id)
            if not self._alive or self._failed:
                self._over.set()
            else:
                self._connection.ended(parts.program.id)

    def _events_of(self, parts: _OperatorParts) -> None:
        program, receiver, send = parts.program, parts.receiver, parts.outbox.send_output
        pulse = self._pulse
        while (event := receiver.next(None)) is not None:
            if pulse is not None:
                pulse.begin(program.id)
            if event["type"] == "RELOAD":
                status = self._reload(program, event, send)
            else:
                status = program.on_event(event, send)
            del event  # what it borrows is free while this one waits
            if pulse is not None:
                pulse.rest(program.id)
            if status is DoraStatus.STOP:
                return
            if status is DoraStatus.STOP_ALL:
                self._stop_all()
                return

    def _reload(self, program: Program, event: Event, send: Send) -> DoraStatus:
        """Load an operator's file anew; if that fails, the old code goes on.

        The operator then gets the event, too, and an exception in that is said, no more.
        """
        try:
            program.reload()
        except OperatorError as error:
            _show_trace(error)
            self._log("error", f"{error}; the code from before the change goes on")
            return DoraStatus.CONTINUE
        self._log("info", f"operator {program.id!r}: reloaded {program.path}")
        try:
            return program.on_event(event, send)
        except OperatorError as error:
            _report(error)
            return DoraStatus.CONTINUE

    def _stop_all(self) -> None:
        self._operator_events.stop_all()
        for name in self._inboxes:
            self._wake(name)

    def _fail(self, error: BaseException) -> None:
        with self._ending:
            first, self._failed = not self._failed, True
        if first:
            _report(error)
            self._stop_all()

    def _log(self, level: str, text: str) -> None:
        logbridge.emit(logbridge.line(self._config["node_id"], level, text))


def _look(handed: HandedInput, check: PortCheck, node_id: str, event: Event) -> None:
    """Warn of data of another type; mostly the first message only is looked at."""
    if not check.applies(event["metadata"]):
        return
    found = check.mismatch(event["value"])
    if found is not None:
        check.warn(node_id, found)
    if not check.setting.every_input:
        handed.look = None


def _report(error: BaseException) -> None:
    """Print what has gone wrong: the traceback of the user's own code, then one sentence."""
    _show_trace(error)
    if isinstance(error, OperatorError):
        print(error, file=sys.stderr, flush=True)


def _show_trace(error: BaseException) -> None:
    cause = error.__cause__ if isinstance(error, OperatorError) else error
    if cause is not None:
        trace = cause.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
            trace = trace.tb_next
        traceback.print_exception(type(cause), cause, trace)


def _exit_failed() -> None:
    """End with exit code 1, even if an operator does not come back from its event."""
    if threading.active_count() == 1:
        sys.exit(1)
    os._exit(1)
