"""`dora record mark` of a running dataflow: one incident on each machine that records.

A node that is added for a moment makes the incident, with the rights of the dataflow's nodes. What
a release has brought to a robot gets no nodes from elsewhere: there its own recorder makes it.
"""

from __future__ import annotations

import logging
import secrets
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from dorad.cli.reporting import print_error
from dorad.cli.select import connect, label, select
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from dorad.control.client import Client, Stream
    from dorad.control.messages import DataflowDetail, IncidentList, LogLines, LogRecord
    from dorad.record.incidents import Mark

POLL_S = 0.5
ANSWER_S = 60.0
"""Seconds until each machine has answered; its recorder has half of it."""

MAX_AT_ONCE = 16
"""Machines that are asked at once."""

Asked = TypeVar("Asked", str, str | None)

_log = logging.getLogger(__name__)


def mark_running(given: str | None, folder: Path | None, mark: Mark) -> int:
    """Keep an incident on each machine of a running dataflow; print the result of each.

    `folder` is that of the black box, None for that of the dataflow's block `record`. Return the
    exit code: 0 if each machine has kept one.

    Raises:
        ControlError: the server does not answer, or does not know the dataflow.
        click.ClickException: no machine records, or the dataflow is stopping or has ended.
    """
    from dorad.dataflow.load import from_descriptor
    from dorad.dataflow.settings import RECORD_FOLDER

    with connect() as client:
        if given is not None and client.server.path is None:
            known = client.incidents(given)
            if any("/" in box.dataflow for box in known.boxes):
                return _mark_releases(client, given, folder, known, mark)
        found = client.info(select(client, given))
        run = found.info.uuid
        block = from_descriptor(found.descriptor, path=Path(found.path)).record
        place = folder or Path(RECORD_FOLDER if block is None else block.folder)
        _check_running(found, place)
        machines: list[str | None] = [*sorted(set(found.placement.values()))]
        if client.server.path is not None:
            machines = [None]
        if not machines:
            raise click.ClickException("the dataflow runs on no machine yet")
        token = secrets.token_hex(4)
        nodes = {f"__dora_mark_{token}_{at}__": each for at, each in enumerate(machines)}
        user = None if block is None else block.user
        answers = _ask(client, run, nodes, _definition(place, mark, user))
    return _report({nodes[node]: answers[node] for node in nodes if node in answers}, machines)


def _mark_releases(
    client: Client, given: str, folder: Path | None, known: IncidentList, mark: Mark
) -> int:
    """Let the recorders of a release make an incident, each on its robot; return the exit code."""
    from dorad.control.errors import ControlError
    from dorad.dataflow.recording import NODE_ID
    from dorad.record.outcome import MARK_PARAM, MARK_WORD

    if folder is not None:
        raise click.ClickException(f"{given} comes from a release: leave out {folder}")
    answers: dict[str | None, tuple[bool, str]] = {
        robot: (False, reason) for robot, reason in known.missing.items()
    }

    dataflows = {box.machine: box.dataflow for box in known.boxes}

    def order(robot: str | None) -> None:
        try:
            value = msgspec.to_builtins(mark)
            client.set_param(NODE_ID, MARK_PARAM, value, dataflow=dataflows[robot])
        except ControlError as error:
            answers[robot] = (False, str(error))

    def take_back(robot: str | None) -> None:
        try:
            client.delete_param(NODE_ID, MARK_PARAM, dataflow=dataflows[robot])
        except ControlError as error:  # it was not set, or the dataflow has ended
            _log.debug("the order stays on %s: %s", robot, error)

    lines = client.logs(given, nodes=[NODE_ID], grep=MARK_WORD, tail=0, follow=True)
    _ask_all(lines, lambda line: line.machine, dataflows, answers, order, take_back)
    return _report(answers, [*dataflows, *known.missing])


def _check_running(found: DataflowDetail, folder: Path) -> None:
    """Raise click.ClickException if no node can be added that makes the incident."""
    info = found.info
    if info.status in ("starting", "running"):
        return
    state = "is stopping" if info.active else "has ended"
    where = visible(str(Path(found.path).parent / folder))
    raise click.ClickException(
        f"dataflow {label(info)} {state}; its black box stays, mark that by its folder, on each "
        f"machine that has one: `dora record mark {where}`"
    )


def _definition(folder: Path, mark: Mark, user: str | None) -> dict[str, Any]:
    """Return the node that makes an incident, without its name and machine."""
    from dorad.dataflow.model import RECORDER

    text = msgspec.json.encode(mark).decode()
    words = ["--folder", str(folder), "--mark", text]
    return {"path": RECORDER, "args": shlex.join(words), **({"user": user} if user else {})}


def _ask(
    client: Client, run: str, nodes: Mapping[str, str | None], definition: Mapping[str, Any]
) -> dict[str | None, tuple[bool, str]]:
    """Let each node make its incident; return whether it did, and its words."""
    from dorad.cli.record_attach import remove_added
    from dorad.control.errors import ControlError
    from dorad.record.outcome import MARK_WORD

    answers: dict[str | None, tuple[bool, str]] = {}

    def add(node: str) -> None:
        machine = nodes[node]
        place = {} if machine is None else {"deploy": {"machine": machine}}
        try:
            client.add_node({**definition, "id": node, **place}, dataflow=run)
            _log.debug("%s makes the incident on %s", node, machine)
        except ControlError as error:
            answers[node] = (False, str(error))

    def remove(node: str) -> None:
        remove_added(client, node, run)

    # Before there are nodes that answer: lines that come live do not depend on log files, which
    # cannot be written while the disk is full.
    lines = client.logs(run, grep=MARK_WORD, tail=0, follow=True)
    _ask_all(lines, lambda line: line.node, nodes, answers, add, remove)
    return answers


def _ask_all(
    lines: Stream[LogLines],
    who: Callable[[LogRecord], str | None],
    asked: Collection[Asked],
    answers: dict[str | None, tuple[bool, str]],
    order: Callable[[Asked], None],
    take_back: Callable[[Asked], None],
) -> None:
    """Give an order to each that is asked, add the answers to `answers`, and take the orders back.

    All at once: while one machine starts, the rings of the others lose what is to be kept.
    """
    with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
        try:
            list(pool.map(order, asked))
            _read_answers(lines, who, asked, answers)
        finally:
            lines.close()
            list(pool.map(take_back, asked))


def _read_answers(
    lines: Stream[LogLines],
    who: Callable[[LogRecord], str | None],
    asked: Collection[str | None],
    answers: dict[str | None, tuple[bool, str]],
) -> None:
    """Add the answers that lines have to `answers`, until all that were asked have answered.

    `who` returns which of them a line is from.
    """
    from dorad.record.outcome import read_marked

    end = time.monotonic() + ANSWER_S
    while not answers.keys() >= set(asked) and time.monotonic() < end:
        try:
            found = lines.next(POLL_S).lines
        except TimeoutError:
            continue
        except StopIteration:
            return
        for line in found:
            answer = read_marked(line.target, line.fields)
            if answer is not None and who(line) in asked:
                answers[who(line)] = (answer.made, answer.text)


def _report(
    answers: Mapping[str | None, tuple[bool, str]], machines: Collection[str | None]
) -> int:
    """Print the answer of each machine; return the exit code."""
    missing = (False, f"no answer within {ANSWER_S:g} s; `dora logs` says why")
    all_made = True
    for machine in machines:
        made, text = answers.get(machine, missing)
        line = visible(text if machine is None else f"{machine}: {text}")
        all_made = all_made and made
        if made:
            click.echo(line)
        else:
            print_error(line)
    return 0 if all_made else 1
