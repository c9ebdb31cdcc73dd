"""Recover the recordings that crashes have left in a folder, and count what they lack."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dorad.problems import ProblemError
from dorad.record.damage import dropped_in
from dorad.record.mcap import layout, parser
from dorad.record.mcap.reader import RecordingReader
from dorad.record.mcap.recovery import RecoveryError, recover

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

COUNTED_S = 3.0
"""How long the end of a recorder waits until the losses of the one before are counted."""
BEGIN = "begin."
"""Keys in the metadata of a recording: the number of the first message of each topic."""
_NUMBERS = 1 << 32
"""Sequence numbers in a file begin again after so many."""


class Origin(NamedTuple):
    """Whose recordings these are: the same node of the same run has the same queues."""

    dataflow: str
    node: str


class Leftovers:
    """Recovers files in a thread, while their recorder's next process records already."""

    def __init__(
        self,
        own: Origin,
        begin: Mapping[str, int],
        report: Callable[[str], object],
        before: Collection[Path],
    ) -> None:
        """Start. `begin` is the number of the first message that the present recorder takes.

        `before` are the files that are there before it; `report` gets lines for people.
        """
        self._own = own
        self._begin = begin
        self._report = report
        self._before = sorted(before)
        self._lost: dict[str, int] | None = None if before else {}
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)
        self._thread.start()

    def lost(self) -> dict[str, int] | None:
        """Return the messages that no file has since the crash, by topic; None if unknown."""
        self._thread.join(COUNTED_S)
        return self._lost

    def _run(self) -> None:
        recovered = []
        try:
            for path, line in recover_left(self._before):
                recovered.append(path)
                self._report(line)
            self._lost = lost_between(recovered, self._before, self._own, self._begin)
        except (OSError, ProblemError) as error:
            _log.warning("what a crash has lost is not counted: %s", error)


def recover_left(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Recover each recording that has no end; yield a line for people about each."""
    for path in paths:
        try:
            if has_summary(path):
                continue
            done = recover(path)
        except RecoveryError as error:
            _log.debug("%s", error)
        except OSError as error:
            yield path, f"warning: {path} cannot be recovered: {error.strerror}"
        else:
            lost = "" if done.lossless else ", with losses"
            yield path, f"recovered {path} after a crash: {done.messages} messages{lost}"


def lost_between(
    recovered: Collection[Path], known: Sequence[Path], own: Origin, begin: Mapping[str, int]
) -> dict[str, int]:
    """Return how many messages before the numbers `begin` no file has or counts, by topic.

    They are those of the recorder's process that was killed last, whose last file is `recovered`,
    and of those before it that were killed, too. Of removed files nothing is known.

    Raises:
        OSError, RecordingError: a file cannot be read.
    """
    files = sorted(_files_of(known, own), reverse=True)
    if not files or files[0].path not in recovered:
        return {}
    chain = _killed(files)
    counted: Counter[str] = Counter()
    reported: dict[int, Counter[str]] = {}
    firsts: dict[str, int] = {}
    whole = chain[-1].part == chain[-1].first_part
    for file in chain:
        with RecordingReader(file.path) as reader:
            counted.update(reader.topics())
            # The files of one process count from its beginning.
            before = reported.get(file.start_ns, Counter())
            reported[file.start_ns] = before | Counter(dropped_in(reader.metadata))
            if whole:
                firsts = begin_in(reader.metadata, begin)
            else:
                firsts |= reader.first_numbers(begin)
    for each in reported.values():
        counted.update(each)
    return {
        topic: max(0, (begin[topic] - first) % _NUMBERS - counted[topic])
        for topic, first in firsts.items()
    }


def begin_in(metadata: Mapping[str, Mapping[str, str]], topics: Iterable[str]) -> dict[str, int]:
    """Return the number of the first message of each topic that a recorder could take."""
    about = metadata.get("dora.recording", {})
    texts = {topic: about.get(f"{BEGIN}{topic}", "0") for topic in topics}
    return {topic: int(text) for topic, text in texts.items() if text.isdecimal()}


class _File(NamedTuple):
    """A file of a recorder: when its process began, and which of its files it is."""

    start_ns: int
    part: int
    path: Path
    first_part: int
    """The first file of the process."""
    ended: bool
    """Whether the recorder has ended with it."""


def _killed(files: Sequence[_File]) -> list[_File]:
    """Return the files, the newest first, of processes that were killed one after another."""
    chain = [files[0]]
    for file in files[1:]:
        after = chain[-1]
        if file.start_ns == after.start_ns:
            if file.part != after.part - 1:
                break  # some were removed
        elif file.ended or after.part != after.first_part:
            break
        chain.append(file)
    return chain


def _files_of(known: Sequence[Path], own: Origin) -> Iterator[_File]:
    for path in known:
        try:
            reader = RecordingReader(path)
        except (FileNotFoundError, ProblemError) as error:
            _log.debug("%s is not counted: %s", path, error)  # such as a removed segment
            continue
        with reader:
            about = reader.metadata.get("dora.recording", {})
            if (about.get("dataflow"), about.get("node")) != own:
                continue
            numbers = [about.get(key, "") for key in ("start_ns", "part", "first_part")]
            if all(map(str.isdecimal, numbers)):
                start_ns, part, first_part = map(int, numbers)
                reason = reader.metadata.get("dora.end", {}).get("reason", "split")
                yield _File(start_ns, part, path, first_part, reason != "split")


def has_summary(path: Path) -> bool:
    """Return True if a file ends as a complete recording does. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - layout.END_SIZE))
        try:
            return parser.read_footer(file.read()).summary_start > 0
        except layout.McapError:
            return False
