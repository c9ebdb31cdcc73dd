"""Run the operators of a node: from their files to the exit code of the process.

A single operator runs in the main thread. Several operators run in a thread each, so that a slow
one does not delay the others.
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
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from dorad.node import attach, forking, inputs, logbridge
from dorad.node.attachment import lock_memory, type_checks
from dorad.node.clock import Clock, StampCounter
from dorad.node.inputfactory import InputFactory
from dorad.node.peers import ring_at
from dorad.node.receiver import Receiver
from dorad.node.runtime.config import from_environment
from dorad.node.runtime.inbox import Inbox
from dorad.node.runtime.inprocess import InProcessInput
from dorad.node.runtime.operatorevents import OperatorEvents, own_item, split
from dorad.node.runtime.outbox import OperatorSender, Outbox
from dorad.node.runtime.program import OperatorError, Program
from dorad.node.runtime.pulse import Calls, Pulse
from dorad.node.runtime.scheduler import OperatorScheduler
from dorad.node.runtime.status import DoraStatus
from dorad.shm import stepping
from dorad.shm.layout import DEFAULT_KEEP, RING_LATCHED, SPIN_US
from dorad.shm.spin import Spin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dorad.node.connection import DaemonConnection
    from dorad.node.events import Event
    from dorad.node.inputs import Input, RingInput
    from dorad.node.runtime.program import Send
    from dorad.node.typecheck import PortCheck, TypeChecks
    from dorad.shm.inlet import Inlet


class WholeLines:
    """A text stream that buffers what a thread writes until its line is complete, or flushed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._partial: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Write the lines that are complete now."""
        thread = threading.get_ident()
        whole, newline, rest = (self._partial.pop(thread, "") + text).rpartition("\n")
        if rest:
            self._partial[thread] = rest
        if newline:
            self._stream.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Write the incomplete line of this thread."""
        partial = self._partial.pop(threading.get_ident(), "")
        if partial:
            self._stream.write(partial)
        self._stream.flush()

    def flush_all(self) -> None:
        """Write the incomplete lines of all threads."""
        for thread in list(self._partial):
            self._stream.write(self._partial.pop(thread, ""))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Write stdout and stderr in whole lines from now on."""
    sys.stdout = WholeLines(sys.stdout)
    sys.stderr = WholeLines(sys.stderr)


def flush() -> None:
    """Write all incomplete lines, before the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, WholeLines):
            stream.flush_all()
        elif stream is not None:
            stream.flush()


STOP_TIMEOUT_S = 2.0
"""How long operators may take to end after one of their process has failed."""

SWITCH_INTERVAL_S = 0.001
"""How long an operator that computes in Python keeps the interpreter while others wait."""

SILENCE_S = 10.0
"""Seconds without a call after which an operator beside others is reported."""

SILENCE_CHECKS = 2
"""Checks within that time. One that comes late does not count: the process may have stood still."""

LATE_S = 0.5

_HERE = str(Path(__file__).parent)
_PLAIN_KEYS = frozenset({"id", "ring", "interval_ns", "source", "origin", "blocking"})
"""The keys of an input without `max_rate_hz` and `sync`; see `_input_of`."""


def run() -> None:
    """Run the operators that the environment names; return when all have succeeded.

    Raises:
        RuntimeError: the process was not started for an operator node.
        SystemExit: an operator failed, or the dataflow could not start.
    """
    entries = from_environment(os.environ)
    place = attach.decide(None, None, os.environ)
    if not isinstance(place, attach.Spawned):
        raise RuntimeError("operators run only in a dataflow: start it with `dora run`")
    logbridge.bridge(place.node_id)
    if os.environ.get(attach.WRITE_EVENTS):
        text = f"{attach.WRITE_EVENTS} is ignored: events of operators are not recorded"
        logbridge.emit(logbridge.line(place.node_id, "warn", text))
    if len(entries) > 1:
        install()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
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
    succeeded = runtime.run()
    flush()
    if not succeeded:
        _exit_failed()


