"""Entry point of the node that records its inputs: `dora-record-node`, started by the daemon."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dorad.heap import collect_rarely, keep_freed
from dorad.node import attach, logbridge, protocol
from dorad.record.recorder.arguments import add_arguments, settings_of
from dorad.record.recorder.outcome import (
    Marked,
    marked_line,
    outcome_line,
    outcome_lines,
    progress_line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.record.recorder.outcome import Progress, RecordingOutcome

REPORT_S = 10.0


class _Reporter:
    """Prints a line about the progress every `REPORT_S`."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + REPORT_S
        self._last: Progress | None = None
        self._dropped = 0

    def __call__(self, now: Progress) -> None:
        if now.dropped > self._dropped:
            print(f"warning: {now.dropped} messages dropped so far", file=sys.stderr, flush=True)
            self._dropped = now.dropped
        if time.monotonic() >= self._due_s:
            before = self._last or now._replace(bytes=0)
            print(f"recording: {progress_line(now, before, REPORT_S)}", flush=True)
            self._last = now
            self._due_s = time.monotonic() + REPORT_S


def main(arguments: Sequence[str] | None = None) -> int:
    """Record until the dataflow ends; return 0 if the recording is complete."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s: %(message)s")
    parser = argparse.ArgumentParser(
        prog="dora-record-node",
        description="Record the inputs of this node; started by dora as part of a dataflow.",
    )
    add_arguments(parser)
    given = parser.parse_args(arguments)
    if not os.environ.get(protocol.CONFIG):
        parser.error("dora starts this program; record with `dora record DATAFLOW`")
    if given.mark is not None and given.folder is None:
        parser.error("--mark goes with --folder")
    try:
        if given.mark is not None:
            return _mark(given.folder, given.mark)
        node_id, outcome = _record(given)
    except OSError as error:
        place = given.output or given.folder
        print(f"error: cannot record to {place}: {error.strerror or error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    logbridge.emit(outcome_line(node_id, outcome))
    for line in outcome_lines(outcome)[1:]:
        print(line, flush=True)
    for path in outcome.paths:
        print(f"recorded {path}", flush=True)
    # As part of a dataflow file, a recording that has ended in order must not fail the dataflow.
    return 0 if outcome.complete or (given.folder is not None and outcome.closed) else 1


def _record(given: argparse.Namespace) -> tuple[str, RecordingOutcome]:
    settings = settings_of(given)
    settings.folder.mkdir(parents=True, exist_ok=True)
    # A black box has one recorder; a folder may have those of several dataflows.
    before = [] if given.folder is None else [*settings.folder.glob("*.mcap")]
    connection = attach.connect(_place())
    try:
        from dorad.record.recorder.session import KEPT_BYTES, Session

        keep_freed(KEPT_BYTES)
        collect_rarely()
        session = Session(
            connection,
            settings,
            arguments=shlex.join(sys.argv[1:]),
            folder=str(Path.cwd()),
            before=before,
            report=partial(print, flush=True),
        )
        signal.signal(signal.SIGTERM, lambda *_: session.hurry())
        signal.signal(signal.SIGINT, lambda *_: session.hurry())
        print(f"recording to {Path.cwd() / (settings.box or settings.part(1))}", flush=True)
        return connection.config["node_id"], session.run(_Reporter())
    finally:
        connection.done()


def _mark(folder: Path, text: str) -> int:
    """Make an incident of the black box in a folder, and report it; return 0.

    A failure must not fail the dataflow.
    """
    from dorad.record.box import blackbox
    from dorad.record.box.incidents import IncidentError, Mark

    connection = attach.connect(_place())
    try:
        try:
            own = blackbox.keep(folder, msgspec.json.decode(text, type=Mark))
            marked = Marked(True, f"incident {own.name} in {own.absolute()}")
        except (OSError, IncidentError, msgspec.MsgspecError) as error:
            marked = Marked(False, f"no incident is made in {folder.absolute()}: {error}")
        logbridge.emit(marked_line(connection.config["node_id"], marked))
    finally:
        connection.done()
    return 0


def _place() -> attach.Spawned | attach.Connected:
    place = attach.decide(None, None, os.environ)
    assert isinstance(place, attach.Spawned | attach.Connected)
    return place


def run() -> None:
    """Run `main` and exit with its code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
