"""How a recording ends, in its log line; its settings and the names of its files."""

import json
import time
from pathlib import Path

import pytest

from dorad.record.box.ring import RING, segment_name
from dorad.record.recorder.outcome import (
    MARK_TARGET,
    MAX_PATHS,
    TARGET,
    Ended,
    Marked,
    RecordingOutcome,
    marked_line,
    outcome_line,
    read_marked,
    read_outcome,
)
from dorad.record.recorder.settings import MIN_FREE, Settings, default_path, min_free

OUTCOME = RecordingOutcome(
    complete=True, reason="enough", messages=3, bytes=70, paths=(Path("a.mcap"),),
    dropped={"a/b": 2, "c/d": 0}, counts={"a/b": 3}, closed=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("complete", "level", "word"), [(True, "info", "COMPLETE"), (False, "warn", "INCOMPLETE")]
)
def test_the_end_of_a_recording_is_read_again_from_its_line(complete, level, word):
    line = json.loads(outcome_line("rec", OUTCOME._replace(complete=complete)))
    assert (line["node_id"], line["target"], line["level"]) == ("rec", TARGET, level)
    assert line["message"] == f"{word}: 3 messages of 1 topic, 70 B; enough"
    path = str(Path("a.mcap").absolute())
    assert read_outcome(line["target"], line["fields"]) == Ended(
        complete, "enough", 3, 70, [path], {"a/b": 2}
    )


def test_of_very_many_files_the_last_ones_are_named():
    paths = tuple(Path(f"/r/{number}") for number in range(MAX_PATHS + 1))
    fields = json.loads(outcome_line("rec", OUTCOME._replace(paths=paths)))["fields"]
    assert fields["paths"] == [str(each) for each in paths[1:]]


@pytest.mark.parametrize("made", [True, False])
def test_the_answer_about_an_incident_is_read_again_from_its_line(made):
    line = json.loads(marked_line("rec", Marked(made, "so")))
    assert (line["node_id"], line["target"]) == ("rec", MARK_TARGET)
    assert (line["level"], line["message"]) == ("info" if made else "warn", "so")
    assert read_marked(line["target"], line["fields"]) == Marked(made, "so")


def test_other_lines_are_no_outcomes():
    for build, read in (
        (lambda: outcome_line("rec", OUTCOME), read_outcome),
        (lambda: marked_line("rec", Marked(True, "so")), read_marked),
    ):
        line = json.loads(build())
        target, fields = line["target"], line["fields"]
        assert read(target, fields) is not None
        for wrong in ((None, fields), ("other", fields), (target, None), (target, {})):
            assert read(*wrong) is None
        first = next(iter(fields))
        assert read(target, fields | {first: "what a node prints"}) is None


def test_the_files_of_a_recording_are_numbered_if_there_may_be_several(monkeypatch):
    one = Settings(Path("/r/a.mcap"))
    assert (one.box, one.folder, one.splits) == (None, Path("/r"), False)
    assert one.part(2) == Path("/r/a.mcap")
    for several in (
        Settings(Path("/r/a.mcap"), split_bytes=0),
        Settings(Path("/r/a"), split_s=0.0),
    ):
        assert (several.box, several.folder, several.splits) == (None, Path("/r"), True)
        assert several.part(2) == Path("/r/a_0002.mcap")
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    box = Settings(Path("/r/box"), keep_s=0.0)
    assert (box.box, box.folder, box.splits) == (Path("/r/box"), Path("/r/box") / RING, True)
    assert box.part(2) == box.folder / segment_name(2, 10**18)
    assert default_path("flow").name == time.strftime("flow_%Y%m%d-%H%M%S.mcap")


@pytest.mark.parametrize(
    ("given", "total", "expected"),
    [(None, 100, 5), (None, 20 * MIN_FREE, MIN_FREE), (None, 20 * MIN_FREE - 20, MIN_FREE - 1),
     (None, 1 << 50, MIN_FREE), (0, 1 << 50, 0), (7, 100, 7)],
)  # fmt: skip
def test_a_gibibyte_or_a_twentieth_of_the_disk_stays_free(given, total, expected):
    assert min_free(Settings(Path("a"), min_free=given), total) == expected
