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
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dorad.cli.select import connect, label, select
from dorad.commandline.reports import print_error
from dorad.terminal import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dorad.control.client import Client, Stream
    from dorad.control.messages import DataflowDetail, LogLines
    from dorad.record.box.incidents import Mark

POLL_S = 0.5
ANSWER_S = 60.0
"""Seconds until each machine has answered; its recorder has half of it."""

MAX_AT_ONCE = 16
"""Machines that are asked at once."""

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
                return _mark_releases(client, given, folder, mark)
        info = client.info(select(client, given))
        run = info.info.uuid
        block = from_descriptor(info.descriptor, path=Path(info.path)).record
        place = folder or Path(RECORD_FOLDER if block is None else block.folder)
        _check_running(info, place)
        machines: list[str | None] = [*sorted(set(info.placement.values()))]
        if client.server.path is not None:
            machines = [None]
        if not machines:
            raise click.ClickException("the dataflow runs on no machine yet")
        token = secrets.token_hex(4)
        nodes = {f"__dora_mark_{token}_{at}__": each for at, each in enumerate(machines)}
        user = None if block is None else block.user
        answers = _ask(client, run, nodes, _definition(place, mark, user))
    return _report({nodes[node]: answers[node] for node in nodes if node in answers}, machines)


def _mark_releases(client: Client, given: str, folder: Path | None, mark: Mark) -> int:
    """Let the recorders of a release make an incident, each on its robot; return the exit code."""
    if folder is not None:
        raise click.ClickException(f"{given} comes from a release: leave out {folder}")
    marked = client.mark_incident(given, before=mark.before_s, after=mark.after_s, note=mark.note)
    answers: dict[str | None, tuple[bool, str]] = {
        **{robot: (True, text) for robot, text in marked.made.items()},
        **{robot: (False, reason) for robot, reason in marked.failed.items()},
    }
    return _report(answers, [*answers])


def _check_running(detail: DataflowDetail, folder: Path) -> None:
    """Raise click.ClickException if no node can be added that makes the incident."""
    info = detail.info
    if info.status in ("starting", "running"):
        return
    state = "is stopping" if info.active else "has ended"
    where = visible(str(Path(detail.path).parent / folder))
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
) -> dict[str, tuple[bool, str]]:
    """Let each node make its incident; return whether it did, and its words."""
    from dorad.cli.record_attach import remove_added
    from dorad.control.errors import ControlError
    from dorad.record.recorder.outcome import MARK_WORD

    answers: dict[str, tuple[bool, str]] = {}

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
    # All at once: while one machine starts, the rings of the others lose what is to be kept.
    with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
        try:
            list(pool.map(add, nodes))
            _read_answers(lines, nodes, answers)
        finally:
            lines.close()
            list(pool.map(remove, nodes))
    return answers


def _read_answers(
    lines: Stream[LogLines], asked: Collection[str], answers: dict[str, tuple[bool, str]]
) -> None:
    """Add the answers that lines have to `answers`, until all that were asked have answered."""
    from dorad.record.recorder.outcome import read_marked

    end = time.monotonic() + ANSWER_S
    while not answers.keys() >= set(asked) and time.monotonic() < end:
        try:
            records = lines.next(POLL_S).lines
        except TimeoutError:
            continue
        except StopIteration:
            return
        for line in records:
            answer = read_marked(line.target, line.fields)
            if answer is not None and line.node is not None and line.node in asked:
                answers[line.node] = (answer.made, answer.text)


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
