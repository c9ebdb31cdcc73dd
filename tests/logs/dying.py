"""Kill a reader at every line of code between a pipe and the log, and check its successor.

`python -m tests.logs.dying FOLDER MAX_LOG_SIZE|journal` prints the number of kills. It forks, so
it runs in a process without threads.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from dorad.dataflow.settings import Logging
from dorad.logs import capture, logfile, staging
from dorad.logs.journal import forward, writer
from dorad.logs.journal.forward import NodeJournal
from dorad.logs.journal.writer import Journal
from dorad.logs.logfile import LogFile, Trouble
from dorad.logs.nodelog import NodeLog
from tests.logs.captured import in_files
from tests.logs.journald import Journald

WATCHED = {module.__file__ for module in (capture, forward, logfile, staging, writer)}
FIRST = b"".join(b"first %d\n" % number for number in range(7)) + b"begun"
SECOND = b", ended\nlast"
ERRORS = b"error 0\nerror 1\n"

Goal = int | Journald | None
"""Size at which files are rotated, or the journal that gets the lines."""


def main(folder: Path, max_size: int | None, *, journal: bool) -> int:
    deaths = 0
    while True:
        run = folder / str(deaths)
        run.mkdir()
        if journal:
            with Journald(run / "journald") as journald:
                died = _die_once(run, journald, deaths)
        else:
            died = _die_once(run, max_size, deaths)
        if not died:
            return deaths
        deaths += 1


def _die_once(folder: Path, goal: Goal, moment: int) -> bool:
    """Return True if the reader was killed. Its successor must have logged every line once."""
    out_read, out = os.pipe()
    err_read, err = os.pipe()
    memory = staging.create()
    os.write(out, FIRST)
    os.write(err, ERRORS)
    descriptors = (out_read, err_read, memory)
    status = _fork(folder, goal, descriptors, moment)
    if isinstance(goal, Journald):
        goal.take()
    os.write(out, SECOND)
    for end in (out, err):
        os.close(end)
    assert _fork(folder, goal, descriptors, None) == 0
    for descriptor in descriptors:
        os.close(descriptor)
    if isinstance(goal, Journald):
        assert not in_files(folder)
        found = [(entry["DORA_STREAM"], entry["MESSAGE"]) for entry in goal.take()]
    else:
        found = [(record.stream, record.message) for record in in_files(folder)]
    lines = [message for stream, message in found if stream == "stdout"]
    assert lines == (FIRST + SECOND).decode().split("\n"), f"at {moment}: {lines}"
    errors = [message for stream, message in found if stream == "stderr"]
    assert errors == ["error 0", "error 1"], f"at {moment}: {errors}"
    return status != 0


def _fork(folder: Path, goal: Goal, descriptors: tuple[int, int, int], moment: int | None) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(_read(folder, goal, descriptors, moment))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def _read(
    folder: Path, goal: Goal, descriptors: tuple[int, int, int], moment: int | None
) -> None:
    max_size = None if isinstance(goal, Journald) else goal
    file = LogFile(folder, "cam", Trouble(lambda *_: None), max_size=max_size, max_rotated=100)
    journal = None
    if isinstance(goal, Journald):
        known = {(entry["DORA_STREAM"], int(entry["DORA_SEQ"])) for entry in goal.entries}
        journal = NodeJournal(
            Journal(goal.path, lambda level, text: None),
            "u",
            None,
            "cam",
            arrived=lambda _, __, stream, number: (stream, number) in known,
        )
    log = NodeLog("cam", Logging(), file, lambda _: None, journal)
    out, err, memory = descriptors
    if moment is not None:
        _kill_at(moment)
    staged = staging.Staging(memory)
    reading = capture.Capture(out, err, staged, log, adopted=True)
    if moment is None:
        await reading.wait_closed()
    else:
        while staged.stdout.data() != b"begun" or staged.stderr.filled:  # noqa: ASYNC110 - in memory
            await asyncio.sleep(0)
        sys.settrace(None)


def _kill_at(moment: int) -> None:
    """Let this process be killed at a line; each line counts at its first two executions."""
    left = moment
    executions: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        file = frame.f_code.co_filename
        if file not in WATCHED:
            return None
        if event == "line":
            executions[file, frame.f_lineno] += 1
            if executions[file, frame.f_lineno] <= 2:
                left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


if __name__ == "__main__":
    os.environ["PATH"] = ""  # the journal of this machine is not to be read
    to_journal = sys.argv[2] == "journal"
    size = 0 if to_journal else int(sys.argv[2])
    print(main(Path(sys.argv[1]), size or None, journal=to_journal))