class _OperatorParts(NamedTuple):
    """The objects of one operator."""

    program: Program
    inbox: Inbox
    receiver: Receiver
    outbox: Outbox
    sender: OperatorSender


class _OwnTypes:
    """The types of one operator's inputs, under the operator's own names; see `InputTypes`."""

    def __init__(self, types: TypeChecks, operator: str) -> None:
        self._types = types
        self._operator = operator

    def input(self, input_id: str, source: str | None, inlet: Inlet, clock: Clock) -> RingInput:
        served = self._types.input(f"{self._operator}/{input_id}", source, inlet, clock)
        served.id = input_id
        return served


class Runtime:
    """The operators of one node, and the state that they share."""

    def __init__(self, connection: DaemonConnection, programs: Sequence[Program]) -> None:
        """Attach the operators to the dataflow, and wait for the start barrier.

        Raises:
            RuntimeError: the dataflow could not start.
        """
        self._connection = connection
        self._config = config = connection.config
        stepping.allow(config.get("stepped") is True)
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
        self._calls = Calls(names) if len(names) > 1 and not connection.watched else None
        self._pulse = Pulse(connection) if connection.watched else self._calls
        self._inprocess: dict[int, InProcessInput] = {}
        self._ending = threading.Lock()
        self._alive = set(names)
        self._over = threading.Event()
        self._failed = False
        self._scheduler = OperatorScheduler(connection) if len(programs) > 1 else None
        self._inboxes: dict[str, Inbox] = {}
        self._operators = [self._parts_of(program) for program in programs]
        connection.catch_up = self._catch_up
        self._catch_up()
        forking.watch(self)
        gc.freeze()

    def _parts_of(self, program: Program) -> _OperatorParts:
        connection, name = self._connection, program.id
        clock = Clock(
            StampCounter(self._config["node_id"], connection.box.words), connection.box.words
        )
        make = functools.partial(self._input_of, name, clock)
        # Several operators that spin at once would only slow each other down.
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
        outbox = Outbox(name, connection, sender, clock, self._inprocess, beat, warn)
        if self._types is not None:
            outbox.check(self._types.sender(sender))
        return _OperatorParts(program, inbox, Receiver(inbox), outbox, sender)

    def _beat_of(self, operator: str) -> Callable[[], None]:
        return functools.partial(self._pulse.beat, operator) if self._pulse else lambda: None

    def _input_of(self, operator: str, clock: Clock, item: dict[str, Any]) -> Input:
        """Return the ring, timer or queue of an operator's input."""
        connection = self._connection
        full = f"{operator}/{item['id']}"
        within = item["source"] == self._config["node_id"]
        latched = connection.box.words[item["ring"] + RING_LATCHED]
        if not within or latched or any(item[key] for key in item.keys() - _PLAIN_KEYS):
            types = _OwnTypes(self._types, operator) if self._types else None
            return InputFactory(connection, clock, self._epoch_ns, types)(item)
        ring = ring_at(connection.box.words, item["ring"])
        wake = functools.partial(self._wake, operator)
        inprocess = InProcessInput(item["id"], connection.box.words, ring, clock, wake)
        if self._types is not None:
            check = self._types.check_of(full, item["source"])
            if check is not None:
                node_id = self._config["node_id"]
                inprocess.inspect = functools.partial(_check_type, inprocess, check, node_id)
        self._inprocess[inprocess.ring] = inprocess
        return inprocess

    def _catch_up(self) -> bool:
        """Send the last messages to late subscribers; see `Sender.catch_up`."""
        busy = [parts for parts in self._operators if not parts.sender.catch_up()]
        return not busy

    def _wake(self, operator: str) -> None:
        if self._scheduler is not None:
            self._scheduler.wake(self._inboxes[operator])

    def abandon(self) -> None:
        """Leave the node to the parent process: this one is a forked child."""
        for parts in self._operators:
            forking.refuse(parts.inbox)
            forking.refuse(parts.receiver)
            forking.refuse(parts.outbox)
            forking.refuse(parts.sender)
        forking.detach(self._connection.box)
        self._connection.hang_up()

    def run(self) -> bool:
        """Run all operators to their ends; return False if one has failed."""
        if self._scheduler is None:
            self._serve(self._operators[0])
        elif stepping.may_be_stepped:
            self._serve_stepped(self._scheduler)
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
            for parts in self._operators
        ]
        for thread in threads:
            thread.start()
        self._wait_until_over()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve_stepped(self, scheduler: OperatorScheduler) -> None:
        """Run all operators in this thread, the one with the oldest message first.

        Threads would run in another order each time.
        """
        running = list(self._operators)
        while running and not self._failed:
            for parts in sorted(running, key=lambda each: each.inbox.next_stamp()):
                try:
                    event = parts.receiver.try_recv()
                    ends = event is None and parts.receiver.ended
                    if event is not None:
                        ends = self._handle(parts, event)
                except Exception as error:  # noqa: BLE001 - the process fails with it
                    self._fail(error)
                    ends = True
                if ends:
                    running.remove(parts)
                    self._end(parts)
                if ends or event is not None:
                    break
            else:
                scheduler.sleep_stepped([each.inbox for each in running])

    def _wait_until_over(self) -> None:
        """Wait; report operators that make no call. The daemon sees that others wait for events."""
        if self._calls is None:
            self._over.wait()
            return
        reported: set[str] = set()
        period, begun = SILENCE_S / SILENCE_CHECKS, time.monotonic()
        while not self._over.wait(period):
            late = time.monotonic() - begun - period
            begun = time.monotonic()
            if late > LATE_S:
                continue
            silent = set(self._calls.check(SILENCE_CHECKS)) - reported
            reported |= silent
            for name in sorted(silent):
                self._log(
                    "warn",
                    f"operator {name!r} has not called dora for {SILENCE_S:g} s: it computes, or "
                    "hangs; `health_check_timeout` in the dataflow ends a node that hangs",
                )

    def _serve(self, parts: _OperatorParts) -> None:
        """Run one operator until it ends."""
        try:
            while (event := parts.receiver.next(None)) is not None:
                if self._handle(parts, event):
                    break
                del event  # ends its borrow before the next wait
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self._scheduler is None:
                raise  # Ctrl-C: this is the main thread
            self._fail(error)
        self._end(parts)

    def _end(self, parts: _OperatorParts) -> None:
        """Record that an operator has ended."""
        parts.inbox.close()
        with self._ending:
            self._alive.discard(parts.program.id)
            if not self._alive or self._failed:
                self._over.set()
            else:
                self._connection.ended(parts.program.id)

    def _handle(self, parts: _OperatorParts, event: Event) -> bool:
        """Pass an event to its operator; return True if that ends. Raises OperatorError."""
        program, send, pulse = parts.program, parts.outbox.send_output, self._pulse
        if pulse is not None:
            pulse.begin(program.id)
        if event["type"] == "RELOAD":
            status = self._reload(program, event, send)
        else:
            status = program.on_event(event, send)
        if pulse is not None:
            pulse.rest(program.id)
        if status is DoraStatus.STOP_ALL:
            self._stop_all()
        return status is not DoraStatus.CONTINUE

    def _reload(self, program: Program, event: Event, send: Send) -> DoraStatus:
        """Reload an operator's file; if that fails, the old code keeps running.

        The operator then gets the event, too; an exception in that call is only reported.
        """
        try:
            program.reload()
        except OperatorError as error:
            _show_trace(error)
            self._log("error", f"{error}; the old code keeps running")
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


def _check_type(inprocess: InProcessInput, check: PortCheck, node_id: str, event: Event) -> None:
    """Warn about data of another type, in the first message or in all."""
    if not check.applies(event["metadata"]):
        return
    wrong = check.mismatch(event["value"])
    if wrong is not None:
        check.warn(node_id, wrong)
    if not check.setting.every_input:
        inprocess.inspect = None


def _report(error: BaseException) -> None:
    """Print an error: the traceback of the user's own code, then one sentence."""
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
    """Exit with code 1, even if an operator does not return from its event."""
    if threading.active_count() == 1:
        sys.exit(1)
    os._exit(1)
