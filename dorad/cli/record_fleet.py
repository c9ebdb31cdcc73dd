"""`dora record --attach` through a coordinator: a recorder, and a file, on each machine.

Each recorder is a node of the dataflow on its machine: messages do not cross the network, and a
connection that breaks ends no recording.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from msgspec.structs import replace

from dorad.cli.interrupts import stop_signals
from dorad.cli.record_options import Chosen, choose
from dorad.commandline.reports import print_error, print_note, print_warning
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.control.client import Client, Stream
    from dorad.control.messages import DataflowDetail, LogLines
    from dorad.dataflow.model import Dataflow
    from dorad.logrecord import LogRecord
    from dorad.record.recorder.outcome import Ended
    from dorad.record.recorder.settings import Settings

POLL_S = 0.5
CHECK_S = 2.0
"""Seconds between two checks that the recorders still run."""

END_S = 30.0
"""Seconds until a recorder has reported its end."""

_ENDED = ("stopped", "failed")

_log = logging.getLogger(__name__)


class Recorder(NamedTuple):
    """The recorder on one machine."""

    machine: str
    node: str
    topics: tuple[str, ...]


def plan(
    topics: Sequence[str], placement: Mapping[str, str], token: str
) -> tuple[list[Recorder], list[str]]:
    """Return a recorder for each machine that sends some of the topics, and the topics that no
    machine sends yet.
    """
    by_machine: dict[str, list[str]] = {}
    left = []
    for topic in topics:
        machine = placement.get(topic.partition("/")[0])
        if machine is None:
            left.append(topic)
        else:
            by_machine.setdefault(machine, []).append(topic)
    from dorad.dataflow.recording import ATTACHED

    recorders = [
        Recorder(machine, f"{ATTACHED}{token}_{number}__", tuple(own))
        for number, (machine, own) in enumerate(sorted(by_machine.items()), 1)
    ]
    return recorders, left


def record_on_machines(
    client: Client,
    run: str,
    detail: DataflowDetail,
    known: Dataflow,
    settings: Settings,
    chosen: Chosen,
) -> int:
    """Record on each machine until Ctrl-C, a limit, or the end of the dataflow.

    Return the exit code: 0 if each machine's recording is complete.
    """
    topics = choose(known, chosen.topics, chosen.excluded)
    recorders, left = plan(topics, detail.placement, secrets.token_hex(4))
    for topic in left:
        print_warning(f"{topic} is not recorded: its node runs nowhere yet")
    if not recorders:
        raise click.ClickException("there is no topic to record: no node runs on a machine")
    _warn_of_others(client, run)
    watch = _Watch(client, run, recorders)
    with stop_signals(watch.ask):
        try:
            for each in recorders:
                _add(client, run, each, settings, chosen.queue_size)
            watch.follow()
            names = ", ".join(each.machine for each in recorders)
            print_note(f"recording on {names}; Ctrl-C ends it")
            watch.until_ended()
        finally:
            watch.close()
            _remove(client, run, recorders)
    return _report(recorders, watch.ended, watch.troubles)


def _add(client: Client, run: str, recorder: Recorder, settings: Settings, queue_size: int) -> None:
    """Add a recorder to the dataflow, on its machine."""
    from dorad.record.recorder.arguments import recorder_node
    from dorad.record.recorder.settings import SUFFIX

    own = settings
    if settings.box is None:
        path = settings.path
        name = f"{path.stem}_{recorder.machine}{path.suffix or SUFFIX}"
        own = replace(settings, path=path.with_name(name))
    definition: dict[str, Any] = {
        **recorder_node(recorder.topics, own, queue_size),
        "id": recorder.node,
        "deploy": {"machine": recorder.machine},
    }
    client.add_node(definition, dataflow=run)
    _log.debug("%s records on %s", recorder.node, recorder.machine)


def _remove(client: Client, run: str, recorders: Sequence[Recorder]) -> None:
    """Remove the recorders from the dataflow, if it still runs."""
    from dorad.control.errors import ControlError

    for each in recorders:
        try:
            client.remove_node(each.node, dataflow=run)
        except ControlError as error:
            # It was not added, or the dataflow has ended, and the node with it.
            _log.debug("%s is not removed: %s", each.node, error)


def stop_on_machines(client: Client, run: str) -> int:
    """End the recorders that commands have added, and print how each has ended.

    Return the exit code: 0 if each recording is complete.
    """
    recorders = [recorder for recorder, _ in _joined(client, run)]
    if not recorders:
        click.echo("no recorder has joined the dataflow")
        return 0
    watch = _Watch(client, run, recorders)
    watch.ask("dora record stop")
    try:
        watch.follow()
        watch.until_ended()
    finally:
        watch.close()
        _remove(client, run, recorders)
    return _report(recorders, watch.ended, watch.troubles)


def _joined(client: Client, run: str) -> list[tuple[Recorder, bool]]:
    """Return the recorders that commands have added, each with whether it has ended."""
    from dorad.dataflow.recording import ATTACHED

    joined = [
        (Recorder(info.machine or "", info.node, ()), info.status in _ENDED)
        for info in client.nodes(run)
        if info.node.startswith(ATTACHED)
    ]
    return sorted(joined)


def _warn_of_others(client: Client, run: str) -> None:
    names = ", ".join(each.node for each, ended in _joined(client, run) if not ended)
    if names:
        print_note(f"other recorders run, too: {names}; `dora record stop` ends all")


class _Watch:
    """Follows the recorders: their lines, their ends, and the signals of this process."""

    def __init__(self, client: Client, run: str, recorders: Sequence[Recorder]) -> None:
        self.ended: dict[str, Ended] = {}
        """How each recorder has ended, by its node."""
        self.troubles: dict[str, str] = {}
        """Why the end of a recorder is unknown."""
        self._client = client
        self._run = run
        self._recorders = {each.node: each for each in recorders}
        self._lines: Stream[LogLines] | None = None
        self._silent: set[str] = set()
        """Recorders that have ended; their last line may be on the way."""
        self._asked = ""
        self._asked_at: float | None = None

    def ask(self, why: str) -> None:
        """End the recordings; asked for the second time, end the command."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = why

    def follow(self) -> None:
        """Follow the lines of the recorders from their first one on."""
        self._lines = self._client.logs(self._run, nodes=[*self._recorders], tail=1000, follow=True)

    def close(self) -> None:
        """Stop following."""
        if self._lines is not None:
            self._lines.close()

    def until_ended(self) -> None:
        """Wait until the end of each recording is known, or why it is not."""
        from dorad.control.errors import ControlError

        assert self._lines is not None
        check_at = time.monotonic() + CHECK_S
        while self._missing():
            if self._asked and self._asked_at is None:
                self._end_all()
            try:
                for line in self._lines.next(POLL_S).lines:
                    self._take(line)
            except TimeoutError:
                pass
            except StopIteration:
                self._give_up("its log has ended without a result")
            except ControlError as error:
                self._give_up(str(error))
            now = time.monotonic()
            if self._asked_at is not None and now > self._asked_at + END_S:
                self._give_up(f"it has not ended within {END_S:g} s")
            elif now >= check_at:
                check_at = now + CHECK_S
                self._check()

    def _missing(self) -> list[str]:
        return [each for each in self._recorders if each not in {*self.ended, *self.troubles}]

    def _give_up(self, why: str) -> None:
        for node in self._missing():
            self.troubles[node] = why

    def _take(self, line: LogRecord) -> None:
        from dorad.record.recorder.outcome import read_outcome

        recorder = self._recorders.get(line.node or "")
        if recorder is None:
            return
        machine = recorder.machine
        ended = read_outcome(line.target, line.fields)
        if ended is not None:
            self.ended[recorder.node] = ended
            self.troubles.pop(recorder.node, None)
        elif line.message.startswith("recording: "):
            print_note(f"{machine}: {line.message.removeprefix('recording: ')}")
        elif line.stream == "stderr" or line.message.startswith("warning: "):
            print_warning(f"{machine}: {line.message}")

    def _end_all(self) -> None:
        """Ask each recorder to end its recording."""
        from dorad.control.errors import ControlError
        from dorad.record.recorder.outcome import END_PARAM

        self._asked_at = time.monotonic()
        for node in self._missing():
            try:
                self._client.set_param(node, END_PARAM, self._asked, dataflow=self._run)
            except ControlError as error:
                # It may have ended by itself; then its last line is on the way.
                _log.debug("%s cannot be asked to end: %s", node, error)

    def _check(self) -> None:
        """Find recorders that have ended without a report, such as killed ones."""
        from dorad.control.errors import ControlError

        try:
            infos = {info.node: info for info in self._client.nodes(self._run)}
        except ControlError as error:
            _log.debug("the nodes are not known: %s", error)
            return
        for node in self._missing():
            info = infos.get(node)
            if info is not None and info.status in _ENDED:
                if node in self._silent:
                    why = info.last_exit or "it has ended"
                    self.troubles[node] = f"{why}; `dora record recover` repairs its file there"
                self._silent.add(node)


def _report(
    recorders: Sequence[Recorder], ended: Mapping[str, Ended], troubles: Mapping[str, str]
) -> int:
    """Print how each recording has ended; return the exit code."""
    from dorad.phrases import count_text, size_text

    complete = True
    for machine, node, _ in recorders:
        outcome = ended.get(node)
        if outcome is None:
            complete = False
            print_error(f"{machine}: UNKNOWN: {troubles.get(node, 'no answer')}")
            continue
        complete = complete and outcome.complete
        for topic, count in sorted(outcome.dropped.items()):
            print_warning(f"{machine}: {count} dropped on {topic}")
        status = "COMPLETE" if outcome.complete else "INCOMPLETE"
        messages = count_text(outcome.messages, "message")
        text = f"{messages}, {size_text(outcome.bytes)}; {outcome.reason}"
        click.echo(f"{machine}: {status}: {visible(text)}")
        for path in outcome.paths:
            click.echo(f"recorded {machine}:{visible(path)}")
    return 0 if complete else 1
